package importers

// allow makes rules of one allow line.
func (w *squidWalk) allow(line squidAccess, t *squidTerms, order int) {
	if t.local {
		return // Squid's own pages
	}
	hosts, ok := w.destinations(line, t)
	if !ok {
		return
	}
	set := w.openPorts(t)
	why := t.bad
	if why != "" {
		why = "line " + itoa(line.line) + " allows it under a condition only (" + why + ")"
	} else if w.blocked != "" {
		why = w.blocked
	}
	var pair pairing
	for _, host := range hosts {
		e := pair.entry(host.at, w.entry)
		if t.addressed {
			e.note(Narrower, "address", "there it is for names that lead to it, too; here for connections that name the address")
		}
		host.ports = set
		switch {
		case len(set) == 0:
			e.note(LeftOut, "ports", "none is left that a tunnel may go to")
		case why != "":
			w.addWider(e, host.rule, rank{order: order}, "condition", why)
		default:
			w.add(e, host.rule, rank{order: order})
		}
	}
}

// A pairing keeps the two patterns that .NAME stands for in one entry.
type pairing struct {
	at word
	e  *Entry
}

// entry gives the entry of a value: the last one, or else what begin makes.
func (p *pairing) entry(at word, begin func(int, string) *Entry) *Entry {
	if p.e != nil && p.at == at {
		p.e.note(Same, "apex", "the name itself and every name below it: two rules")
		return p.e
	}
	p.at, p.e = at, begin(at.line, at.text)
	return p.e
}

// destinations are what an allow line names. ok is false where that is nothing
// that a rule can say; the line is then left out.
func (w *squidWalk) destinations(line squidAccess, t *squidTerms) (hosts []squidHost, ok bool) {
	leave := func(about, why string) ([]squidHost, bool) {
		w.entry(line.line, line.text).note(LeftOut, about, "%s", why)
		return nil, false
	}
	if t.named && t.addressed {
		return leave("address", "it asks for a name and for the address that it leads to; here a rule has one of the two")
	}
	if t.addressed {
		if w.limited {
			return leave("address", "an earlier line left some names only, and this one is about addresses")
		}
		for _, prefix := range t.addrs {
			hosts = append(hosts, squidHost{rule{prefix: prefix}, word{prefix.String(), line.line}})
		}
		return hosts, true
	}
	switch hosts = t.hosts; {
	case w.limited && t.named:
		hosts = inBoth(t.hosts, w.only)
	case w.limited:
		hosts = w.only
	case !t.named && t.bad != "":
		return leave("condition", "it cannot be said: "+t.bad)
	case !t.named:
		return leave("everything", "it names no destination, and so allows everything; Sallyport has no rule for that")
	}
	if t.notNamed {
		if len(hosts)*len(t.notHosts) > maxCompared {
			return leave("condition", "it has too many names to compare")
		}
		return w.except(hosts, t.notHosts), true
	}
	return hosts, true
}

// except leaves out what a negated term names: whole patterns, and those that
// it takes a part of.
func (w *squidWalk) except(hosts, not []squidHost) []squidHost {
	var left []squidHost
	for _, host := range hosts {
		keep := true
		for _, n := range not {
			switch {
			case within(n.rule, host.rule):
				keep = false
			case within(host.rule, n.rule):
				keep = false
				w.entry(host.at.line, host.at.text).note(LeftOut, "condition", "without %s (line %d), which is a part of it", n.at.text, n.at.line)
			}
		}
		if keep {
			left = append(left, host)
		}
	}
	return left
}

// openPorts are those that an allow line leaves. Where Squid carries plain HTTP
// only, a rule of ours would carry tunnels, too: but for port 80 those go.
func (w *squidWalk) openPorts(t *squidTerms) ports {
	asked := t.ports.without(t.notPorts)
	tunnel, plain := asked.with(w.tunnel), asked.with(w.plain)
	if t.connect {
		plain = nil
	}
	if t.plain {
		tunnel = nil
	}
	set := tunnel.union(plain.with(only(80)))
	if lost := plain.without(set); len(lost) > 0 {
		w.note(Narrower, "ports", "plain HTTP alone may go to ports %s there; here a tunnel could, too, so that no rule has them", lost)
	}
	if set.all() {
		w.anyPort = true
		return w.everyPort()
	}
	return set
}

// deny takes from what is open, or adds to the deny list.
func (w *squidWalk) deny(line squidAccess, t *squidTerms, order int) {
	bare := !t.named && !t.notNamed && !t.addressed
	ported := t.ported || t.notPorted
	set := t.ports.without(t.notPorts)
	switch {
	case t.local: // never reached here, whoever asks
	case t.bad != "":
		w.block(line, t.bad)
	case t.notNamed && !t.named && !t.addressed && !ported && !t.connect && !t.plain:
		w.limit(t.notHosts)
	case bare && !ported && !t.connect && !t.plain:
		w.stopped = line.line
	case bare:
		if !t.plain {
			w.tunnel = w.tunnel.without(set)
		}
		if !t.connect {
			w.plain = w.plain.without(set)
		}
	case t.notNamed || t.named && t.addressed:
		w.block(line, "it takes some names out of others")
	default:
		w.refuseAll(line, t, set, order)
	}
}

// limit keeps the names of a "deny !sites".
func (w *squidWalk) limit(hosts []squidHost) {
	if w.limited {
		hosts = inBoth(w.only, hosts)
	}
	w.only, w.limited = hosts, true
}

// block notes a deny line that cannot be said: what is allowed after it would be
// wider without it.
func (w *squidWalk) block(line squidAccess, why string) {
	w.denial(line.line, line.text).note(LeftOut, "condition", "it cannot be said: %s; so what is allowed after it is left out, too", why)
	if w.blocked == "" {
		w.blocked = "line " + itoa(line.line) + " denies a part of this before, and cannot be said (" + why + ")"
	}
}

// refuseAll adds the destinations of a deny line to the deny list.
func (w *squidWalk) refuseAll(line squidAccess, t *squidTerms, set ports, order int) {
	hosts := t.hosts
	for _, prefix := range t.addrs {
		hosts = append(hosts, squidHost{rule{prefix: prefix}, word{prefix.String(), line.line}})
	}
	var pair pairing
	for _, host := range hosts {
		e := pair.entry(host.at, w.denial)
		if t.connect || t.plain {
			e.note(Narrower, "protocol", "line %d denies tunnels or plain HTTP alone; here both are refused", line.line)
		}
		host.ports = set
		if len(set) > 0 {
			w.refuse(e, host.rule, rank{order: order})
		}
	}
}
