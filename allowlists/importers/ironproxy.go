package importers

import (
	"net/netip"
	"strings"

	"sallyport/allowlists/diag"
)

// readIronProxy reads the configuration of ironsh/iron-proxy, or the part of
// its allowlist transform alone.
func readIronProxy(d *draft, text []byte) error {
	root, err := d.parse(text)
	if err != nil {
		return err
	}
	var lists, others []*diag.Node
	if transforms := root.Get("transforms"); transforms != nil {
		for _, t := range transforms.Items {
			if textOf(t, "name") == "allowlist" {
				lists = append(lists, t.Get("config"))
			} else {
				others = append(others, t)
			}
		}
	} else if root.Get("domains") != nil || root.Get("cidrs") != nil || root.Get("rules") != nil {
		lists = append(lists, root)
	}
	switch {
	case len(lists) == 0:
		return fault(root.Place, "there is no allowlist: neither a transform of that name, nor domains, cidrs or rules")
	case lists[0] == nil || lists[0].Kind != diag.Map:
		return fault(root.Place, "the allowlist has no config")
	case len(lists) > 1:
		return fault(root.Place, "there are %d allowlists, and a request must pass each; make one of them first", len(lists))
	}
	p := d.newPool("", "enforce")
	p.ironProxy(lists[0])
	for _, t := range others {
		p.note(LeftOut, "setting", "transform %q (line %d) changes or judges what is inside a request, which Sallyport never sees", textOf(t, "name"), t.Pos.Line)
	}
	p.ironSettings(root)
	p.settle(func(allow, deny placed) bool { return false })
	return nil
}

// ironProxy reads domains, cidrs and rules.
func (p *pool) ironProxy(list *diag.Node) {
	p.tellPorts()
	if textOf(list, "warn") == "true" {
		p.Mode, p.closed = "audit", false
	}
	for _, key := range []string{"domains", "cidrs"} {
		p.leaveStrangers(list.Get(key), key)
	}
	for _, n := range textItems(list.Get("domains")) {
		p.ironHost(p.entry(n.Pos.Line, n.Text), n.Text, "")
	}
	for _, n := range textItems(list.Get("cidrs")) {
		p.ironCIDR(p.entry(n.Pos.Line, n.Text), n.Text, "")
	}
	rules := list.Get("rules")
	if rules == nil {
		return
	}
	for _, n := range rules.Items {
		host, cidr := textOf(n, "host"), textOf(n, "cidr")
		e := p.entry(n.Pos.Line, host+cidr)
		hidden := ironCondition(n)
		switch {
		case (host == "") == (cidr == ""):
			e.note(LeftOut, "form", "a rule takes one of host and cidr")
		case host != "":
			p.ironHost(e, host, hidden)
		default:
			p.ironCIDR(e, cidr, hidden)
		}
	}
}

// ironCondition says what of a rule is about the inside of a request, "" if
// nothing is.
func ironCondition(n *diag.Node) string {
	if n.Kind != diag.Map {
		return ""
	}
	for _, key := range []string{"methods", "paths"} {
		value := n.Get(key)
		if value == nil || value.Kind == diag.Null || value.Kind == diag.List && len(value.Items) == 0 {
			continue
		}
		items := textItems(value)
		if len(items) == 1 && (key == "methods" && items[0].Text == "*" || key == "paths" && items[0].Text == "/*") {
			continue
		}
		return "it is for some " + key + " only, and Sallyport does not look into a request"
	}
	return ""
}

// ironHost reads a glob: *.NAME is NAME and every name below it, a * elsewhere
// any characters, dots and none as well.
func (p *pool) ironHost(e *Entry, glob, hidden string) {
	set := p.everyPort()
	if addr, err := netip.ParseAddr(glob); err == nil && addr.Zone() == "" {
		p.iron(e, rule{prefix: netip.PrefixFrom(addr, addr.BitLen()), ports: set}, hidden)
		return
	}
	if strings.ToLower(glob) != glob && hidden == "" {
		hidden = "its capital letters match only clients that write them; names have no case here"
	}
	stars := strings.Count(glob, "*")
	switch {
	case glob == "*":
		e.note(LeftOut, "wildcard", "every host; Sallyport has no rule for that")
	case strings.ContainsAny(glob, `?[]\`):
		e.note(LeftOut, "wildcard", "?, [] and \\ of a glob are nothing that a rule of ours has")
	case stars == 0:
		if r, ok := named(e, glob, set); ok {
			p.iron(e, r, hidden)
		}
	case stars == 1 && strings.HasPrefix(glob, "*."):
		e.note(Same, "apex", "the name itself is meant, too: two rules")
		for _, pattern := range []string{glob[len("*."):], glob} {
			if r, ok := named(e, pattern, set); ok {
				p.iron(e, r, hidden)
			}
		}
	case stars == 1 && strings.Contains(glob[:dotOf(glob)], "*"):
		if r, ok := named(e, glob, set); ok {
			e.note(Narrower, "wildcard", "the * stood for any characters, dots and none as well; here for one or more within the label")
			p.iron(e, r, hidden)
		}
	default:
		e.note(LeftOut, "wildcard", "a * stands where none of ours may: once, in the first label")
	}
}

// iron adds a rule, or offers it where it lacks a condition.
func (p *pool) iron(e *Entry, r rule, hidden string) {
	if hidden != "" {
		p.addWider(e, r, rank{}, "condition", hidden)
		return
	}
	p.add(e, r, rank{})
}

// ironCIDR reads a prefix, which is for clients that name an address, as here.
func (p *pool) ironCIDR(e *Entry, text, hidden string) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		e.note(LeftOut, "address", "this is no prefix")
		return
	}
	p.iron(e, rule{prefix: prefix.Masked(), ports: p.everyPort()}, hidden)
}

// ironSettings notes what else decides where a request may go.
func (p *pool) ironSettings(root *diag.Node) {
	for _, n := range textItems(below(root, "proxy", "upstream_deny_cidrs")) {
		e := p.denial(n.Pos.Line, n.Text)
		prefix, err := netip.ParsePrefix(n.Text)
		if err != nil {
			e.note(LeftOut, "address", "this is no prefix")
			continue
		}
		p.refuse(e, rule{prefix: prefix.Masked(), ports: allPorts()}, rank{})
	}
	if n := below(root, "dns", "passthrough"); n != nil && len(n.Items) > 0 {
		p.note(LeftOut, "setting", "dns.passthrough (line %d): those names went round the proxy; allow the ones that are needed", n.Pos.Line)
	}
	if n := below(root, "dns", "records"); n != nil && len(n.Items) > 0 {
		p.note(LeftOut, "setting", "dns.records (line %d): Sallyport answers what its upstreams do", n.Pos.Line)
	}
}
