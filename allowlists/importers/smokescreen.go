package importers

import (
	"net/netip"
	"strings"

	"sallyport/allowlists/diag"
)

// Where a rule of a Smokescreen ACL stands: a role's own list wins over the
// global deny list, and that one over the global allow list.
const (
	rankGlobal rankKind = iota
	rankService
)

// readSmokescreen reads the egress ACL of stripe/smokescreen, version v1. A
// pool is made of each service, and one of the default.
func readSmokescreen(d *draft, text []byte) error {
	root, err := d.parse(text)
	if err != nil {
		return err
	}
	services := root.Get("services")
	if root.Kind != diag.Map || textOf(root, "version") != "v1" || services == nil || services.Kind != diag.List {
		return fault(root.Place, "this is no egress ACL of Smokescreen; it takes version: v1 and a list services")
	}
	for _, service := range services.Items {
		if service.Kind != diag.Map {
			return fault(service.Place, "a service is %s; it takes a mapping", service.Kind)
		}
		d.smokescreenRole(root, service, textOf(service, "name"))
		if d.full() {
			return errTooLarge
		}
	}
	if role := root.Get("default"); role != nil && role.Kind == diag.Map {
		p := d.smokescreenRole(root, role, "default")
		p.note(Same, "default", "the rules of every client that no service is for; make it the pool of those by default_pool")
	}
	return nil
}

// smokescreenRole makes a pool of one service.
func (d *draft) smokescreenRole(root, role *diag.Node, name string) *pool {
	if name == "" {
		name = "service"
	}
	p := d.newPool(name, "enforce")
	switch action := textOf(role, "action"); action {
	case "enforce":
	case "report":
		p.Mode, p.closed = "audit", false
	case "open":
		p.Mode, p.closed = "audit", false
		p.note(Narrower, "mode", "action open lets everything pass without a word; audit lets it pass and tells, but for denied and special addresses")
	default:
		p.note(LeftOut, "mode", "action %q is none of enforce, report and open; here it enforces", action)
	}
	p.note(Same, "clients", "the role %q is told by its certificate there, and by its address here", textOf(role, "name"))
	p.tellPorts()
	for _, key := range []string{"mitm_domains", "allowed_external_proxies"} {
		if n := role.Get(key); n != nil && n.Kind != diag.Null {
			p.note(LeftOut, "setting", "%s (line %d) has nothing like it here", key, n.Pos.Line)
		}
	}
	p.globs(role.Get("allowed_domains"), "allowed_domains", rank{kind: rankService})
	p.globs(root.Get("global_allow_list"), "global_allow_list", rank{kind: rankGlobal})
	denied := root.Get("global_deny_list")
	p.leaveStrangers(denied, "global_deny_list")
	for _, n := range textItems(denied) {
		e := p.denial(n.Pos.Line, n.Text)
		if r, ok := p.glob(e, n.Text, allPorts()); ok {
			p.refuse(e, r, rank{})
		}
	}
	p.settle(func(allow, _ placed) bool { return allow.rank.kind == rankService })
	return p
}

// globs adds a list of domains.
func (p *pool) globs(list *diag.Node, key string, order rank) {
	p.leaveStrangers(list, key)
	for _, n := range textItems(list) {
		e := p.entry(n.Pos.Line, n.Text)
		if r, ok := p.glob(e, n.Text, p.everyPort()); ok {
			p.add(e, r, order)
		}
	}
}

// glob reads a domain, or one with *. before it: one or more labels below, never
// the domain itself, as here. An address is a domain there that is compared
// with the one that a client names.
func (p *pool) glob(e *Entry, text string, set ports) (rule, bool) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return rule{prefix: netip.PrefixFrom(addr, addr.BitLen()), ports: set}, true
	}
	if strings.Contains(strings.TrimPrefix(text, "*."), "*") || text == "*." {
		e.note(LeftOut, "wildcard", "Smokescreen takes a * as the whole first label only, and would not start with this")
		return rule{}, false
	}
	return named(e, text, set)
}
