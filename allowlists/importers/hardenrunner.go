package importers

import (
	"net/netip"
	"strings"

	"sallyport/allowlists/diag"
)

// readHardenRunner reads the allowed-endpoints of step-security/harden-runner:
// from the steps of a workflow or an action, from a policy (the keys of "with"
// alone), or from a text of endpoints. A pool is made of each step.
func readHardenRunner(d *draft, text []byte) error {
	if !keyed(text) {
		p := d.newPool("", "enforce")
		p.endpoints(&diag.Node{Kind: diag.Text, Text: string(text)})
		p.settle(nil)
		return nil
	}
	root, err := d.parse(text)
	if err != nil {
		return err
	}
	inputs := actionInputs(root, "step-security/harden-runner", "allowed-endpoints", "egress-policy", "policy", "use-policy-store")
	if len(inputs) == 0 {
		return fault(root.Place, "there is no step that uses step-security/harden-runner, and no allowed-endpoints")
	}
	for _, in := range inputs {
		d.hardenRunnerStep(in, len(inputs) > 1)
		if d.full() {
			return errTooLarge
		}
	}
	return nil
}

// hardenRunnerStep makes a pool of one step.
func (d *draft) hardenRunnerStep(in actionInput, several bool) {
	name := ""
	if several {
		name = in.job
	}
	p := d.newPool(name, "enforce")
	if n := in.with.Get("egress-policy"); n != nil && n.Text == "audit" {
		p.Mode = "audit"
	} else if n != nil && n.Text != "block" && n.Text != "" {
		p.note(LeftOut, "mode", "egress-policy %q is neither audit nor block; here it enforces", n.Text)
	}
	p.note(Narrower, "implied", "the agent also allows hosts of GitHub that no line names; add them where jobs need them: presets: [github-actions]")
	for _, key := range []string{"policy", "use-policy-store"} {
		if n := in.with.Get(key); n != nil && n.Text != "" && n.Text != "false" {
			p.note(LeftOut, "policy store", "%s: what the store adds is not in this file", key)
		}
	}
	if n := in.with.Get("allowed-endpoints"); n != nil {
		p.endpoints(n)
	}
	p.settle(nil)
}

// endpoints reads endpoints with blanks between them, or a list of them.
func (p *pool) endpoints(n *diag.Node) {
	seen := make(map[string]bool)
	for _, item := range textItems(n) {
		for _, w := range words(item, " \t\r\n,") {
			p.endpoint(w, seen)
		}
	}
}

// endpoint reads HOST[:PORT]; without a port it is 443. In a wildcard the *
// stands for any characters, and a wildcard given twice keeps its first port.
func (p *pool) endpoint(w word, seen map[string]bool) {
	e := p.entry(w.line, w.text)
	host, port, ported := strings.Cut(w.text, ":")
	set := only(443)
	if ported {
		number, ok := parsePort(port)
		if !ok {
			e.note(LeftOut, "ports", "port %q is none from 1 to 65535", port)
			return
		}
		set = only(number)
	}
	host = strings.TrimSuffix(host, ".")
	stars := strings.Count(host, "*")
	again := stars > 0 && seen[host]
	seen[host] = true
	addr, err := netip.ParseAddr(host)
	switch {
	case strings.Contains(host, "$"):
		e.note(LeftOut, "expression", "what an expression becomes is known to the workflow only")
	case err == nil:
		p.literal(e, netip.PrefixFrom(addr, addr.BitLen()), set)
	case stars == 0:
		p.exact(e, host, set, rank{})
	case again:
		if r, ok := named(e, host, set); ok {
			p.addWider(e, r, rank{}, "ports", "the open agent takes a wildcard with the first of its ports only")
		}
	case stars == 1 && strings.HasPrefix(host, "*."):
		p.below(e, host[len("*."):], set, rank{})
	case stars == 1 && strings.Contains(host[:dotOf(host)], "*"):
		p.partial(e, host, set, rank{})
	default:
		e.note(LeftOut, "wildcard", "a * stands where none of ours may: once, in the first label")
	}
}

// dotOf is where the first label of a name ends.
func dotOf(host string) int {
	if i := strings.IndexByte(host, '.'); i >= 0 {
		return i
	}
	return len(host)
}
