package firewall_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"sallyport/proxy/firewall"
)

// gatewayPlan is the plan of a gateway in the world of newGateway: an enforced
// pool by interface and source, and one in audit by source alone.
func gatewayPlan() *firewall.Plan {
	return &firewall.Plan{
		Mode: firewall.Gateway, LogGroup: firewall.DefaultLogGroup, Metadata: []netip.Addr{netip.MustParseAddr("169.254.169.254")},
		Ways: []firewall.Way{
			{
				Pool: "build", Interfaces: []string{"br0"}, Sources: prefixes("10.78.0.0/24", "fd78::/64"), Explicit: []uint16{3128},
				TCP: firewall.Ports{V4: 3129, V6: 3129}, DNS: firewall.Ports{V4: 5300, V6: 5300},
			},
			{
				Pool: "watched", Sources: prefixes("10.79.0.0/24", "fd79::/64"), PassesOther: true,
				TCP: firewall.Ports{V4: 3129}, DNS: firewall.Ports{V4: 5300},
			},
		},
	}
}

// newGateway makes this thread's namespace route between the world and two
// runners, whose namespaces it gives.
func newGateway(t *testing.T) (peer string, arrived *helper, build, watched string) {
	t.Helper()
	peer, arrived = newWorld(t)
	runners := make([]string, 2)
	for n := range runners {
		runners[n] = fmt.Sprintf("sp%d-%d", os.Getpid()%10000, worlds())
		ns, dev, net4, net6 := runners[n], fmt.Sprintf("br%d", n), fmt.Sprintf("10.7%d.0.", 8+n), fmt.Sprintf("fd7%d::", 8+n)
		shell(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		for _, line := range [][]string{
			{"ip", "link", "add", dev, "type", "veth", "peer", "name", "eth0", "netns", ns},
			{"ip", "link", "set", dev, "up"}, {"ip", "-n", ns, "link", "set", "lo", "up"}, {"ip", "-n", ns, "link", "set", "eth0", "up"},
			{"ip", "addr", "add", net4 + "1/24", "dev", dev}, {"ip", "addr", "add", net6 + "1/64", "dev", dev, "nodad"},
			{"ip", "-n", ns, "addr", "add", net4 + "2/24", "dev", "eth0"}, {"ip", "-n", ns, "addr", "add", net6 + "2/64", "dev", "eth0", "nodad"},
			{"ip", "-n", ns, "route", "add", "default", "via", net4 + "1"}, {"ip", "-n", ns, "route", "add", "default", "via", net6 + "1"},
			{"ip", "-n", peer, "route", "add", net4 + "0/24", "via", "10.77.0.1"}, {"ip", "-n", peer, "route", "add", net6 + "/64", "via", "fd77::1"},
		} {
			shell(t, line[0], line[1:]...)
		}
	}
	for _, setting := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"} {
		shell(t, "sysctl", "-q", "-w", setting) // of this thread's namespace, as its child is in it
	}
	return peer, arrived, runners[0], runners[1]
}

// TestGatewayWays says what becomes of everything that runners try.
func TestGatewayWays(t *testing.T) {
	peer, arrived, build, watched := newGateway(t)
	start(t, peer, 0, "echo", "far", "198.51.100.7:443", "[2001:db8::7]:443", "198.51.100.7:9999", "[2001:db8::7]:9999").line()
	start(t, "", 0, "echo", "gate", "[::]:3129", "[::]:5300", "[::]:3128", "[::]:22").line()
	start(t, build, 0, "echo", "runner", "[::]:8080").line()
	shell(t, "ip", "-n", watched, "route", "add", "10.79.0.77/32", "via", "10.79.0.1") // as isolated ports of a bridge would
	var older []*helper
	for _, flow := range [][]any{
		{"hold", "tcp", "198.51.100.7:9999"}, {"hold", "tcp", "[2001:db8::7]:9999"}, {"hold", "udp", "198.51.100.7:9999"}, {"hold", "udp", "[2001:db8::7]:9999"},
	} {
		h := start(t, build, 0, flow...)
		h.line()
		older = append(older, h)
	}
	apply(t, gatewayPlan())
	shell(t, "ip", "-n", peer, "link")
	before := arrived.number()
	for _, h := range older {
		for sent := h.number(); h.number() < sent+50; {
		}
		h.kill()
	}
	if n := arrived.settled(); n != before {
		t.Errorf("%d packets of older flows escaped", n-before)
	}
	all, escaped := arrived.number(), 0
	for _, c := range []struct {
		does, from, network, addr, want string
		escapes                         bool
	}{
		{"TCP comes to us", build, "tcp", "198.51.100.7:443", "answer gate", false},
		{"over IPv6", build, "tcp", "[2001:db8::7]:443", "answer gate", false},
		{"to any port", build, "tcp", "198.51.100.7:22", "answer gate", false},
		{"DNS comes to us", build, "udp", "198.51.100.7:53", "answer gate", false},
		{"over IPv6 and TCP", build, "tcp", "[2001:db8::7]:53", "answer gate", false},
		{"also when it asks the gateway", build, "udp", "10.78.0.1:53", "answer gate", false},
		{"UDP is refused at once", build, "udp", "198.51.100.7:443", "refused", false},
		{"over IPv6", build, "udp", "[2001:db8::7]:443", "refused", false},
		{"the proxy may be used as it is", build, "tcp", "10.78.0.1:3128", "answer gate", false},
		{"the gateway's sshd is not theirs", build, "tcp", "10.78.0.1:22", "refused", false},
		{"over IPv6", build, "tcp", "[fd78::1]:22", "refused", false},
		{"at its other addresses", build, "tcp", "10.77.0.1:22", "refused", false},
		{"nor its UDP", build, "udp", "10.78.0.1:22", "refused", false},
		{"nor the redirects' end", build, "tcp", "10.78.0.1:3129", "refused", false},
		{"a neighbour's UDP is not theirs", build, "udp", "10.79.0.2:8080", "refused", false},
		{"in audit TCP comes to us", watched, "tcp", "198.51.100.7:443", "answer gate", false},
		{"other protocols pass", watched, "udp", "198.51.100.7:443", "answer far", true},
		{"but not to metadata", watched, "udp", "169.254.169.254:80", "refused", false},
		{"nor to a neighbour", watched, "udp", "10.78.0.2:8080", "refused", false},
		{"nor to one of its own pool", watched, "udp", "10.79.0.77:8080", "refused", false},
		{"nor over a closed family", watched, "udp", "[2001:db8::7]:443", "refused", false},
		{"which takes no TCP either", watched, "tcp", "[2001:db8::7]:443", "refused", false},
		{"the network does not reach runners", peer, "tcp", "10.78.0.2:8080", "silence", false},
		{"nor in audit", peer, "udp", "10.79.0.2:8080", "silence", false},
		{"this machine does", "", "tcp", "10.78.0.2:8080", "answer runner", false},
	} {
		before := arrived.number()
		if got := start(t, c.from, 0, "dial", c.network, c.addr).line(); got != c.want {
			t.Errorf("%s: %s %s: %s; want %s", c.does, c.network, c.addr, got, c.want)
		}
		count := arrived.number
		if c.escapes {
			count = arrived.settled // what comes late is not the next row's
		}
		n := count() - before
		if escaped += n; (n != 0) != c.escapes {
			t.Errorf("%s: %s %s: %d packets reached the network", c.does, c.network, c.addr, n)
		}
	}
	if n := arrived.settled() - all - escaped; n != 0 {
		t.Errorf("%d packets reached the network later", n)
	}
	// Sources that are not theirs: of no pool, of the pool in audit, and the
	// gateway's own.
	before = arrived.number()
	tries := make(map[string]*helper)
	// A network of this interface that is no pool's: its answers would come back.
	shell(t, "ip", "addr", "add", "10.80.0.1/24", "dev", "br0")
	for _, source := range []string{"10.80.0.9", "10.1.2.3", "10.79.0.9", "10.77.0.1", "fd79::9"} {
		bits, to := "/32", "198.51.100.7:443"
		if netip.MustParseAddr(source).Is6() {
			bits, to = "/128", "[2001:db8::7]:443"
		}
		shell(t, "ip", "-n", build, "addr", "add", source+bits, "dev", "lo", "noprefixroute")
		for _, network := range []string{"tcp", "udp"} {
			tries[network+" from "+source] = start(t, build, 0, "dial", network, to, source)
		}
	}
	for try, h := range tries {
		if got := h.line(); got != "silence" {
			t.Errorf("%s: %s; want silence", try, got)
		}
	}
	if n := arrived.settled() - before; n != 0 {
		t.Errorf("%d packets of sources that are not theirs escaped", n)
	}
}

// TestGatewayRefusesWithoutForwarding has a kernel that forwards nothing: what
// is not redirected is refused in sight all the same, rather than lost.
func TestGatewayRefusesWithoutForwarding(t *testing.T) {
	_, arrived, build, _ := newGateway(t)
	for _, setting := range []string{"net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"} {
		shell(t, "sysctl", "-q", "-w", setting)
	}
	start(t, "", 0, "echo", "gate", "[::]:3129", "[::]:5300").line()
	apply(t, gatewayPlan())
	before := arrived.number()
	for _, c := range [][3]string{
		{"udp", "198.51.100.7:443", "refused"}, {"udp", "[2001:db8::7]:443", "refused"},
		{"tcp", "198.51.100.7:443", "answer gate"}, {"tcp", "[2001:db8::7]:443", "answer gate"},
		{"udp", "198.51.100.7:53", "answer gate"},
	} {
		if got := start(t, build, 0, "dial", c[0], c[1]).line(); got != c[2] {
			t.Errorf("%s %s: %s; want %s", c[0], c[1], got, c[2])
		}
	}
	if n := arrived.settled() - before; n != 0 {
		t.Errorf("%d packets escaped", n)
	}
}

// TestGatewayBySourceAlone has a pool that is known by its IPv4 source alone:
// what its machines send as somebody else, or over IPv6, goes nowhere either.
func TestGatewayBySourceAlone(t *testing.T) {
	_, arrived, _, watched := newGateway(t)
	start(t, "", 0, "echo", "gate", "[::]:3129", "[::]:5300").line()
	plan := gatewayPlan()
	plan.Ways = plan.Ways[1:]
	plan.Ways[0].Sources, plan.Ways[0].PassesOther = prefixes("10.79.0.0/24"), false
	apply(t, plan)
	for _, source := range []string{"198.51.100.9", "10.77.0.9", "2001:db8::9"} {
		bits := map[bool]string{true: "/32", false: "/128"}[netip.MustParseAddr(source).Is4()]
		shell(t, "ip", "-n", watched, "addr", "add", source+bits, "dev", "lo", "noprefixroute")
	}
	before := arrived.number()
	for _, c := range []struct{ does, network, addr, source, want string }{
		{"as it is known", "udp", "198.51.100.7:443", "", "refused"},
		{"over IPv6, where it has no source", "udp", "[2001:db8::7]:443", "", "refused"},
		{"and TCP", "tcp", "[2001:db8::7]:443", "", "refused"},
		{"as a machine of the world", "udp", "198.51.100.7:443", "198.51.100.9", "silence"},
		{"asking our resolver as that", "udp", "10.79.0.1:5300", "198.51.100.9", "silence"},
		{"as a machine of the uplink", "udp", "198.51.100.7:443", "10.77.0.9", "silence"},
		{"over IPv6", "udp", "[2001:db8::7]:443", "2001:db8::9", "silence"},
	} {
		words := []any{"dial", c.network, c.addr}
		if c.source != "" {
			words = append(words, c.source)
		}
		if got := start(t, watched, 0, words...).line(); got != c.want {
			t.Errorf("%s: %s; want %s", c.does, got, c.want)
		}
	}
	if n := arrived.settled() - before; n != 0 {
		t.Errorf("%d packets escaped", n)
	}
}

// TestAFloodOfOnePoolHidesNoOther has one pool use up the rate of what is told,
// and another try something meanwhile.
func TestAFloodOfOnePoolHidesNoOther(t *testing.T) {
	_, _, build, other := newGateway(t)
	plan := gatewayPlan()
	plan.Ways[1].PassesOther = false
	apply(t, plan)
	var flooded, told atomic.Int64
	log, err := firewall.OpenPacketLog(plan.LogGroup, func(p firewall.Packet) {
		switch p.Src.Addr() {
		case netip.MustParseAddr("10.78.0.2"):
			flooded.Add(1)
		case netip.MustParseAddr("10.79.0.2"):
			told.Add(1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	flood := start(t, build, 0, "flood", "198.51.100.7:9999")
	for flooded.Load() < 400 { // the burst is over
		log.Drain()
	}
	const tries = 10
	for range tries {
		start(t, other, 0, "dial", "udp", "198.51.100.7:4433").line() // the kernel's own rate may leave it unanswered
		log.Drain()
	}
	flood.kill()
	log.Drain()
	if n := told.Load(); n < tries {
		t.Errorf("%d packets of the other pool were told, of %d at least", n, tries)
	}
}
