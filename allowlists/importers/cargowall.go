package importers

import (
	"bytes"
	"net/netip"
	"strings"

	"sallyport/allowlists/diag"
)

// How Cargowall ranks the rules that name a host: the exact name, then a deny
// pattern, then the longest domain above it, then an allow pattern.
const (
	rankPattern rankKind = iota
	rankParent
	rankExact
)

// readCargowall reads the configuration of code-cargo/cargowall in JSON, the
// inputs of its action in a workflow, or a text of hosts as allowed-hosts has.
func readCargowall(d *draft, text []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		root, err := d.parseJSON(text)
		if err != nil {
			return err
		}
		return d.cargowallConfig(root)
	}
	if !keyed(text) {
		p := d.newPool("", "enforce")
		p.cargowallHosts(&diag.Node{Kind: diag.Text, Text: string(text)})
		p.settleCargowall()
		return nil
	}
	root, err := d.parse(text)
	if err != nil {
		return err
	}
	if root.Get("rules") != nil {
		return d.cargowallConfig(root)
	}
	inputs := actionInputs(root, "code-cargo/cargowall-action", "allowed-hosts", "allowed-cidrs")
	if len(inputs) == 0 {
		return fault(root.Place, "there are no rules, no step that uses code-cargo/cargowall-action, and no allowed-hosts")
	}
	for _, in := range inputs {
		d.cargowallStep(in, len(inputs) > 1)
		if d.full() {
			return errTooLarge
		}
	}
	return nil
}

// cargowallStep makes a pool of the inputs of the action.
func (d *draft) cargowallStep(in actionInput, several bool) {
	name := ""
	if several {
		name = in.job
	}
	p := d.newPool(name, "enforce")
	switch mode := textOf(in.with, "mode"); mode {
	case "", "enforce":
	case "audit":
		p.Mode, p.closed = "audit", false
	default:
		p.note(LeftOut, "mode", "mode %q is neither enforce nor audit; here it enforces", mode)
	}
	p.note(Narrower, "implied", "the action also allows hosts of GitHub and Azure that its other inputs name; add them where jobs need them: presets: [github-actions]")
	if n := in.with.Get("config-file"); n != nil {
		p.note(LeftOut, "setting", "config-file (line %d) has rules of its own; import it, too", n.Pos.Line)
	}
	if n := in.with.Get("allowed-hosts"); scalar(n) {
		p.cargowallHosts(n)
	}
	if n := in.with.Get("allowed-cidrs"); scalar(n) {
		p.cargowallCIDRs(n)
	}
	p.searchDomains(in.with.Get("search-domains"))
	p.settleCargowall()
}

// cargowallHosts reads HOST[:PORT[;PORT...]], with commas or lines between.
func (p *pool) cargowallHosts(n *diag.Node) {
	for _, w := range words(n, " \t\r,") {
		e := p.entry(w.line, w.text)
		host, list, ported := strings.Cut(w.text, ":")
		set := p.everyPort()
		if ported {
			var err error
			if set, err = parsePorts(strings.Trim(strings.ReplaceAll(list, ";", ","), ",")); err != nil {
				e.note(LeftOut, "ports", "%s", err)
				continue
			}
		}
		p.cargowallHost(e, host, set, true)
	}
}

// cargowallCIDRs reads the same of prefixes.
func (p *pool) cargowallCIDRs(n *diag.Node) {
	for _, w := range words(n, " \t\r,") {
		p.cargowallCIDR(p.entry(w.line, w.text), w.text, p.everyPort(), true)
	}
}

// cargowallConfig makes a pool of rules.
func (d *draft) cargowallConfig(root *diag.Node) error {
	rules := root.Get("rules")
	if root.Kind != diag.Map || rules == nil || rules.Kind != diag.List {
		return fault(root.Place, "this is no configuration of Cargowall; it takes a list rules")
	}
	p := d.newPool("", "enforce")
	switch action := textOf(root, "defaultAction"); action {
	case "deny":
	case "allow":
		p.note(LeftOut, "default", "there everything was allowed that no rule refuses; here only what is listed is")
	default:
		p.note(LeftOut, "default", "defaultAction is %q; here what is not listed is refused", action)
	}
	for _, n := range rules.Items {
		if n.Kind != diag.Map {
			return fault(n.Place, "a rule is %s; it takes a mapping", n.Kind)
		}
		p.cargowallRule(n)
	}
	p.searchDomains(root.Get("searchDomains"))
	if n := root.Get("sudoLockdown"); n != nil {
		p.note(Same, "setting", "sudoLockdown is about the job's rights, not about what leaves; outside of the job nothing needs it")
	}
	p.settleCargowall()
	return nil
}

// cargowallRule reads one rule.
func (p *pool) cargowallRule(n *diag.Node) {
	value, action := textOf(n, "value"), textOf(n, "action")
	allow := action == "allow"
	var e *Entry
	if allow {
		e = p.entry(n.Pos.Line, value)
	} else {
		e = p.denial(n.Pos.Line, value)
	}
	if !allow && action != "deny" {
		e.note(LeftOut, "form", "action %q is neither allow nor deny", action)
		return
	}
	set, ok := p.cargowallPorts(e, n.Get("ports"), allow)
	if !ok {
		return
	}
	switch kind := textOf(n, "type"); kind {
	case "hostname":
		p.cargowallHost(e, value, set, allow)
	case "cidr":
		p.cargowallCIDR(e, value, set, allow)
	default:
		e.note(LeftOut, "form", "type %q is neither hostname nor cidr", kind)
	}
}

// cargowallPorts reads the ports of a rule; without any it is for all of them.
// Only those of TCP are kept. A rule decides alone about its names, so that a
// deny rule with ports leaves the others to the default, which refuses them, too.
func (p *pool) cargowallPorts(e *Entry, n *diag.Node, allow bool) (ports, bool) {
	none := n == nil || n.Kind == diag.Null || n.Kind == diag.List && len(n.Items) == 0
	switch {
	case !allow && !none:
		e.note(Same, "ports", "no other rule opens further ports of what a deny rule is for: every port is refused")
		return allPorts(), true
	case !allow:
		return allPorts(), true
	case none:
		e.note(Narrower, "protocol", "there every port of TCP, UDP and ICMP; UDP and ICMP are never carried here")
		return p.everyPort(), true
	}
	var list []int
	for _, item := range n.Items {
		protocol := textOf(item, "protocol")
		port, ok := parsePort(textOf(item, "port"))
		switch {
		case protocol == "udp" || protocol == "icmp":
			e.note(LeftOut, "protocol", "%s is never carried here, and names are asked of Sallyport itself", protocol)
		case protocol != "tcp" && protocol != "all":
			e.note(LeftOut, "protocol", "protocol %q is none of tcp, udp, icmp and all", protocol)
		case !ok:
			e.note(LeftOut, "ports", "port %q is none from 1 to 65535", textOf(item, "port"))
		default:
			if protocol == "all" {
				e.note(Narrower, "protocol", "TCP only; UDP and ICMP are never carried here")
			}
			list = append(list, port)
		}
	}
	return only(list...), len(list) > 0
}

// cargowallHost reads a host name, which is for every name below it, too, or a
// pattern: * for one label, ** for one or more, each a label of its own.
func (p *pool) cargowallHost(e *Entry, name string, set ports, allow bool) {
	name = strings.ToLower(name)
	rest, many := strings.CutPrefix(name, "**.")
	single, one := strings.CutPrefix(name, "*.")
	switch {
	case !strings.Contains(name, "*"):
		e.note(Same, "apex", "every name below it is meant, too: two rules")
		p.cargowallAdd(e, name, set, allow, rank{len(name), rankExact})
		p.cargowallAdd(e, "*."+name, set, allow, rank{len(name), rankParent})
	case many && !strings.Contains(rest, "*"):
		p.cargowallAdd(e, "*."+rest, set, allow, rank{len(rest), rankPattern})
	case one && !strings.Contains(single, "*") && allow:
		if r, ok := named(e, name, set); ok {
			p.shadows = append(p.shadows, placed{r, e, rank{len(single), rankPattern}})
			p.addWider(e, r, rank{len(single), rankPattern}, "wildcard", "the * stood for one label; here for one or more")
		}
	default:
		p.cargowallOdd(e, name, set, allow)
	}
}

// cargowallOdd reads a pattern with a wildcard elsewhere: what is right of the
// last one is more than it means, which is good for a rule that refuses.
func (p *pool) cargowallOdd(e *Entry, name string, set ports, allow bool) {
	suffix := strings.TrimLeft(name[strings.LastIndexByte(name, '*')+1:], ".")
	r, ok := named(new(Entry), "*."+suffix, set)
	order := rank{len(suffix), rankPattern}
	switch {
	case !ok && !(allow && set.all()):
		p.fail(fault(diag.Place{Pos: diag.Pos{File: p.file, Line: e.Line, Col: 1}}, "what %q decides cannot be told; write its names out", e.Source))
	case allow:
		e.note(LeftOut, "wildcard", "a wildcard stands where none of ours may: once, as the first label")
		p.shadows = append(p.shadows, placed{r, e, order})
	default:
		e.note(Narrower, "wildcard", "a wildcard stands where none of ours may; here every name below %s is refused", suffix)
		p.refuse(e, r, order)
	}
}

// cargowallAdd adds a pattern to one of the lists.
func (p *pool) cargowallAdd(e *Entry, pattern string, set ports, allow bool, order rank) {
	r, ok := named(e, pattern, set)
	switch {
	case ok && allow:
		p.add(e, r, order)
	case ok:
		p.refuse(e, r, order)
	}
}

// cargowallCIDR reads a prefix or an address. There it is for every packet to
// it; here an allowed one is for connections that carry no name.
func (p *pool) cargowallCIDR(e *Entry, text string, set ports, allow bool) {
	prefix, err := netip.ParsePrefix(text)
	if addr, bad := netip.ParseAddr(text); bad == nil && addr.Zone() == "" {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		e.note(LeftOut, "address", "this is neither a prefix nor an address")
		return
	}
	r := rule{prefix: prefix.Masked(), ports: set}
	if !allow {
		p.refuse(e, r, rank{order: prefix.Bits()})
		return
	}
	e.note(Narrower, "address", "there it is for names that lead to it, too; here for connections that name the address")
	p.add(e, r, rank{order: prefix.Bits()})
}

// searchDomains notes suffixes under which every name resolves.
func (p *pool) searchDomains(n *diag.Node) {
	if n != nil && n.Kind != diag.Null && (n.Text != "" || len(n.Items) > 0) {
		p.note(LeftOut, "setting", "search domains (line %d) let names below them be asked without a rule; here a name that is asked is a name that is listed", n.Pos.Line)
	}
}

// settleCargowall settles by the rank of the rules.
func (p *pool) settleCargowall() {
	p.holdBackBroader()
	p.settle(func(a, d placed) bool {
		switch {
		case a.prefix.IsValid():
			return a.rank.order > d.rank.order
		case a.rank.kind == rankPattern || d.rank.kind == rankPattern:
			return a.rank.kind == rankExact
		case a.rank.order != d.rank.order:
			return a.rank.order > d.rank.order
		default:
			return false
		}
	})
}
