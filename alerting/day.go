package alerting

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The bounds of a day.
const (
	dayPools   = 256 // pools that are told apart; later ones count as one
	dayRefused = 256 // refused destinations that are counted at once, see topCounts
	dayNew     = 10  // new destinations that are listed
)

// A day counts what happened since From, for the daily summary. It holds at
// most dayPools pools, so its size is bounded: kinds of alerts and
// of trouble are ours. The correlator owns it.
type day struct {
	From    time.Time           `json:"from"`
	To      time.Time           `json:"to"` // zero while it lasts
	Pools   map[string]*dayPool `json:"pools"`
	Refused topCounts           `json:"refused_most"` // by pool and destination
	New     []string            `json:"new"`          // destinations that were first seen, at most dayNew
	NewMore int                 `json:"new_more"`
	// Kinds counts the groups that were opened, by alert and severity.
	Kinds map[string]map[Severity]int `json:"kinds"`
	// Trouble counts system events that tell of something wrong, by name.
	Trouble map[string]int `json:"trouble"`
	// Enforcement is what was measured last, on an earlier day if need be; "" if
	// nothing was.
	Enforcement string `json:"enforcement"`

	dirty bool // something of it is not kept yet
}

// dayPool is what a day counts of one pool.
type dayPool struct {
	Connections int64            `json:"connections"` // that were let through
	Refused     int64            `json:"refused"`     // connections and questions
	Unused      int              `json:"unused"`      // names asked for and never used
	Alerts      map[Severity]int `json:"alerts"`      // groups that were opened
}

func newDay(from time.Time) *day {
	return &day{
		From: from, Pools: make(map[string]*dayPool), Refused: make(topCounts), Kinds: make(map[string]map[Severity]int), Trouble: make(map[string]int),
		dirty: true,
	}
}

// next is the day that begins when d is over.
func (d *day) next() *day {
	n := newDay(d.To)
	n.Enforcement = d.Enforcement
	return n
}

// otherPools is where pools beyond dayPools are counted.
const otherPools = "other pools"

// pool gives the counts of a pool.
func (d *day) pool(name string) *dayPool {
	p := d.Pools[name]
	if p == nil && len(d.Pools) >= dayPools {
		name = otherPools
		p = d.Pools[name]
	}
	if p == nil {
		p = &dayPool{Alerts: make(map[Severity]int)}
		d.Pools[name] = p
	}
	return p
}

// dayTrouble are the system events that a summary tells of.
var dayTrouble = []string{
	SystemReloadFailed, SystemLogDegraded, SystemEventsMissed, SystemAlertFolded, SystemPacketsLost,
	SystemStateFailed, SystemBookFailed, SystemSinkFailing, SystemSinkStopped,
}

// dayEnforcement are the states that an enforcement event may tell of, and what
// a summary says of each.
var dayEnforcement = map[string]string{"in-place": "in place", "not-in-place": "not in place", "unknown": "not known"}

// observe counts an event.
func (d *day) observe(e *Event) {
	switch {
	case e.Kind == KindSystem && e.Event == SystemEnforcement:
		if state, ok := e.Details["state"].(string); ok && dayEnforcement[state] != "" {
			d.Enforcement = state
		}
	case e.Kind == KindSystem && slices.Contains(dayTrouble, e.Event):
		if e.Details["state"] == stateWell {
			return
		}
		d.Trouble[e.Event]++
	case e.Kind == KindDNS && e.Refused() && e.By == ByClient:
		d.refuse(e, destinationText(e.Host, e.IP))
	case e.Kind == KindConn && e.Phase == PhaseRefused:
		d.refuse(e, destinationText(e.Host, e.IP))
	case e.Kind == KindConn && e.Phase == PhaseOpen:
		d.pool(e.Pool).Connections++
	default:
		return
	}
	d.dirty = true
}

// destinationText is a host as claimed, cut to what is shown of it, or an
// address; "" if there is neither.
func destinationText(host string, ip netip.Addr) string {
	if host == "" && ip.IsValid() {
		return ip.String()
	}
	host, _ = cutRunes(host, slackText)
	return host
}

// refuse counts a refusal.
func (d *day) refuse(e *Event, destination string) {
	d.pool(e.Pool).Refused++
	if destination != "" && !e.Quiet && !e.Search {
		d.Refused.add(e.Pool + "\x00" + destination)
	}
}

// count counts a finding, whose group it may have opened.
func (d *day) count(f *finding, opened bool) {
	d.dirty = true
	switch {
	case f.alert == AlertResolvedUnused:
		d.pool(f.pool).Unused++
	case opened:
		d.pool(f.pool).Alerts[f.severity]++
		if d.Kinds[f.alert] == nil {
			d.Kinds[f.alert] = make(map[Severity]int)
		}
		d.Kinds[f.alert][f.severity]++
	}
	if f.alert == AlertFirstSeen {
		d.new(destinationText(f.host, f.ip))
	}
}

// new notes a destination that was first seen; several pools may see one.
func (d *day) new(destination string) {
	switch {
	case slices.Contains(d.New, destination):
	case len(d.New) < dayNew:
		d.New = append(d.New, destination)
	default:
		d.NewMore++
	}
}

// worst is the highest severity of the alerts that were opened, and of what else
// is wrong; ok is false if nothing was.
func (d *day) worst() (severity Severity, ok bool) {
	if len(d.Trouble) > 0 {
		severity, ok = Medium, true
	}
	if d.Enforcement == "not-in-place" {
		severity, ok = High, true
	}
	for _, counts := range d.Kinds {
		for s := range counts {
			severity, ok = max(severity, s), true
		}
	}
	return severity, ok
}

// A kindCount is an alert, and how many groups of it were opened, by severity.
type kindCount struct {
	alert  string
	counts map[Severity]int
}

// kinds gives the alerts that were opened, the most severe first, then the most
// frequent.
func (d *day) kinds() (kinds []kindCount) {
	for alert, counts := range d.Kinds {
		kinds = append(kinds, kindCount{alert, counts})
	}
	slices.SortFunc(kinds, func(a, b kindCount) int {
		for s := Critical; ; s-- {
			if order := cmp.Compare(b.counts[s], a.counts[s]); order != 0 {
				return order
			}
			if s == Info {
				return cmp.Compare(a.alert, b.alert)
			}
		}
	})
	return kinds
}

// sorted gives the names of the pools, those with the most refusals first.
func (d *day) sorted() []string {
	return slices.SortedFunc(maps.Keys(d.Pools), func(a, b string) int {
		return cmp.Or(cmp.Compare(d.Pools[b].Refused, d.Pools[a].Refused), cmp.Compare(d.Pools[b].Connections, d.Pools[a].Connections), cmp.Compare(a, b))
	})
}

// total adds up what f says of each pool.
func (d *day) total(f func(*dayPool) int64) (sum int64) {
	for _, p := range d.Pools {
		sum += f(p)
	}
	return sum
}

// alerts is how many groups of a pool were opened.
func (p *dayPool) alerts() (n int64) {
	for _, count := range p.Alerts {
		n += int64(count)
	}
	return n
}

// topCounts counts the most frequent of any number of keys in dayRefused
// places: a new key takes the place of the rarest and goes on from its count, so
// that no count is too low, and none too high by more than the total over
// dayRefused (Metwally et al., "Efficient computation of frequent and top-k
// elements in data streams", 2005).
type topCounts map[string]topPlace

// A topPlace is the count of a key, and how much of it may be that of keys that
// had the place before.
type topPlace struct {
	Count int64 `json:"count"`
	Over  int64 `json:"over"`
}

// sure is how often the key came at least.
func (p topPlace) sure() int64 { return p.Count - p.Over }

func (t topCounts) add(key string) {
	place, known := t[key]
	if !known && len(t) >= dayRefused {
		rarest := t.rarest()
		place = topPlace{Count: t[rarest].Count, Over: t[rarest].Count}
		delete(t, rarest)
	}
	place.Count++
	t[key] = place
}

// rarest is the key with the lowest count.
func (t topCounts) rarest() (rarest string) {
	first, least := true, int64(0)
	for key, place := range t {
		if first || place.Count < least {
			first, rarest, least = false, key, place.Count
		}
	}
	return rarest
}

// A topCount is a key of topCounts, cut into pool and destination.
type topCount struct {
	pool, destination string
	topPlace
}

// most gives the n that surely are the most frequent, the first first.
func (t topCounts) most(n int) (top []topCount) {
	for key, place := range t {
		pool, destination, _ := strings.Cut(key, "\x00")
		top = append(top, topCount{pool, destination, place})
	}
	slices.SortFunc(top, func(a, b topCount) int {
		return cmp.Or(cmp.Compare(b.sure(), a.sure()), cmp.Compare(a.destination, b.destination), cmp.Compare(a.pool, b.pool))
	})
	return top[:min(n, len(top))]
}
