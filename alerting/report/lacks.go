package report

import (
	"fmt"
	"strconv"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
)

// lacking notes what shows that a log has gaps.
type lacking struct {
	first, last time.Time // of the whole log
	firstStart  time.Time // of the first `started`
	starts      int
	stops       int
	degraded    int // events, in the period
	lost        int // lines, the most that one of them tells of
	packets     int // that have no event
	missed      int // events that detectors did not see
}

// take takes every event of the logs.
func (l *lacking) take(e *alerting.Event) {
	if l.first.IsZero() || e.Time.Before(l.first) {
		l.first = e.Time
	}
	if e.Time.After(l.last) {
		l.last = e.Time
	}
	switch {
	case e.Kind != alerting.KindSystem:
	case e.Event == "started":
		l.starts++
		if l.firstStart.IsZero() || e.Time.Before(l.firstStart) {
			l.firstStart = e.Time
		}
	case e.Event == "stopping":
		l.stops++
	}
}

// fault takes a system event of the period.
func (l *lacking) fault(e *alerting.Event) {
	number := func(key string) int {
		n, _ := e.Details[key].(float64)
		return int(max(0, min(n, 1<<53)))
	}
	switch e.Event {
	case "log-degraded":
		l.degraded++
		l.lost = max(l.lost, number("lost"))
	case "packets-lost":
		l.packets += number("lost") + number("unrecorded")
	case "events-missed":
		l.missed += number("missed")
	}
}

// A Lack is something that a report cannot know, and why.
type Lack struct {
	Source string `json:"source,omitempty"` // the log that it is about, if it is one
	Text   string `json:"text"`             // a sentence of ours
}

// lacks says in sentences what the report cannot know.
func (g *gather) lacks(sources []*foreignlog.Source) []Lack {
	list := []Lack{}
	say := func(format string, args ...any) { list = append(list, Lack{Text: fmt.Sprintf(format, args...)}) }
	records, l := 0, &g.lacking
	for _, s := range sources {
		records += s.Stats.Records
		if s.Stats.Skipped > 0 {
			list = append(list, Lack{s.Name, count(s.Stats.Skipped, "line") + " could not be read, being no events."})
		}
		if s.Stats.Cut {
			list = append(list, Lack{s.Name, "It ends in its middle: what was behind is lost."})
		}
	}
	if n := records - g.visited; n > 0 {
		say("%s of another version, or damaged, were left out.", count(n, "line"))
	}
	g.lacksOfScope(say)
	if !l.first.IsZero() && (l.firstStart.IsZero() || l.first.Before(l.firstStart)) && !g.config.Since.After(l.first) {
		say("The log begins at %s within a run of the daemon: it tells of no start before that, and what came earlier is in another file.", stamp(l.first))
	}
	if l.starts > l.stops+1 {
		say("The daemon started %s and was told to stop %s: it was killed, or several logs were read. The last 100 ms of allowed traffic and the ends of connections may be missing.",
			times(l.starts), times(l.stops))
	}
	if l.degraded > 0 {
		text := "The event log could not be written in full for a time (log-degraded)"
		if l.lost > 0 {
			text += "; up to " + count(l.lost, "line") + " are lost"
		}
		say("%s.", text)
	}
	if l.packets > 0 {
		say("The firewall refused %s that have no event (packets-lost).", count(l.packets, "packet"))
	}
	if l.missed > 0 {
		say("No alert could come of %s that the detectors did not see (events-missed).", count(l.missed, "event"))
	}
	if n := len(g.open) + g.untold; n > 0 {
		say("The log has no end of %s: of their bytes only what progress lines tell is counted.", count(n, "connection"))
	}
	return list
}

// lacksOfScope says what of the asked scope the log does not have.
func (g *gather) lacksOfScope(say func(format string, args ...any)) {
	l, c := &g.lacking, g.config
	switch {
	case g.visited == 0:
		say("The log has no event at all.")
		return
	case !g.report.Scope.First.IsZero():
	case c.Job != "" && !g.jobAddr.IsValid():
		say("No event of the log names the run that was asked for. Events name runs only where something vouches for them; ask by the client's address.")
	case c.Job != "":
		say("The log has no event of that client in this scope.")
	default:
		say("The log has no decision in this scope.")
	}
	if c.Since.Before(l.first) && !c.Since.IsZero() && !l.firstStart.Equal(l.first) {
		say("The log begins at %s, after the begin of the period.", stamp(l.first))
	}
	if !c.Until.IsZero() && l.last.Before(c.Until) {
		say("The log's last event is of %s, before the end of the period.", stamp(l.last))
	}
}

// stamp is a time for people.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// count is a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

// times is how often.
func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	default:
		return strconv.Itoa(n) + " times"
	}
}

// portText is a port as text.
func portText(port uint16) string { return strconv.Itoa(int(port)) }
