package alerting

import (
	"strings"
	"time"
)

// dayApart is how far apart two visits of jobs that are not known must be to
// count as two days: a job that runs over midnight is one.
const dayApart = 12 * time.Hour

// A visit is who reached a destination, as far as learning is concerned: a job,
// or where that is not known a day.
type visit struct {
	job  string    // "" if it is not known
	time time.Time // of the event
}

// visitOf is the visit of an event.
func visitOf(e *Event) visit { return visit{jobID(e), e.Time.UTC()} }

// String is what an entry remembers of the visit: "corp/app/17/test", or the
// time in UTC. No job is written like a time.
func (v visit) String() string {
	if v.job != "" {
		return v.job
	}
	return v.time.Format(time.RFC3339)
}

// dayOf is the time of a remembered visit that is a day.
func dayOf(remembered string) (time.Time, bool) {
	if strings.Contains(remembered, "/") {
		return time.Time{}, false
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, remembered); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// same reports whether a remembered visit is of the same job, or day.
func (v visit) same(remembered string) bool {
	at, isDay := dayOf(remembered)
	if v.job != "" || !isDay {
		return v.job == remembered
	}
	sameDate := at.Format(time.DateOnly) == v.time.Format(time.DateOnly)
	return sameDate || v.time.Sub(at).Abs() < dayApart
}

// alike reports whether a remembered visit is a day, where v is one, or a job
// where v is: the two are not counted together, as one job can be both.
func (v visit) alike(remembered string) bool {
	_, isDay := dayOf(remembered)
	return isDay == (v.job == "")
}

// count is how many of the remembered visits are like v.
func (v visit) count(remembered []string) int {
	n := 0
	for _, r := range remembered {
		if v.alike(r) {
			n++
		}
	}
	return n
}

// jobID names the job behind an event; "" if it is not known.
func jobID(e *Event) string {
	if e.Job == nil || e.Job.RunID == "" && e.Job.Job == "" {
		return ""
	}
	id, _ := cut(strings.Join([]string{e.Job.Repo, e.Job.RunID, e.Job.Job}, "/"), 256)
	return id
}
