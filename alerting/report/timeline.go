package report

import (
	"maps"
	"slices"
	"time"
)

// maxSlots bounds the slots of a time line.
const maxSlots = 96

// slotSeconds are the lengths that a slot may have; each divides the next. After
// them it doubles.
var slotSeconds = []int64{1, 5, 15, 60, 300, 900, 3600, 21600, 86400, 604800}

// A timeline counts by time. Its slots grow longer as the time that they have
// to cover does, so that they stay few.
type timeline struct {
	width int64 // in seconds
	slots map[int64]*Slot
	from  int64 // the first and the last slot, where there are any
	to    int64
}

func newTimeline() timeline { return timeline{width: slotSeconds[0], slots: make(map[int64]*Slot)} }

// add counts what happened at a time.
func (t *timeline) add(at time.Time, what Slot) {
	seconds := at.Unix()
	for {
		n := floorDiv(seconds, t.width)
		from, to := n, n
		if len(t.slots) > 0 {
			from, to = min(n, t.from), max(n, t.to)
		}
		if to-from < maxSlots {
			t.from, t.to = from, to
			t.slot(n).merge(what)
			return
		}
		t.widen()
	}
}

func (t *timeline) slot(n int64) *Slot {
	s := t.slots[n]
	if s == nil {
		s = new(Slot)
		t.slots[n] = s
	}
	return s
}

func (s *Slot) merge(other Slot) {
	s.Allowed += other.Allowed
	s.Audit += other.Audit
	s.Refused += other.Refused
	s.Alerts += other.Alerts
}

// widen makes every slot longer.
func (t *timeline) widen() {
	next := 2 * t.width
	if i := slices.Index(slotSeconds, t.width); i >= 0 && i+1 < len(slotSeconds) {
		next = slotSeconds[i+1]
	}
	old, width := t.slots, t.width
	t.width, t.slots = next, make(map[int64]*Slot)
	for n, s := range old {
		t.slot(floorDiv(n*width, next)).merge(*s)
	}
	t.from, t.to = floorDiv(t.from*width, next), floorDiv(t.to*width, next)
}

// floorDiv is a/b rounded down.
func floorDiv(a, b int64) int64 {
	if a%b < 0 {
		return a/b - 1
	}
	return a / b
}

// list gives the slots in order, and how many seconds each is long.
func (t *timeline) list() ([]Slot, int) {
	list := make([]Slot, 0, len(t.slots))
	for _, n := range slices.Sorted(maps.Keys(t.slots)) {
		slot := *t.slots[n]
		slot.Start = time.Unix(n*t.width, 0).UTC()
		list = append(list, slot)
	}
	return list, int(t.width)
}
