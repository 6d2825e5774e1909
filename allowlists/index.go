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
	exact   map[string]ruleSet
	partial map[string]ruleSet // by what follows the first label
	below   map[string]ruleSet // by the suffix after "*."
	any     ruleSet
	cidr    map[netip.Prefix]ruleSet
	bits4   []int // prefix lengths in cidr, longest first
	bits6   []int
}

// A ruleSet holds the rules of one key; nearly always there is one.
type ruleSet struct {
	first *Rule
	more  []*Rule
}

func (s ruleSet) add(r *Rule) ruleSet {
	if s.first == nil {
		s.first = r
	} else {
		s.more = append(s.more, r)
	}
	return s
}

// each calls visit until it returns false, and reports whether it never did.
func (s ruleSet) each(visit func(*Rule) bool) bool {
	if s.first == nil {
		return true
	}
	if !visit(s.first) {
		return false
	}
	for _, r := range s.more {
		if !visit(r) {
			return false
		}
	}
	return true
}

// newIndex arranges rules, which it keeps pointers to.
func newIndex(rules []Rule) *index {
	x := &index{
		exact: make(map[string]ruleSet), partial: make(map[string]ruleSet),
		below: make(map[string]ruleSet), cidr: make(map[netip.Prefix]ruleSet),
	}
	ordered := make([]*Rule, len(rules))
	for i := range rules {
		ordered[i] = &rules[i]
	}
	slices.SortStableFunc(ordered, func(a, b *Rule) int {
		if own := boolOrder(a.Preset == "", b.Preset == ""); own != 0 {
			return own
		}
		return len(b.Host.before) + len(b.Host.after) - len(a.Host.before) - len(a.Host.after)
	})
	for _, r := range ordered {
		x.add(r)
	}
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

func (x *index) add(r *Rule) {
	switch base := r.Host.base; {
	case r.Prefix.IsValid():
		x.cidr[r.Prefix.Masked()] = x.cidr[r.Prefix.Masked()].add(r)
	case r.Host.kind == patternExact:
		x.exact[base] = x.exact[base].add(r)
	case r.Host.kind == patternPartial:
		x.partial[base] = x.partial[base].add(r)
	case r.Host.kind == patternBelow:
		x.below[base] = x.below[base].add(r)
	case r.Host.kind == patternAny:
		x.any = x.any.add(r)
	}
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
	if !x.exact[h.name].each(visit) {
		return
	}
	label, rest, dotted := strings.Cut(h.name, ".")
	if dotted && len(x.partial) > 0 {
		set := x.partial[rest]
		if set.first != nil && set.first.Host.matchesLabel(label) && !visit(set.first) {
			return
		}
		for _, r := range set.more {
			if r.Host.matchesLabel(label) && !visit(r) {
				return
			}
		}
	}
	for len(x.below) > 0 && dotted {
		if !x.below[rest].each(visit) {
			return
		}
		_, rest, dotted = strings.Cut(rest, ".")
	}
	x.any.each(visit)
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
		if err == nil && !x.cidr[p].each(visit) {
			return
		}
	}
}
