package allowlists

import "hash/maphash"

// A hostTable finds the rules of a list by the name that stands in their
// pattern. It keeps their numbers instead of pointers to them: with 100,000
// rules it is a fraction of a map in size, a name that is in no rule is told
// by one look at memory, and the garbage collector never reads it. It never
// changes after newHostTable.
type hostTable struct {
	rules []Rule
	slots []hostSlot // a power of two of them, less than three quarters in use
	next  []int32    // by a rule's number: the next of the same name, or noRule
	kinds bool       // patterns of different kinds are kept apart
}

// A hostSlot holds the first rule of a name. The zero hostSlot is free.
type hostSlot struct {
	tag  uint32 // of the name's hash
	rule int32  // its number and 1
}

// noRule is behind the last rule of a name.
const noRule = -1

// hostSeed makes names that collide unknown to who writes them into a file.
var hostSeed = maphash.MakeSeed()

// newHostTable arranges the rules of the numbers in order, which has all that
// have a host with a name, or some of them. Of the same name they are found in
// that order.
func newHostTable(rules []Rule, order []int32, kinds bool) hostTable {
	if len(order) == 0 {
		return hostTable{}
	}
	size := 4
	for size*3 < len(order)*4 {
		size *= 2
	}
	t := hostTable{rules: rules, slots: make([]hostSlot, size), next: make([]int32, len(rules)), kinds: kinds}
	for i := len(order) - 1; i >= 0; i-- {
		n := order[i]
		pattern := &rules[n].Host
		slot, tag := t.slot(pattern.kind, pattern.Base())
		t.next[n] = slot.rule - 1
		*slot = hostSlot{tag, n + 1}
	}
	return t
}

// slot finds where the rules of a name begin, or would.
func (t *hostTable) slot(kind patternKind, name string) (*hostSlot, uint32) {
	hash := maphash.String(hostSeed, name)
	if t.kinds {
		hash ^= uint64(kind) * 0x9e3779b97f4a7c15
	}
	tag, last := uint32(hash>>32), len(t.slots)-1
	for i := int(uint32(hash)) & last; ; i = (i + 1) & last {
		s := &t.slots[i]
		if s.rule == 0 || s.tag == tag && t.has(s.rule-1, kind, name) {
			return s, tag
		}
	}
}

// has reports whether a rule stands under a name.
func (t *hostTable) has(rule int32, kind patternKind, name string) bool {
	pattern := &t.rules[rule].Host
	return (!t.kinds || pattern.kind == kind) && pattern.Base() == name
}

// first is the number of the first rule of a name, or noRule. The others
// follow by next. Without kinds, the kind says nothing.
func (t *hostTable) first(kind patternKind, name string) int32 {
	if len(t.slots) == 0 {
		return noRule
	}
	s, _ := t.slot(kind, name)
	return s.rule - 1
}
