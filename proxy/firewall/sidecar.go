package firewall

import (
	"net/netip"
	"slices"
)

// Names in a sidecar's tables.
const (
	setPrivate    = "private_ports"
	setResolvers4 = "resolvers4"
	setResolvers6 = "resolvers6"
	setDevices    = "known_devices"
	setTakenTCP   = "taken_tcp"
	setTakenUDP   = "taken_udp"
	chainOthers   = "others"
)

// loopbacks are where a redirect in the output hook leads.
var loopbacks = map[bool]netip.Addr{false: netip.MustParseAddr("127.0.0.1"), true: netip.IPv6Loopback()}

// sidecar is the model of a namespace that we share with the job. Containers
// that the job starts behind bridges of its own come in by devices that were
// not there when the plan was made; they are redirected and refused alike.
func (p *Plan) sidecar() []table {
	way := &p.Ways[0]
	t := table{family: "inet"}
	t.addPorts(setPrivate, p.Private)
	t.addAddrs(setResolvers4, false, addrRanges(p.Resolvers, false))
	t.addAddrs(setResolvers6, true, addrRanges(p.Resolvers, true))
	t.addNames(setDevices, p.Devices)
	t.addPorts(setTakenTCP, present(way.TCP.V4, way.TCP.V6, way.DNS.V4, way.DNS.V6))
	t.addPorts(setTakenUDP, present(way.DNS.V4, way.DNS.V6))
	t.addICMP()
	t.addMetadata(p)

	refused := chainRefuse
	t.chains = append(t.chains, p.refusal(chainRefuse), p.spoofed())
	if way.PassesOther {
		refused = chainOthers
		t.chains = append(t.chains, p.others(chainOthers, chainRefuse, way))
	}
	nested := p.nested()
	t.chains = append(t.chains,
		chain{name: "check", hook: output, priority: beforeNAT, rules: []rule{
			a("our own", p.own(), accept{}),
			// Every user may send IPv6 from any address (IPV6_FREEBIND), and whoever
			// answers on this machine, the kernel and ourselves, would carry it out.
			a("its answer would leave elsewhere", anySocket, matchLocal{source: true, not: true}, goTo{chainSpoofed}),
		}},
		chain{name: "asked", hook: output, priority: afterChecks, rules: append([]rule{a("our own", p.own(), accept{})}, p.asked()...)},
		chain{name: "take", hook: output, priority: natPriority, nat: true, rules: append([]rule{a("our own", p.own(), accept{})}, way.redirects()...)},
		chain{name: "out", hook: output, priority: filter, drop: true, rules: p.out(way, refused)},
		chain{name: "check_nested", hook: prerouting, priority: beforeNAT, rules: []rule{
			a("its answer would leave elsewhere", and(nested, matchSpoofed{}, goTo{chainSpoofed})...),
		}},
		chain{name: "asked_nested", hook: prerouting, priority: afterChecks, rules: p.asked(nested...)},
		chain{name: "take_nested", hook: prerouting, priority: natPriority, nat: true, rules: append(p.known(), way.redirects()...)},
		chain{name: "in", hook: input, priority: filter, rules: p.in(way, nested)},
		chain{name: "forward", hook: forward, priority: filter, drop: true, rules: p.through(way, refused)})
	return []table{t, p.frames()}
}

// own matches our own packets, of live sockets only.
func (p *Plan) own() part {
	if p.Own.Cgroup.ID != 0 {
		return matchCgroup{p.Own.Cgroup}
	}
	return matchUser{uid: p.Own.UID}
}

// out judges what is sent here, after the redirects.
func (p *Plan) out(way *Way, refused string) []rule {
	rules := []rule{
		// What our closed sockets still have to say has no user any more; the
		// connection itself remembers whose it is.
		a("our own: marked, for what outlives its socket", p.own(), matchDevice{out: true, not: true, name: "lo"}, setMark{}, accept{}),
		a("our own", p.own(), accept{}),
	}
	for _, six := range []bool{false, true} {
		to := matchAddr{six: six, addr: loopbacks[six]}
		if port := way.DNS.of(six); port != 0 {
			rules = append(rules, a("redirected", to, matchRedirected{}, matchPort{proto: protoUDP, port: port}, accept{}),
				a("redirected", to, matchRedirected{}, matchPort{proto: protoTCP, port: port}, accept{}))
		}
		if port := way.TCP.of(six); port != 0 {
			rules = append(rules, a("redirected", to, matchRedirected{}, matchPort{proto: protoTCP, port: port}, accept{}))
		}
	}
	for _, six := range []bool{false, true} {
		if len(addrRanges(p.Resolvers, six)) > 0 {
			name := setResolvers4
			if six {
				name = setResolvers6
			}
			rules = append(rules, a("the machine's resolver, by another door", anySocket, matchAddr{six: six, set: name}, goTo{chainRefuse}))
		}
	}
	if len(p.Private) > 0 {
		rules = append(rules, a("admin and control are not the job's", anySocket, matchLocal{}, matchPort{proto: protoTCP, set: setPrivate}, goTo{chainRefuse}))
	}
	rules = append(rules,
		a("what stays on this machine", matchLocal{}, accept{}),
		a("all else that a process sends", anySocket, goTo{refused}),
		a("what outlives our sockets", matchMark{}, accept{}))
	if len(p.Devices) > 0 {
		// An error quotes the packet that it is about. Containers need them, the
		// network outside needs none: nothing of its is routed here.
		rules = append(rules, a("errors stay inside", matchDevice{out: true, set: setDevices}, matchICMP{set: setErrors4}, count{}, drop{}),
			a("errors stay inside", matchDevice{out: true, set: setDevices}, matchICMP{six: true, set: setErrors6}, count{}, drop{}))
	}
	rules = append(rules, kernelsOwn()...)
	return append(rules, a("", count{}))
}

// nested matches what comes in from containers inside the namespace.
func (p *Plan) nested() []part {
	match := []part{matchDevice{not: true, name: "lo"}}
	if len(p.Devices) > 0 {
		match = append(match, matchDevice{not: true, set: setDevices})
	}
	return match
}

// known passes by what comes in by loopback and the devices of the plan.
func (p *Plan) known() []rule {
	rules := []rule{a("", matchDevice{name: "lo"}, accept{})}
	if len(p.Devices) > 0 {
		rules = append(rules, a("", matchDevice{set: setDevices}, accept{}))
	}
	return rules
}

// in keeps the network from our listeners, and nested containers from our
// private ports. What else comes in is no business of ours.
func (p *Plan) in(way *Way, nested []part) []rule {
	var rules []rule
	if len(p.Devices) > 0 {
		if len(present(way.TCP.V4, way.TCP.V6, way.DNS.V4, way.DNS.V6)) > 0 {
			rules = append(rules, a("our listeners are the job's", matchDevice{set: setDevices}, matchPort{proto: protoTCP, set: setTakenTCP}, count{}, drop{}))
		}
		if len(present(way.DNS.V4, way.DNS.V6)) > 0 {
			rules = append(rules, a("our listeners are the job's", matchDevice{set: setDevices}, matchPort{proto: protoUDP, set: setTakenUDP}, count{}, drop{}))
		}
	}
	if len(p.Private) > 0 {
		rules = append(rules, a("admin and control are not the job's", and(nested, matchPort{proto: protoTCP, set: setPrivate}, goTo{chainRefuse})...))
	}
	return rules
}

// through refuses what would be forwarded: from nested containers, and to them.
func (p *Plan) through(way *Way, refused string) []rule {
	var rules []rule
	if len(p.Devices) > 0 {
		if way.PassesOther {
			rules = append(rules, a("answers to what passed", matchDevice{set: setDevices}, matchProto{not: true, proto: protoTCP}, matchState{stateReplied}, matchReply{}, accept{}))
		}
		rules = append(rules, a("from the network to a container", matchDevice{set: setDevices}, count{}, drop{}))
	}
	return append(rules, a("", goTo{refused}))
}

// frames is the second table: at the very end of the way out of each device it
// drops what a socket of any other user sends, frames of AF_PACKET included,
// which no other hook sees.
func (p *Plan) frames() table {
	t := table{family: "netdev", chains: []chain{{name: chainRefuse, rules: []rule{
		a("told, up to a rate", p.log(LogRefused, refusedRate)),
		a("", count{}, drop{}),
	}}}}
	others := []rule{a("a socket of another user", matchUser{not: true, uid: p.Own.UID}, goTo{chainRefuse})}
	if p.Ways[0].PassesOther && len(p.Devices) > 0 {
		t.addMetadata(p)
		t.chains = append(t.chains, p.othersFrames())
		others = []rule{a("a socket of another user", matchUser{not: true, uid: p.Own.UID}, goTo{chainOthers})}
	}
	for n, device := range p.Devices {
		t.chains = append(t.chains, chain{name: numbered("egress", n), hook: egress, priority: filter, device: device, rules: others})
	}
	return t
}

// othersFrames is what passes there in audit: IP that is neither TCP nor DNS.
func (p *Plan) othersFrames() chain {
	way := &p.Ways[0]
	c := chain{name: chainOthers, rules: []rule{
		a("", matchProto{proto: protoTCP}, goTo{chainRefuse}),
		a("", matchPort{proto: protoUDP, port: dnsPort}, goTo{chainRefuse}),
	}}
	for _, six := range []bool{false, true} {
		if len(addrRanges(p.Metadata, six)) > 0 {
			name := setMetadata4
			if six {
				name = setMetadata6
			}
			c.rules = append(c.rules, a(commentNoAudit, matchAddr{six: six, set: name}, goTo{chainRefuse}))
		}
		if way.TCP.of(six) != 0 || way.DNS.of(six) != 0 {
			c.rules = append(c.rules, a("", matchFamily{six: six, frame: true}, accept{}))
		}
	}
	c.rules = append(c.rules, a("", goTo{chainRefuse}))
	return c
}

// present are the ports that are not 0, each once.
func present(ports ...uint16) []uint16 {
	ports = slices.DeleteFunc(sorted(ports), func(port uint16) bool { return port == 0 })
	return ports
}

// sorted is a sorted copy, each value once.
func sorted[T uint16 | string](list []T) []T {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}
