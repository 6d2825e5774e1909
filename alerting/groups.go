package alerting

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// groups are the open groups: at most limits.groups, and of critical ones
// criticalGroups more and one per pool and alert; and those that a policy closed
// until all were told. It is not safe for
// concurrent use; the correlator owns it.
type groups struct {
	limits groupLimits
	times  groupTimes
	open   map[string]*group
	// owned are the keys of the groups that may fold and did not yet, by the
	// fold that would take them: at most limits.foldGroups + 1 each.
	owned    map[foldOf]map[string]bool
	critical int // open critical groups
	closing  int // closed groups, of which somebody is still to be told
	foldRoom int // what is left of foldSeenTotal
	// sending is the message that each sink has under way, by sink.
	sending map[string]*message
	// endings are the ends that sinks which renew are to be told of, by sink; at
	// most endingsMost each. A sink that does not renew has no key.
	endings map[string][]Alert
	key     []byte // of find, used again
	// What the store does not have yet. A key in dirty that is not open is gone.
	dirty         map[string]bool
	dirtyMessages map[string]bool
	folded        func(into *group, groups, count int) // called when the queue was full
	closed        func(*group)                         // called when a group closes, not when it folds
}

// groupLimits are the bounds of groups.
type groupLimits struct{ groups, foldGroups, foldListed int }

func newGroups(limits groupLimits, times groupTimes) *groups {
	return &groups{
		limits: limits, times: times, open: make(map[string]*group), owned: make(map[foldOf]map[string]bool),
		foldRoom: foldSeenTotal, sending: make(map[string]*message), endings: make(map[string][]Alert),
		dirty: make(map[string]bool), dirtyMessages: make(map[string]bool),
		folded: func(*group, int, int) {}, closed: func(*group) {},
	}
}

// add counts a finding in its group, opening it where need be, and returns it.
func (s *groups) add(f *finding, now time.Time) *group {
	g := s.find(f, now)
	if f.severity > g.Severity {
		s.disown(g)
		if f.severity == Critical {
			s.critical++
		}
	}
	g.add(f, now)
	s.own(g)
	s.touch(g)
	if g.foldable() && s.foldClient(g.foldOf()) {
		return s.open[g.foldOf().key()]
	}
	return g
}

// find gives the group that a finding belongs to.
func (s *groups) find(f *finding, now time.Time) *group {
	s.key = f.appendGroupKey(s.key[:0])
	if g := s.open[string(s.key)]; g != nil {
		return g
	}
	s.key = f.foldOf().appendKey(s.key[:0])
	if g := s.open[string(s.key)]; g != nil && f.severity < Critical {
		return g
	}
	if g := s.open[spillKey(f.alert, f.pool)]; g != nil && f.severity < Critical {
		return g
	}
	if f.severity == Critical && s.critical >= criticalGroups {
		return s.shared(f, now)
	}
	if len(s.open)-s.critical-s.closing >= s.limits.groups && f.severity < Critical {
		s.spill()
		if g := s.open[spillKey(f.alert, f.pool)]; g != nil {
			return g
		}
	}
	g := newGroup(f.groupKey(), f, now)
	if gathers[f.alert] != "" {
		g.Fold = &fold{room: &s.foldRoom, list: s.limits.foldListed}
	}
	s.insert(g)
	return g
}

// shared is the group of the critical findings of a pool that found no room
// for a group of their own: still critical, still sent.
func (s *groups) shared(f *finding, now time.Time) *group {
	key := f.alert + "/" + f.pool + "/more"
	if g := s.open[key]; g != nil {
		return g
	}
	g := newGroup(key, f, now)
	g.Fold = &fold{room: &s.foldRoom, list: s.limits.foldListed}
	s.insert(g)
	return g
}

// insert opens a group.
func (s *groups) insert(g *group) {
	s.open[g.Key] = g
	if g.Severity == Critical {
		s.critical++
	}
	if g.Closed != "" {
		s.closing++
	}
	s.own(g)
	s.touch(g)
}

// own notes a group that may fold under the fold that would take it.
func (s *groups) own(g *group) {
	if !g.foldable() {
		return
	}
	of := g.foldOf()
	if s.owned[of] == nil {
		s.owned[of] = make(map[string]bool)
	}
	s.owned[of][g.Key] = true
}

// disown undoes own; before the group's severity changes.
func (s *groups) disown(g *group) {
	of := g.foldOf()
	if delete(s.owned[of], g.Key); len(s.owned[of]) == 0 {
		delete(s.owned, of)
	}
}

// remove forgets a group.
func (s *groups) remove(g *group) {
	delete(s.open, g.Key)
	if g.Severity == Critical {
		s.critical--
	}
	if g.Closed != "" {
		s.closing--
	}
	if g.Fold != nil {
		s.foldRoom += len(g.Fold.Seen) / 8
	}
	s.disown(g)
	s.touch(g)
	s.ends(g)
}

// touch marks a group for the store.
func (s *groups) touch(g *group) { s.dirty[g.Key] = true }

// spill makes room in a full queue: of the lowest severity there is, the
// largest set of one alert in one pool folds into one group. Critical groups
// never do.
func (s *groups) spill() {
	type set struct{ alert, pool string }
	lowest, sets := Critical, make(map[set][]*group)
	for _, g := range s.open {
		if g.Closed == "" {
			lowest = min(lowest, g.Severity)
		}
	}
	if lowest == Critical {
		return
	}
	var largest set
	for _, g := range s.open {
		of := set{g.Alert.Alert, g.Pool}
		if g.Severity != lowest || g.Closed != "" || g.Key == spillKey(of.alert, of.pool) {
			continue
		}
		sets[of] = append(sets[of], g)
		if n, most := len(sets[of]), len(sets[largest]); n > most || n == most && of.alert+of.pool < largest.alert+largest.pool {
			largest = of
		}
	}
	members := sets[largest]
	if len(members) == 0 {
		return
	}
	slices.SortFunc(members, func(a, b *group) int { return a.First.Compare(b.First) })
	count := 0
	for _, g := range members {
		count += g.Count
	}
	into := s.foldInto(spillKey(largest.alert, largest.pool), members)
	s.folded(into, len(members), count)
}

// close forgets the groups that were quiet for long and of which every sink
// that wants them was told.
func (s *groups) close(now time.Time, owed func(*group) bool) {
	for _, g := range s.open {
		if (g.Closed != "" || now.Sub(g.Touched) >= s.times.quiet()) && !owed(g) && !s.underWay(g) {
			s.remove(g)
			s.closed(g)
		}
	}
}

// underWay reports whether a message about the group is being sent.
func (s *groups) underWay(g *group) bool {
	for _, m := range s.sending {
		for i := range m.Items {
			if m.Items[i].GroupKey == g.Key {
				return true
			}
		}
	}
	return false
}

// oldestFirst lists the open groups.
func (s *groups) oldestFirst() []*group {
	all := slices.Collect(maps.Values(s.open))
	slices.SortFunc(all, func(a, b *group) int { return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Key, b.Key)) })
	return all
}
