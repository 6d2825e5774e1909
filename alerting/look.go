package alerting

import (
	"cmp"
	"slices"
)

// What is here is for people who look at a running daemon.

// Recent shows the decisions and alerts that were recorded lately, newest
// first, until visit returns false: the first event of each id and its latest
// one, nil if there is no other. keep sees both lines, latest may be nil, and says
// whether they are to be decoded; it keeps neither.
func (a *Alerting) Recent(keep func(first, latest []byte) bool, visit func(first, latest *Event) bool) {
	all := a.recent.snapshot()
	for _, lines := range slices.Backward(all) {
		if !keep(lines.first, lines.latest) {
			continue
		}
		first, err := ParseEvent(lines.first)
		if err != nil {
			continue
		}
		var latest *Event
		if lines.latest != nil {
			if e, err := ParseEvent(lines.latest); err == nil && e.ID == first.ID {
				latest = &e
			}
		}
		if !visit(&first, latest) {
			return
		}
	}
}

// OpenAlerts are the groups that are open, at most so many: the most severe
// first, of those the latest.
func (a *Alerting) OpenAlerts(most int) (alerts []Alert, more int) {
	c := a.correlator
	c.mu.Lock()
	for _, g := range c.groups.open {
		alerts = append(alerts, g.snapshot())
	}
	c.mu.Unlock()
	slices.SortFunc(alerts, func(a, b Alert) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), b.Last.Compare(a.Last), cmp.Compare(a.ID, b.ID))
	})
	if len(alerts) > most {
		alerts, more = alerts[:most], len(alerts)-most
	}
	return slices.Clip(alerts), more
}
