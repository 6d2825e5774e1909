package suggest

import (
	"hash/maphash"
	"net/netip"
	"time"

	"sallyport/alerting"
)

// dayApart is how far apart two visits of a client must be to count as two jobs,
// where no event names them: a job that runs over midnight is one. The baseline
// counts by the same.
const dayApart = 12 * time.Hour

// A jobKind says what tells jobs apart. One job can be of several kinds, as it
// asks by IPv4 and by IPv6, or is named for a part of its time, so that jobs of
// two kinds are never added up.
type jobKind uint8

const (
	byRun     jobKind = iota // the run that the event names
	byIPv4                   // the client
	byIPv6                   // its network of 64 bits: one machine has all of it
	byIface                  // of a gateway: a runner there chooses its address itself
	byMachine                // loopback: every process beside us has all of that
	jobKinds
)

// A visit is who wanted a host, and when.
type visit struct {
	kind jobKind
	who  uint64
	time time.Time // zero where who is one job, however long it lasts
}

// visitOf is the visit of an event: of the run that it names, else of its
// client's day.
func (g *gather) visitOf(e *alerting.Event) visit {
	v := visit{kind: byRun, time: e.Time.UTC()}
	var parts []string
	j := e.Job
	switch client := e.Client.Unmap(); {
	case j != nil && j.RunID != "":
		v.time, parts = time.Time{}, []string{j.Repo, j.RunID}
	case j != nil && j.Job != "":
		parts = []string{j.Repo, "", j.Job}
	case client.IsLoopback():
		v.kind = byMachine
	case e.Iface != "":
		v.kind, parts = byIface, []string{e.Iface}
	case client.Is4():
		v.kind, parts = byIPv4, []string{client.String()}
	default:
		v.kind, parts = byIPv6, []string{netip.PrefixFrom(client.WithZone(""), 64).Masked().String()}
	}
	var h maphash.Hash
	h.SetSeed(g.seed)
	for _, part := range parts {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0)
	}
	v.who = h.Sum64()
	return v
}

// same reports whether another visit is of the same job: of one client, those of
// one day, and those near each other.
func (v visit) same(other visit) bool {
	if v.kind != other.kind || v.who != other.who {
		return false
	}
	day := func(t time.Time) time.Time { return t.Truncate(24 * time.Hour) } // of UTC
	return v.time.Sub(other.time).Abs() < dayApart || day(v.time).Equal(day(other.time))
}

// jobs counts the jobs that wanted a host, and never one as two.
type jobs struct {
	visits map[uint64][]visit // one of each job, by who
	kinds  [jobKinds]int
	more   bool // there are more than were counted
}

// add takes a visit, and gives how many more jobs are remembered. A new one is
// only counted if there is room.
func (j *jobs) add(v visit, room bool) int {
	for _, known := range j.visits[v.who] {
		if v.same(known) {
			return 0
		}
	}
	if !room || j.kinds[v.kind] >= maxJobs {
		j.more = true
		return 0
	}
	if j.visits == nil {
		j.visits = make(map[uint64][]visit)
	}
	j.visits[v.who] = append(j.visits[v.who], v)
	j.kinds[v.kind]++
	return 1
}

// count is how many jobs there were at least.
func (j *jobs) count() int {
	most := 0
	for _, n := range j.kinds {
		most = max(most, n)
	}
	return most
}

// tooFew says that there were fewer jobs than are asked for.
func (j *jobs) tooFew() string {
	switch n := j.count(); {
	case j.more:
		return "seen in more jobs than are remembered"
	case n == 1:
		return "seen in a single job"
	default:
		return "seen in " + counted(n, "job") + " only"
	}
}
