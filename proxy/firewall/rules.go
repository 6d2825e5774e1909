package firewall

import "fmt"

// Rates of the log, in packets a second: what is over is refused or redirected
// all the same, and counted, but not told one by one.
const (
	refusedRate = 200
	askedRate   = 1000
)

// ICMP types (RFC 792, RFC 4443, RFC 4861, RFC 3810).
var (
	icmp4Errors = []uint8{3, 11, 12}
	icmp6Errors = []uint8{1, 2, 3, 4}
	// neighbours are what IPv6 needs on a link: solicitations of routers and
	// neighbours, advertisements of neighbours, and listeners of multicast.
	// Advertisements of routers are not: no job is a router.
	neighbours = []uint8{131, 132, 133, 135, 136, 143}
)

// Names of sets and chains that both modes use.
const (
	setMetadata4   = "metadata4"
	setMetadata6   = "metadata6"
	setErrors4     = "icmp_errors"
	setErrors6     = "icmpv6_errors"
	setNeighbours  = "neighbours"
	chainRefuse    = "refuse"
	chainSpoofed   = "spoofed"
	dnsPort        = 53
	commentClosed  = "closed family"
	commentNoAudit = "never, not even in audit"
)

// tables is the whole wish, as data.
func (p *Plan) tables() []table {
	if p.Mode == Gateway {
		return []table{p.gateway()}
	}
	return p.sidecar()
}

// a makes a rule.
func a(comment string, parts ...part) rule { return rule{comment: comment, parts: parts} }

// and puts parts behind others.
func and(first []part, rest ...part) []part {
	return append(append([]part{}, first...), rest...)
}

// anySocket matches every packet that a process sends.
var anySocket = matchUser{not: true, uid: noUID}

func (p *Ports) of(six bool) uint16 {
	if six {
		return p.V6
	}
	return p.V4
}

func (p *Plan) log(prefix string, rate uint32) logTo { return logTo{prefix, p.LogGroup, rate} }

// addAddrs adds a set of addresses if there are any, and says so.
func (t *table) addAddrs(name string, six bool, ranges []addrRange) bool {
	if len(ranges) == 0 {
		return false
	}
	kind := addr4Set
	if six {
		kind = addr6Set
	}
	t.sets = append(t.sets, set{name: name, kind: kind, ranges: ranges})
	return true
}

func (t *table) addPorts(name string, ports []uint16) bool {
	if len(ports) == 0 {
		return false
	}
	t.sets = append(t.sets, set{name: name, kind: portSet, ports: sorted(ports)})
	return true
}

func (t *table) addNames(name string, names []string) bool {
	if len(names) == 0 {
		return false
	}
	t.sets = append(t.sets, set{name: name, kind: nameSet, names: sorted(names)})
	return true
}

func (t *table) addICMP() {
	t.sets = append(t.sets, set{name: setErrors4, kind: icmp4Set, types: icmp4Errors},
		set{name: setErrors6, kind: icmp6Set, types: icmp6Errors}, set{name: setNeighbours, kind: icmp6Set, types: neighbours})
}

// kernelsOwn lets through what the network needs and the kernel says: errors,
// and the talk of neighbours.
func kernelsOwn() []rule {
	return []rule{
		a("errors", matchICMP{set: setErrors4}, accept{}),
		a("errors", matchICMP{six: true, set: setErrors6}, accept{}),
		a("neighbours", matchICMP{six: true, set: setNeighbours}, accept{}),
	}
}

// refusal is the chain that tells of a packet and refuses it, so that the
// client fails at once.
func (p *Plan) refusal(name string) chain {
	return chain{name: name, rules: []rule{
		a("told, up to a rate", p.log(LogRefused, refusedRate)),
		a("", matchProto{proto: protoTCP}, count{}, resetTCP{}),
		a("", matchProto{proto: protoUDP}, count{}, unreachable{}),
		a("", count{}, drop{}),
	}}
}

// spoofed tells and drops: there is nobody to answer.
func (p *Plan) spoofed() chain {
	return chain{name: chainSpoofed, rules: []rule{
		a("told, up to a rate", p.log(LogRefused, refusedRate)),
		a("", count{}, drop{}),
	}}
}

// others is the chain of a way in audit: what is neither TCP nor DNS passes
// once it is told; metadata never, nor a family that is closed.
func (p *Plan) others(name, refused string, way *Way, never ...rule) chain {
	c := chain{name: name}
	for _, six := range []bool{false, true} {
		if way.TCP.of(six) == 0 && way.DNS.of(six) == 0 {
			c.rules = append(c.rules, a(commentClosed, matchFamily{six: six}, goTo{refused}))
		}
		if ranges := addrRanges(p.Metadata, six); len(ranges) > 0 {
			name := setMetadata4
			if six {
				name = setMetadata6
			}
			c.rules = append(c.rules, a(commentNoAudit, matchAddr{six: six, set: name}, goTo{refused}))
		}
	}
	c.rules = append(c.rules, never...)
	c.rules = append(c.rules,
		a("", matchRouting{}, goTo{refused}),
		a("not redirected: older than these rules", matchProto{proto: protoTCP}, goTo{refused}),
		a("not redirected: older than these rules", matchPort{proto: protoUDP, port: dnsPort}, goTo{refused}),
		a("told, up to a rate", p.log(LogPassed, refusedRate)),
		a("", count{}, accept{}))
	return c
}

// addMetadata adds the sets that others uses.
func (t *table) addMetadata(p *Plan) {
	for _, way := range p.Ways {
		if way.PassesOther {
			t.addAddrs(setMetadata4, false, addrRanges(p.Metadata, false))
			t.addAddrs(setMetadata6, true, addrRanges(p.Metadata, true))
			return
		}
	}
}

// asked are the rules that tell which resolver a question was meant for,
// before it is redirected.
func (p *Plan) asked(match ...part) []rule {
	tell := p.log(LogDNS, askedRate)
	return []rule{
		a("", and(match, matchLocal{not: true}, matchPort{proto: protoUDP, port: dnsPort}, tell)...),
		a("", and(match, matchLocal{not: true}, matchPort{proto: protoTCP, port: dnsPort}, matchState{stateNew}, tell)...),
	}
}

// redirectDNS takes questions of a family to our resolver, wherever they go.
func redirectDNS(six bool, port uint16) []rule {
	if port == 0 {
		return nil
	}
	return []rule{
		a("", matchFamily{six: six}, matchPort{proto: protoUDP, port: dnsPort}, redirectTo{port}),
		a("", matchFamily{six: six}, matchPort{proto: protoTCP, port: dnsPort}, redirectTo{port}),
	}
}

// redirectTCP takes every other connection of a family to our listener.
func redirectTCP(six bool, port uint16) []rule {
	if port == 0 {
		return nil
	}
	return []rule{a("", matchFamily{six: six}, matchProto{proto: protoTCP}, redirectTo{port})}
}

// redirects are all of a way: DNS anywhere, other TCP that leaves this machine.
func (w *Way) redirects() []rule {
	var rules []rule
	for _, six := range []bool{false, true} {
		rules = append(rules, redirectDNS(six, w.DNS.of(six))...)
	}
	rules = append(rules, a("", matchLocal{}, accept{}))
	for _, six := range []bool{false, true} {
		rules = append(rules, redirectTCP(six, w.TCP.of(six))...)
	}
	return rules
}

// numbered names a chain or set of the nth way.
func numbered(what string, n int) string { return fmt.Sprintf("%s_%d", what, n) }
