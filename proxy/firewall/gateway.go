package firewall

import (
	"fmt"
	"net/netip"
	"slices"
)

// Names in a gateway's table.
const (
	setRunners   = "runner_devices"
	setSources4  = "sources4"
	setSources6  = "sources6"
	setLinkLocal = "link_local"
	chainService = "services"
)

// linkLocal is where IPv6 neighbours talk from.
var linkLocal = netip.MustParsePrefix("fe80::/10")

// gateway is the model of a machine that routes for runners.
func (p *Plan) gateway() table {
	g := &gatewayModel{plan: p, t: table{family: "inet"}}
	g.addSets()
	g.t.chains = append(g.t.chains, p.refusal(chainRefuse), p.spoofed(), g.services())
	redirect := chain{name: "take", hook: prerouting, priority: natPriority, nat: true}
	in := chain{name: "in", hook: input, priority: filter, rules: []rule{a("", matchDevice{name: "lo"}, accept{})}}
	through := chain{name: "forward", hook: forward, priority: filter}
	asked := chain{name: "asked", hook: prerouting, priority: afterChecks}
	stray := chain{name: "stray", hook: prerouting, priority: filter}
	audit := false
	for _, n := range g.order() {
		way := &p.Ways[n]
		// Each pool has a rate of its own: none can make another's refusals untold.
		refuse := numbered(chainRefuse, n)
		g.t.chains = append(g.t.chains, p.refusal(refuse))
		passes := refuse
		if way.PassesOther {
			audit, passes = true, numbered("forward", n)
			g.t.chains = append(g.t.chains, g.passing(n, way))
		} else {
			stray.rules = append(stray.rules, g.strays(n, way.Pool)...)
		}
		g.t.chains = append(g.t.chains, chain{name: numbered("take", n), rules: g.redirects(way)}, chain{name: numbered("in", n), rules: g.in(n, way)})
		for _, match := range g.matches(n) {
			comment := "pool " + printable(way.Pool)
			// A redirect would end it, too, but unseen: with our listener's reset.
			asked.rules = append(asked.rules, a("of a connection from before, or of none", and(match, matchLocal{not: true}, matchPushed{}, matchState{stateNew}, goTo{refuse})...))
			asked.rules = append(asked.rules, p.asked(match...)...)
			redirect.rules = append(redirect.rules, a(comment, and(match, goTo{numbered("take", n)})...))
			in.rules = append(in.rules, a(comment, and(match, goTo{numbered("in", n)})...))
			through.rules = append(through.rules, a(comment, and(match, goTo{passes})...))
		}
	}
	// A virtual router hides its port's name from the rules above.
	if len(g.devices) > 0 {
		in.rules = append(in.rules, a("by a virtual router", matchMember{setRunners}, goTo{chainRefuse}))
		through.rules = append(through.rules, a("by a virtual router", matchMember{setRunners}, goTo{chainRefuse}))
	}
	in.rules = append(in.rules, g.fromRunnerDevices(chainService)...)
	through.rules = append(through.rules, g.fromRunnerDevices(chainRefuse)...)
	through.rules = append(through.rules, g.toRunners(audit)...)
	if g.bySourceAlone() {
		through.rules = append(through.rules, a("nothing else is routed, as runners may have other addresses", goTo{chainRefuse}))
	}
	g.t.chains = append(g.t.chains, g.check(), asked, redirect, stray, in,
		chain{name: "opened", hook: output, priority: filter, rules: []rule{
			a("connections that this machine opens: their answers may come in", matchOpening{}, matchState{stateNew}, setMark{}),
		}}, through)
	return g.t
}

// bySourceAlone reports whether the runners of some way are known by nothing but
// their addresses: then nobody can tell what else they send by its device.
func (g *gatewayModel) bySourceAlone() bool {
	return slices.ContainsFunc(g.plan.Ways, func(w Way) bool { return len(w.Interfaces) == 0 })
}

// strays refuses what was not redirected and is for other machines, before the
// kernel asks whether it forwards at all: where it does not, the packet would
// never come to the forward hook, and be lost without a word.
func (g *gatewayModel) strays(n int, pool string) []rule {
	var rules []rule
	comment := "not redirected, pool " + printable(pool)
	for _, match := range g.matches(n) {
		rules = append(rules, a("", and(match, matchLocal{}, accept{})...))
		for _, kind := range []manyKind{toBroadcast, toAnycast, toMulticast} {
			rules = append(rules, a("", and(match, matchMany{kind}, accept{})...))
		}
		rules = append(rules, a(comment, and(match, goTo{numbered(chainRefuse, n)})...))
	}
	return rules
}

// A gatewayModel collects what the chains of a gateway share.
type gatewayModel struct {
	plan    *Plan
	t       table
	devices []string // of every way
	sources map[bool]bool
}

func (g *gatewayModel) addSets() {
	g.sources = map[bool]bool{}
	var all4, all6 []addrRange
	for n, way := range g.plan.Ways {
		g.devices = append(g.devices, way.Interfaces...)
		own4, own6 := g.plan.sourcesOf(n, false), g.plan.sourcesOf(n, true)
		if len(way.Interfaces) > 1 {
			g.t.addNames(numbered("devices", n), way.Interfaces)
		}
		g.t.addAddrs(numbered("sources4", n), false, own4)
		g.t.addAddrs(numbered("sources6", n), true, own6)
		g.t.addPorts(numbered("explicit", n), way.Explicit)
		all4, all6 = append(all4, own4...), append(all6, own6...)
	}
	g.devices = sorted(g.devices)
	g.t.addNames(setRunners, g.devices)
	g.sources[false] = g.t.addAddrs(setSources4, false, merged(all4))
	g.sources[true] = g.t.addAddrs(setSources6, true, merged(all6))
	g.t.addAddrs(setLinkLocal, true, []addrRange{rangeOf(linkLocal)})
	g.t.addICMP()
	g.t.addMetadata(g.plan)
}

// order is the ways as packets meet them: those that name sources first.
func (g *gatewayModel) order() []int {
	order := make([]int, len(g.plan.Ways))
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return min(len(g.plan.Ways[b].Sources), 1) - min(len(g.plan.Ways[a].Sources), 1)
	})
	return order
}

// matches are the ways to tell a packet of this way, one for each family; a
// rule matches if any does.
func (g *gatewayModel) matches(n int) [][]part {
	way := &g.plan.Ways[n]
	var device []part
	switch len(way.Interfaces) {
	case 0:
	case 1:
		device = []part{matchDevice{name: way.Interfaces[0]}}
	default:
		device = []part{matchDevice{set: numbered("devices", n)}}
	}
	if len(way.Sources) == 0 {
		return [][]part{device}
	}
	var out [][]part
	if len(g.plan.sourcesOf(n, false)) > 0 {
		out = append(out, and(device, matchAddr{source: true, set: numbered("sources4", n)}))
	}
	if len(g.plan.sourcesOf(n, true)) > 0 {
		out = append(out, and(device, matchAddr{six: true, source: true, set: numbered("sources6", n)}))
	}
	return out
}

// check drops what does not come from where it says, before anything else
// looks at it.
func (g *gatewayModel) check() chain {
	c := chain{name: "check", hook: prerouting, priority: beforeNAT, rules: []rule{a("", matchDevice{name: "lo"}, accept{})}}
	spoofed := goTo{chainSpoofed}
	runners := matchDevice{set: setRunners}
	if g.bySourceAlone() {
		c.rules = append(c.rules,
			a("has no address yet", matchAddr{source: true, addr: netip.IPv4Unspecified()}, accept{}),
			a("has no address yet", matchAddr{six: true, source: true, addr: netip.IPv6Unspecified()}, accept{}),
			a("its answer would leave elsewhere", matchSpoofed{}, spoofed))
	}
	if len(g.devices) > 0 {
		c.rules = append(c.rules,
			a("its answer would leave elsewhere", runners, matchSpoofed{}, spoofed),
			a("", matchRouting{}, runners, spoofed))
	}
	for _, six := range []bool{false, true} {
		if g.sources[six] {
			c.rules = append(c.rules, a("its answer would leave elsewhere", g.anySource(six, true), matchSpoofed{}, spoofed))
		}
	}
	for _, n := range g.order() {
		for _, match := range g.matches(n) {
			c.rules = append(c.rules, a("pool "+printable(g.plan.Ways[n].Pool), and(match, accept{})...))
		}
	}
	if len(g.devices) > 0 {
		c.rules = append(c.rules, g.beforeAddress(runners)...)
		c.rules = append(c.rules, a("a source of no pool", runners, spoofed))
	}
	for _, six := range []bool{false, true} {
		if g.sources[six] {
			c.rules = append(c.rules, a("a pool's source by another way", g.anySource(six, true), spoofed))
		}
	}
	return c
}

// beforeAddress is what a machine says before it has an address of its pool:
// neighbour discovery, and DHCP where it is switched on.
func (g *gatewayModel) beforeAddress(runners part) []rule {
	local := matchAddr{six: true, source: true, set: setLinkLocal}
	rules := []rule{
		a("neighbours", runners, local, matchICMP{six: true, set: setNeighbours}, accept{}),
		a("neighbours", runners, matchAddr{six: true, source: true, addr: netip.IPv6Unspecified()}, matchICMP{six: true, set: setNeighbours}, accept{}),
	}
	if g.plan.DHCP {
		rules = append(rules,
			a("DHCP", runners, matchAddr{source: true, addr: netip.IPv4Unspecified()}, matchPort{proto: protoUDP, port: 67}, accept{}),
			a("DHCP", runners, local, matchPort{proto: protoUDP, port: 547}, accept{}))
	}
	return rules
}

func (g *gatewayModel) anySource(six, source bool) part {
	name := setSources4
	if six {
		name = setSources6
	}
	return matchAddr{six: six, source: source, set: name}
}

// redirects are those of one way; what asks our resolver itself is left alone.
func (g *gatewayModel) redirects(way *Way) []rule {
	var rules []rule
	for _, six := range []bool{false, true} {
		if way.DNS.of(six) == dnsPort {
			rules = append(rules, a("asks us already", matchFamily{six: six}, matchLocal{}, accept{}))
		}
	}
	return append(rules, way.redirects()...)
}

// in is what runners of one way may ask of this machine: our listeners.
func (g *gatewayModel) in(n int, way *Way) []rule {
	var rules []rule
	for _, six := range []bool{false, true} {
		if port := way.TCP.of(six); port != 0 {
			rules = append(rules, a("redirected", matchFamily{six: six}, matchRedirected{}, matchPort{proto: protoTCP, port: port}, accept{}))
		}
		if port := way.DNS.of(six); port != 0 {
			rules = append(rules, a("our resolver", matchFamily{six: six}, matchPort{proto: protoUDP, port: port}, accept{}),
				a("our resolver", matchFamily{six: six}, matchPort{proto: protoTCP, port: port}, accept{}))
		}
	}
	if len(way.Explicit) > 0 {
		rules = append(rules, a("our listeners", matchPort{proto: protoTCP, set: numbered("explicit", n)}, accept{}))
	}
	rules = append(rules, a("answers to what this machine opened", matchMark{}, matchReply{}, accept{}))
	return append(rules, g.serves(numbered(chainRefuse, n))...)
}

// services is for runners that are of no pool yet.
func (g *gatewayModel) services() chain {
	return chain{name: chainService, rules: g.serves(chainRefuse)}
}

// serves lets in what every runner may ask of this machine.
func (g *gatewayModel) serves(refused string) []rule {
	rules := kernelsOwn()
	if g.plan.DHCP {
		rules = append(rules, a("DHCP", matchPort{proto: protoUDP, port: 67}, accept{}), a("DHCP", matchPort{proto: protoUDP, port: 547}, accept{}))
	}
	if g.plan.NTP {
		rules = append(rules, a("NTP", matchPort{proto: protoUDP, port: 123}, accept{}))
	}
	return append(rules, a("", goTo{refused}))
}

// fromRunnerDevices leads what comes in by a pool's interface, from whatever
// source, to a chain.
func (g *gatewayModel) fromRunnerDevices(to string) []rule {
	if len(g.devices) == 0 {
		return nil
	}
	return []rule{a("", matchDevice{set: setRunners}, goTo{to})}
}

// passing is the chain of a way in audit: other protocols pass, but not to
// other runners.
func (g *gatewayModel) passing(n int, way *Way) chain {
	refused := numbered(chainRefuse, n)
	var never []rule
	if len(g.devices) > 0 {
		never = append(never, a("runner to runner", matchDevice{out: true, set: setRunners}, goTo{refused}))
	}
	for _, six := range []bool{false, true} {
		if g.sources[six] {
			never = append(never, a("runner to runner", g.anySource(six, false), goTo{refused}))
		}
	}
	return g.plan.others(numbered("forward", n), refused, way, never...)
}

// toRunners refuses what would be forwarded to runners, but for the answers to
// what passed in audit.
func (g *gatewayModel) toRunners(audit bool) []rule {
	var rules []rule
	var to []part
	if len(g.devices) > 0 {
		to = append(to, matchDevice{out: true, set: setRunners})
	}
	for _, six := range []bool{false, true} {
		if g.sources[six] {
			to = append(to, g.anySource(six, false))
		}
	}
	for _, match := range to {
		if audit {
			rules = append(rules, a("answers to what passed", match, matchProto{not: true, proto: protoTCP}, matchState{stateReplied}, matchReply{}, accept{}))
		}
		rules = append(rules, a("to a runner", match, count{}, drop{}))
	}
	return rules
}

// printable keeps a pool's name within what a comment may hold.
func printable(name string) string {
	out := []rune(fmt.Sprintf("%+q", name))
	out = slices.DeleteFunc(out, func(r rune) bool { return r == '"' || r == '\\' })
	return string(out[:min(len(out), 60)])
}
