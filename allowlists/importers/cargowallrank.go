package importers

import (
	"slices"
	"strings"
)

// outranks reports whether Cargowall decides by a, and not by b, about a name
// that both allow.
func (a placed) outranks(b placed) bool {
	switch {
	case a.rank.kind == rankPattern && b.rank.kind == rankPattern:
		return a.entry.Line < b.entry.Line
	case a.rank.kind == rankPattern || b.rank.kind == rankPattern:
		return b.rank.kind == rankPattern
	default:
		return a.rank.order > b.rank.order
	}
}

// holdBackBroader takes rules out that would open ports which the source does
// not: there only the rule that decides opens ports, here every rule does that
// matches.
func (p *pool) holdBackBroader() {
	if p.options.Wider {
		return
	}
	all := slices.Concat(p.given, p.shadows)
	below := make(map[string][]int) // the rules for every name below one
	for i, r := range all {
		if base, ok := strings.CutPrefix(r.host.String(), "*."); ok {
			below[base] = append(below[base], i)
		}
	}
	held := make(map[int]placed) // and the rule they are held back for
	compared := 0
	for n, a := range all {
		name := a.host.String()
		if a.host.IsZero() {
			continue
		}
		if a.host.Exact() {
			_, name, _ = strings.Cut(name, ".") // it is not below itself
		}
		for name = strings.TrimPrefix(name, "*."); name != ""; _, name, _ = strings.Cut(name, ".") {
			for _, i := range below[name] {
				if compared++; compared > maxCompared {
					p.fail(errTooLarge)
					return
				}
				if b := all[i]; b.entry != a.entry && !(a.host == b.host && strings.EqualFold(a.entry.Source, b.entry.Source)) {
					hold(held, a, b, n, i)
				}
			}
		}
	}
	p.takeOut(held)
}

// hold notes which of two rules goes, if one does: the one that does not decide
// and has ports that the other has not. n and i are where they stand.
func hold(held map[int]placed, a, b placed, n, i int) {
	switch {
	case a.outranks(b):
		if !a.ports.covers(b.ports) {
			held[i] = a
		}
	case !b.ports.covers(a.ports):
		held[n] = b
	}
}

// takeOut offers what was held back, and no more.
func (p *pool) takeOut(held map[int]placed) {
	var left []placed
	for i, r := range p.given {
		by, out := held[i]
		if !out {
			left = append(left, r)
			continue
		}
		item := r.item(false)
		r.entry.Rules = slices.DeleteFunc(r.entry.Rules, func(have string) bool { return have == item })
		delete(p.seen, item)
		r.entry.Offered = append(r.entry.Offered, item)
		r.entry.note(LeftOut, "ports", "there %s (line %d) alone decides about its names, with fewer ports; here the line below would open its own there, too (--wider takes it)", by.entry.Source, by.entry.Line)
	}
	p.given = left
}
