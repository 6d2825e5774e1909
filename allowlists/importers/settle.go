package importers

// maxCompared bounds how many pairs of an allow and a deny rule are compared.
const maxCompared = 4 << 20

// overlaps reports whether some connection is of both rules.
func (r rule) overlaps(s rule) bool {
	switch {
	case len(r.ports.with(s.ports)) == 0 || r.prefix.IsValid() != s.prefix.IsValid():
		return false
	case r.prefix.IsValid():
		return r.prefix.Overlaps(s.prefix)
	default:
		return r.host.Covers(s.host) || s.host.Covers(r.host) || r.host.Base() == s.host.Base() && !r.host.Exact() && !s.host.Exact()
	}
}

// covers reports whether every connection of s is one of r.
func (r rule) covers(s rule) bool {
	switch {
	case !r.ports.covers(s.ports) || r.prefix.IsValid() != s.prefix.IsValid():
		return false
	case r.prefix.IsValid():
		return r.prefix.Bits() <= s.prefix.Bits() && r.prefix.Contains(s.prefix.Addr())
	default:
		return r.host.Covers(s.host)
	}
}

// refuse notes a rule that refuses, until settle has seen what the source lets
// win over it.
func (p *pool) refuse(e *Entry, r rule, order rank) {
	if _, ok := r.ports.list(); !ok {
		e.note(Narrower, "ports", "ports %s are more than a rule can list: every port is refused", r.ports)
		r.ports = allPorts()
	}
	p.denied = append(p.denied, placed{r, e, order})
}

// settle writes the deny list. Here deny beats allow, whatever the order; where
// the source lets an allow rule win (beats), a deny rule without any effect of
// its own goes, and any other stays and says what is refused more than there.
func (p *pool) settle(beats func(allow, deny placed) bool) {
	compare := len(p.denied)*len(p.given) <= maxCompared
	for i := range p.denied {
		d := p.denied[i]
		if compare && p.idle(d, beats) {
			d.entry.note(Same, "order", "the source lets other rules win over this one wherever it would matter: not needed here")
			continue
		}
		if item := d.item(true); !p.seen["deny "+item] {
			p.seen["deny "+item] = true
			d.entry.Rules = append(d.entry.Rules, item)
		}
	}
}

// idle reports whether the source refuses nothing by d that is not refused
// anyway. If it does, the rules that would win there are told what they lose.
func (p *pool) idle(d placed, beats func(allow, deny placed) bool) bool {
	var losers int
	var winners []placed
	for _, a := range p.given {
		switch {
		case !a.overlaps(d.rule):
		case !beats(a, d):
			losers++
		case a.covers(d.rule):
			return true
		default:
			winners = append(winners, a)
		}
	}
	if len(winners) > 0 && losers == 0 && p.closed {
		return true
	}
	for _, a := range winners {
		a.entry.note(Narrower, "order", "there it wins over %s (line %d); here deny wins, and what both name is refused", d.entry.Source, d.entry.Line)
	}
	return false
}
