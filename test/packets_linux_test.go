package test

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// packetPools opens the networks of examples, so that their addresses are
// judged as any on the internet.
const packetPools = `
  build:
    sources: [127.0.0.1/32]
    resolves_to: [203.0.113.0/24, 198.51.100.0/24, "2001:db8::/32"]
    allow: [allowed.example]
`

// newPacketWorld is a sidecar in a namespace of its own, whose device leads
// nowhere, with the firewall applied ahead of the daemon's start.
func newPacketWorld(t *testing.T, pools string) (*space, *daemon) {
	t.Helper()
	s := newSpace(t, "packets")
	wire(s, "eth0", newSpace(t, "nowhere"), "eth0")
	s.address("eth0", "10.77.0.2/24", "fd00:77::2/64")
	s.ip("route", "add", "default", "dev", "eth0")
	s.ip("-6", "route", "add", "default", "dev", "eth0")
	s.resolver("198.51.100.1")
	// As an unprivileged user with the one capability that the log takes: what
	// the firewall lets reach the admin listener is that user alone.
	needProgram(t, "setpriv")
	user := []string{"setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups", "--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"}
	d := prepare(t, config{ip: "127.0.0.1", upstream: "127.0.0.1:9", prefix: append(s.through(), user...)})
	s.command("install", "-d", "-o", "65532", "-m", "700", d.path("state"))
	s.command("chown", "65532", d.dir)
	s.command("chmod", "755", filepath.Dir(d.dir))
	d.listen = `{proxy: "127.0.0.1:3128", dns: ["127.0.0.1:5300", "[::1]:5300"], transparent: auto, admin: "127.0.0.1:9180"}`
	d.write("127.0.0.1:9", pools)
	if out, err := s.run(nil, binary, "firewall", "apply", "--mode", "sidecar", "-c", d.path("sallyport.yaml")); err != nil {
		t.Fatalf("applying the firewall: %v\n%s", err, out)
	}
	d.run()
	return s, d
}

// sends puts one packet on the way; a raw network such as ip4:icmp takes an
// address without a port.
func (s *space) sends(network, to string, payload []byte) {
	s.t.Helper()
	s.do(func() {
		var addr net.Addr
		var err error
		if strings.HasPrefix(network, "udp") {
			addr, err = net.ResolveUDPAddr(network, to)
		} else {
			addr, err = net.ResolveIPAddr(network[:3], to)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		c, err := net.ListenPacket(network, "")
		if err != nil {
			s.t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.WriteTo(payload, addr); err != nil && !errors.Is(err, syscall.EPERM) { // EPERM: dropped
			s.t.Errorf("%s to %s: %v", network, to, err)
		}
	})
}

// echo is an ICMP echo request that carries something out.
var echo = append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, "what a job wants to tell"...)

// TestRefusedPacketsAreSeen sends what is neither TCP nor DNS by every way, and
// expects one event for each, with its alert.
func TestRefusedPacketsAreSeen(t *testing.T) {
	s, d := newPacketWorld(t, packetPools)
	if e := d.wait("started", func(e event) bool { return e.text("event") == "started" }); e["details"].(map[string]any)["packets"] != "seen" {
		t.Fatalf("the firewall's log is not read: %v", e)
	}
	quic := []byte("\xc0 what looks like QUIC")
	echo6 := append([]byte{128}, echo[1:]...)
	for _, row := range []struct {
		says, network, to, via, ip string
		port                       float64
		payload                    []byte
		reason, alert              string
	}{
		{"QUIC", "udp4", "203.0.113.9:443", "udp", "203.0.113.9", 443, quic, "protocol-blocked", "denied-egress"},
		{"UDP to any port", "udp4", "203.0.113.10:40123", "udp", "203.0.113.10", 40123, quic, "protocol-blocked", "denied-egress"},
		{"an echo with a payload", "ip4:icmp", "203.0.113.11", "icmp", "203.0.113.11", 0, echo, "protocol-blocked", "denied-egress"},
		{"SCTP", "ip4:132", "203.0.113.12", "other", "203.0.113.12", 9, []byte{0, 9, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0}, "protocol-blocked", "denied-egress"},
		{"a protocol of nobody", "ip4:253", "203.0.113.13", "other", "203.0.113.13", 0, quic, "protocol-blocked", "denied-egress"},
		{"DNS over QUIC", "udp4", "203.0.113.14:853", "udp", "203.0.113.14", 853, quic, "resolver-bypass", "foreign-resolver"},
		{"metadata by UDP", "udp4", "169.254.169.254:80", "udp", "169.254.169.254", 80, quic, "special-address", "metadata-access"},
		{"a private address", "udp4", "10.1.2.3:5000", "udp", "10.1.2.3", 5000, quic, "special-address", "denied-egress"},
		{"QUIC over IPv6", "udp6", "[2001:db8::9]:443", "udp", "2001:db8::9", 443, quic, "protocol-blocked", "denied-egress"},
		{"an echo over IPv6", "ip6:ipv6-icmp", "2001:db8::11", "icmp", "2001:db8::11", 0, echo6, "protocol-blocked", "denied-egress"},
	} {
		for range 3 {
			s.sends(row.network, row.to, row.payload)
		}
		e := d.wait(row.says, func(e event) bool { return e.text("kind") == "conn" && e.text("ip") == row.ip })
		if e.text("via") != row.via || e.text("reason") != row.reason || e.text("phase") != "refused" || e.text("verdict") != "deny" || e.number("port") != row.port {
			t.Errorf("%s: %v", row.says, e)
		}
		if e.text("pool") != "build" || e.text("client") != "127.0.0.1" || e.text("host") != "" {
			t.Errorf("%s: %v", row.says, e)
		}
		d.wait(row.alert+" of "+row.says, func(a event) bool {
			evidence, _ := a["evidence"].([]any)
			return a.text("alert") == row.alert && strings.Contains(fmt.Sprint(evidence), e.text("id")) || folded(a, row.alert)
		})
	}
	lines := make(map[string]int)
	for _, e := range d.events() {
		if e.text("kind") == "conn" {
			lines[fmt.Sprint(e.text("via"), " ", e.text("ip"), " ", e.number("port"))]++
		}
	}
	for flow, n := range lines {
		if n != 1 {
			t.Errorf("%d events of three packets of one flow: %s", n, flow)
		}
	}
	if len(lines) != 10 {
		t.Errorf("%d flows have events, want 10: %v", len(lines), lines)
	}
}

// folded reports whether an alert is the one that more of its kind folded into.
func folded(a event, alert string) bool {
	return a.text("alert") == alert && strings.Contains(a.text("summary"), "destinations")
}

// TestRefusedUDPFailsAtOnce: a client of QUIC hears that it does not go, and
// falls back without waiting.
func TestRefusedUDPFailsAtOnce(t *testing.T) {
	s, d := newPacketWorld(t, packetPools)
	for _, to := range []string{"203.0.113.9:443", "[2001:db8::9]:443"} {
		c, err := s.dial("udp", to, "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		began := time.Now()
		_, _ = c.Write([]byte("hello"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %s\n%s", to, err, time.Since(began), d.dump())
		}
	}
}

// TestTheWantedResolverIsNamed asks foreign resolvers, which are never asked,
// and those that are meant to be: us, and the machine's nameserver.
func TestTheWantedResolverIsNamed(t *testing.T) {
	s, d := newPacketWorld(t, packetPools)
	for n, row := range []struct {
		network, resolver string
		foreign           bool
	}{
		{"udp", "203.0.113.53", true}, {"tcp", "203.0.113.54", true}, {"udp", "2001:db8::53", true}, {"tcp", "2001:db8::54", true},
		{"udp", "198.51.100.1", false}, {"tcp", "198.51.100.1", false}, {"udp", "127.0.0.1", false}, {"udp", "10.77.0.2", false},
	} {
		name := fmt.Sprintf("wanted%d.example", n)
		conn, err := s.dial(row.network, net.JoinHostPort(row.resolver, "53"), "")
		if err != nil {
			t.Fatal(err)
		}
		client := &dns.Conn{Conn: conn}
		err = client.WriteMsg(new(dns.Msg).SetQuestion(name+".", dns.TypeA))
		if err == nil {
			var reply *dns.Msg
			if reply, err = client.ReadMsg(); err == nil && reply.Rcode != dns.RcodeNameError {
				t.Errorf("%s at %s: %v", name, row.resolver, reply)
			}
		}
		client.Close()
		if err != nil {
			t.Errorf("%s at %s: %v\n%s", name, row.resolver, err, d.dump())
			continue
		}
		e := d.wait(name, func(e event) bool { return e.text("name") == name })
		want := ""
		if row.foreign {
			want = row.resolver
		}
		if e.text("resolver") != want || e.text("client") != "127.0.0.1" {
			t.Errorf("%s by %s: %v, want the resolver %q", row.resolver, row.network, e, want)
		}
		if !row.foreign {
			continue
		}
		a := d.wait("the alert", func(a event) bool { return a.text("alert") == "foreign-resolver" && a.text("ip") == row.resolver })
		if a.text("severity") != "high" || !strings.Contains(fmt.Sprint(a["evidence"]), e.text("id")) {
			t.Errorf("%s: %v", row.resolver, a)
		}
	}
	for _, e := range d.events() {
		if e.text("alert") == "foreign-resolver" && (e.text("ip") == "198.51.100.1" || e.text("ip") == "127.0.0.1" || e.text("ip") == "10.77.0.2") {
			t.Errorf("%v", e)
		}
	}
}

// TestAuditPassesOthersAndSaysSo: in audit other protocols go out and are
// recorded, metadata never.
func TestAuditPassesOthersAndSaysSo(t *testing.T) {
	s, d := newPacketWorld(t, strings.Replace(packetPools, "build:", "build:\n    mode: audit", 1))
	s.sends("udp4", "203.0.113.9:443", []byte("hello"))
	s.sends("udp4", "169.254.169.254:80", []byte("hello"))
	end := d.wait("the close", func(e event) bool { return e.text("ip") == "203.0.113.9" && e.text("phase") == "close" })
	open := d.wait("the open", func(e event) bool { return e.text("ip") == "203.0.113.9" && e.text("phase") == "open" })
	if open.text("id") != end.text("id") || open.text("reason") != "allowed-by-audit" || open.text("would") != "protocol-blocked" || end.number("sent") != 33 {
		t.Errorf("%v, then %v", open, end)
	}
	if e := d.wait("metadata", func(e event) bool { return e.text("ip") == "169.254.169.254" && e.text("kind") == "conn" }); e.text("phase") != "refused" || e.text("reason") != "special-address" {
		t.Errorf("%v", e)
	}
}

// TestRawFramesAreSeen sends frames past IP, as root with CAP_NET_RAW may: the
// second table drops them at the device, and tells.
func TestRawFramesAreSeen(t *testing.T) {
	s, d := newPacketWorld(t, packetPools)
	udp := "\x45\x00\x00\x1c\x00\x01\x00\x00\x40\x11\x00\x00\x0a\x4d\x00\x02\xcb\x00\x71\x09" + "\x9c\x40\x01\xbb\x00\x08\x00\x00" // 10.77.0.2:40000 to 203.0.113.9:443
	s.do(func() {
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		for _, frame := range []string{"\x08\x00" + udp, "\x88\xb5 a protocol of nobody's"} {
			err := unix.Sendto(fd, []byte("\x02\x02\x02\x02\x02\x02\x04\x04\x04\x04\x04\x04"+frame), 0, &unix.SockaddrLinklayer{Ifindex: device.Index})
			if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EPERM) {
				t.Errorf("the frame went: %v", err)
			}
		}
	})
	for what, fits := range map[string]func(event) bool{
		"UDP in a frame": func(e event) bool {
			return e.text("ip") == "203.0.113.9" && e.number("port") == 443 && e.text("via") == "udp"
		},
		"a frame without IP":   func(e event) bool { return e.text("ip") == "" && e.text("via") == "other" },
		"the alert of the one": func(e event) bool { return e.text("alert") == "denied-egress" && e.text("ip") == "203.0.113.9" },
	} {
		if e := d.wait(what, fits); e.text("client") != "127.0.0.1" || e.text("pool") != "build" || e.text("phase") == "open" {
			t.Errorf("%s: %v", what, e)
		}
	}
}

// TestPacketsBeyondTheRateAreCounted floods with one flow: it has one event, and
// what the kernel's rate left out is announced.
func TestPacketsBeyondTheRateAreCounted(t *testing.T) {
	s, d := newPacketWorld(t, packetPools)
	c, err := s.dial("udp", "203.0.113.9:443", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 5000 {
		_, _ = c.Write([]byte("hello")) // refused, and said so by the next write
	}
	e := d.wait("what was lost", func(e event) bool { return e.text("event") == "packets-lost" })
	if lost := e["details"].(map[string]any)["lost"].(float64); lost < 1000 || lost > 5000 {
		t.Errorf("%v of 5000 packets are said to be lost", lost)
	}
	n := 0
	for _, e := range d.events() {
		if e.text("kind") == "conn" {
			n++
		}
	}
	if n > 3 {
		t.Errorf("%d events of one flow", n)
	}
}
