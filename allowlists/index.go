package allowlists

import (
	"net/netip"
	"slices"
	"strings"
)

// An index finds the rules of one list that cover a host or an address, most
// specific first: exact, then a partial label, then the longer suffix; among
// equals a rule of the pool's own before a preset's, then in the order
// written. It never changes after newIndex.
type index struct {
	names hostTable // of exact names, partial labels and wildcards
	// partials and wilds say whether there are any partial labels and wildcards.
	partials, wilds bool
	any             []*Rule
	cidr            map[netip.Prefix][]*Rule
	bits4           []int // prefix lengths in cidr, longest first
	bits6           []int
}

// newIndex arranges rules, which it keeps.
func newIndex(rules []Rule) *index {
	x := &index{}
	order := make([]int32, len(rules))
	for i := range rules {
		order[i] = int32(i)
	}
	first := func(a, b int32) int { return bySpecificity(&rules[a], &rules[b]) }
	if !slices.IsSortedFunc(order, first) { // most files are
		slices.SortStableFunc(order, first)
	}
	named := order[:0]
	for _, n := range order {
		if !x.add(&rules[n]) {
			named = append(named, n)
		}
	}
	x.names = newHostTable(rules, named, true)
	for p := range x.cidr {
		if p.Addr().Is4() {
			x.bits4 = append(x.bits4, p.Bits())
		} else {
			x.bits6 = append(x.bits6, p.Bits())
		}
	}
	x.bits4, x.bits6 = descending(x.bits4), descending(x.bits6)
	return x
}

// bySpecificity orders rules whose patterns stand over the same name.
func bySpecificity(a, b *Rule) int {
	if own := boolOrder(a.Preset == "", b.Preset == ""); own != 0 {
		return own
	}
	return b.Host.literals() - a.Host.literals()
}

// add keeps a rule that stands under no name; for others it gives false.
func (x *index) add(r *Rule) bool {
	switch kind := r.Host.kind; {
	case r.Prefix.IsValid():
		if x.cidr == nil {
			x.cidr = make(map[netip.Prefix][]*Rule)
		}
		x.cidr[r.Prefix.Masked()] = append(x.cidr[r.Prefix.Masked()], r)
	case kind == patternAny:
		x.any = append(x.any, r)
	case kind != patternNone:
		x.partials = x.partials || kind == patternPartial
		x.wilds = x.wilds || kind == patternBelow
		return false
	}
	return true
}

// boolOrder sorts true before false.
func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

func descending(bits []int) []int {
	slices.Sort(bits)
	slices.Reverse(bits)
	return slices.Compact(bits)
}

// hosts calls visit with the rules that cover h, most specific first, until it
// returns false. It does not allocate.
func (x *index) hosts(h Host, visit func(*Rule) bool) {
	if x.exact(h, visit) {
		x.inexact(h, visit)
	}
}

// exact is hosts for the rules that name h, and reports whether visit never
// returned false.
func (x *index) exact(h Host, visit func(*Rule) bool) bool {
	return x.each(patternExact, h.name, "", visit)
}

// inexact is hosts for all other rules.
func (x *index) inexact(h Host, visit func(*Rule) bool) {
	label, rest, dotted := strings.Cut(h.name, ".")
	if dotted && x.partials && !x.each(patternPartial, rest, label, visit) {
		return
	}
	for x.wilds && dotted {
		if !x.each(patternBelow, rest, "", visit) {
			return
		}
		_, rest, dotted = strings.Cut(rest, ".")
	}
	for _, r := range x.any {
		if !visit(r) {
			return
		}
	}
}

// each calls visit with the rules of one kind that stand over a name until it
// returns false, and reports whether it never did. Partial labels are held
// against label.
func (x *index) each(kind patternKind, name, label string, visit func(*Rule) bool) bool {
	for n := x.names.first(kind, name); n != noRule; n = x.names.next[n] {
		r := &x.names.rules[n]
		if (kind != patternPartial || r.Host.matchesLabel(label)) && !visit(r) {
			return false
		}
	}
	return true
}

// first is the most specific rule that covers h; nil if none does.
func (x *index) first(h Host) (found *Rule) {
	x.hosts(h, func(r *Rule) bool { found = r; return false })
	return found
}

// addrs calls visit with the cidr rules that hold addr, longest prefix first,
// until it returns false. A mapped address matches no IPv4 prefix.
func (x *index) addrs(addr netip.Addr, visit func(*Rule) bool) {
	bits := x.bits6
	if addr.Is4() {
		bits = x.bits4
	}
	for _, n := range bits {
		p, err := addr.Prefix(n)
		if err != nil {
			continue
		}
		for _, r := range x.cidr[p] {
			if !visit(r) {
				return
			}
		}
	}
}
