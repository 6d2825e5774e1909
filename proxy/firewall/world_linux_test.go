package firewall_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"sallyport/proxy/firewall"
)

// The users of these tests.
const (
	ownUser = 65532
	jobUser = 1000
)

// worldPlan is the plan of a sidecar in the world of newWorld.
func worldPlan() *firewall.Plan {
	return &firewall.Plan{
		Mode: firewall.Sidecar, Own: firewall.Identity{UID: ownUser}, Private: []uint16{9180},
		Ways:      []firewall.Way{{TCP: firewall.Ports{V4: 3129, V6: 3129}, DNS: firewall.Ports{V4: 5300, V6: 5300}}},
		Resolvers: []netip.Addr{netip.MustParseAddr("127.0.0.11")}, Devices: []string{"eth0"},
		Metadata: []netip.Addr{netip.MustParseAddr("169.254.169.254")}, LogGroup: firewall.DefaultLogGroup,
	}
}

// newWorld moves the test into a network namespace of its own, whose only way
// out, eth0, leads to the namespace that it gives: there are 198.51.100.7 and
// 2001:db8::7, and a helper that counts the packets that arrive.
func newWorld(t *testing.T) (peer string, arrived *helper) {
	t.Helper()
	inNamespace(t)
	peer = fmt.Sprintf("sp%d-%d", os.Getpid()%10000, worlds())
	shell(t, "ip", "netns", "add", peer)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", peer).Run() })
	for _, line := range [][]string{
		{"ip", "link", "del", "eth0"},
		{"ip", "link", "add", "eth0", "type", "veth", "peer", "name", "job", "netns", peer},
		{"ip", "link", "set", "lo", "up"}, {"ip", "link", "set", "eth0", "up"},
		{"ip", "-n", peer, "link", "set", "lo", "up"}, {"ip", "-n", peer, "link", "set", "job", "up"},
		{"ip", "addr", "add", "10.77.0.1/24", "dev", "eth0"}, {"ip", "addr", "add", "fd77::1/64", "dev", "eth0", "nodad"},
		{"ip", "-n", peer, "addr", "add", "10.77.0.2/24", "dev", "job"}, {"ip", "-n", peer, "addr", "add", "fd77::2/64", "dev", "job", "nodad"},
		{"ip", "-n", peer, "addr", "add", "198.51.100.7/32", "dev", "lo"}, {"ip", "-n", peer, "addr", "add", "2001:db8::7/128", "dev", "lo", "nodad"},
		{"ip", "route", "add", "default", "via", "10.77.0.2"}, {"ip", "route", "add", "default", "via", "fd77::2"},
	} {
		shell(t, line[0], line[1:]...)
	}
	arrived = start(t, peer, 0, "count", "job")
	arrived.line()
	return peer, arrived
}

func apply(t *testing.T, p *firewall.Plan) {
	t.Helper()
	if err := firewall.Apply(p); err != nil {
		t.Fatal(err)
	}
}

// everywhere is where floods go.
var everywhere = []any{"flood", "198.51.100.7:9999", "[2001:db8::7]:9999"}

// TestNothingEscapesWhileRulesAreReplaced floods both families by UDP and TCP
// through a hundred replacements.
func TestNothingEscapesWhileRulesAreReplaced(t *testing.T) {
	_, arrived := newWorld(t)
	apply(t, worldPlan())
	senders := start(t, "", jobUser, everywhere...)
	before := senders.number()
	rival := start(t, "", 0, "apply") // another process that applies all the while
	for n := range 100 {
		apply(t, variant(n))
		rival.line()
	}
	rival.kill()
	for senders.number() < before+10000 {
	}
	if n := arrived.number(); n != 0 {
		t.Errorf("%d packets escaped", n)
	}
	if err := firewall.Remove(); err != nil {
		t.Fatal(err)
	}
	for before = senders.number(); senders.number() < before+1000; {
	}
	if n := arrived.number(); n == 0 {
		t.Error("nothing arrives after the tables are removed: this test counts nothing")
	}
}

// TestACrashLeavesTheWayShut kills a process that applies, at whatever point it
// is.
func TestACrashLeavesTheWayShut(t *testing.T) {
	_, arrived := newWorld(t)
	apply(t, worldPlan())
	senders := start(t, "", jobUser, everywhere...)
	for range 20 {
		applier := start(t, "", 0, "apply")
		for range 3 {
			applier.line()
		}
		applier.kill()
		one, err := firewall.Compare(variant(0))
		other, err2 := firewall.Compare(variant(1))
		if err != nil || err2 != nil || (one != nil && other != nil) {
			t.Errorf("after a crash neither plan is whole: %q, %q (%v, %v)", one, other, err, err2)
		}
	}
	senders.number()
	if n := arrived.number(); n != 0 {
		t.Errorf("%d packets escaped", n)
	}
}

// TestFlowsOlderThanTheRulesEnd opens flows, then applies.
func TestFlowsOlderThanTheRulesEnd(t *testing.T) {
	for _, tracked := range []bool{false, true} {
		for _, network := range []string{"tcp", "udp"} {
			for _, addr := range []string{"198.51.100.7:9999", "[2001:db8::7]:9999"} {
				t.Run(fmt.Sprintf("%s to %s, tracked before: %v", network, addr, tracked), func(t *testing.T) {
					peer, arrived := newWorld(t)
					if tracked { // as Docker's or another's rules make the kernel do
						shell(t, "nft", "add table inet other; add chain inet other c { type nat hook output priority 0; }; add rule inet other c ct state established counter")
					}
					start(t, peer, 0, "echo", "far", addr).line()
					flow := start(t, "", jobUser, "hold", network, addr)
					flow.line()
					apply(t, worldPlan())
					// What was under way as the rules came may still arrive; once the
					// kernel has answered another question it has.
					shell(t, "ip", "-n", peer, "link")
					before := arrived.number()
					for sent := flow.number(); flow.number() < sent+100; {
					}
					if n := arrived.number(); n != before {
						t.Errorf("%d packets of an older flow escaped", n-before)
					}
				})
			}
		}
	}
}

// TestSidecarWays says what becomes of everything that a job tries.
func TestSidecarWays(t *testing.T) {
	peer, arrived := newWorld(t)
	apply(t, worldPlan())
	start(t, "", ownUser, "echo", "gate", "[::]:3129", "127.0.0.1:5300", "[::1]:5300", "127.0.0.1:9180", "10.77.0.1:9180").line()
	start(t, "", jobUser, "echo", "job", "127.0.0.1:8080", "[::1]:8080", "10.77.0.1:8080", "127.0.0.11:4444", "127.0.0.1:1053").line()
	start(t, peer, 0, "echo", "far", "198.51.100.7:443", "[2001:db8::7]:443").line()
	for _, c := range []struct {
		does, network, addr, want string
		user                      uint32
	}{
		{"a job's TCP comes to us", "tcp", "198.51.100.7:443", "answer gate", jobUser},
		{"over IPv6 too", "tcp", "[2001:db8::7]:443", "answer gate", jobUser},
		{"and to ports that nobody serves", "tcp", "198.51.100.7:22", "answer gate", jobUser},
		{"and of root in the job", "tcp", "198.51.100.7:443", "answer gate", 0},
		{"DNS to anywhere comes to us", "udp", "198.51.100.7:53", "answer gate", jobUser},
		{"over TCP", "tcp", "198.51.100.7:53", "answer gate", jobUser},
		{"over IPv6", "udp", "[2001:db8::7]:53", "answer gate", jobUser},
		{"to Docker's resolver", "udp", "127.0.0.11:53", "answer gate", jobUser},
		{"to systemd's", "udp", "127.0.0.53:53", "answer gate", jobUser},
		{"to loopback", "tcp", "[::1]:53", "answer gate", jobUser},
		{"Docker's resolver has no other door", "udp", "127.0.0.11:4444", "refused", jobUser},
		{"nor one for TCP", "tcp", "127.0.0.11:4444", "refused", jobUser},
		{"UDP is refused at once", "udp", "198.51.100.7:443", "refused", jobUser},
		{"over IPv6", "udp", "[2001:db8::7]:443", "refused", jobUser},
		{"and to the metadata service", "udp", "169.254.169.254:80", "refused", jobUser},
		{"admin is not the job's", "tcp", "127.0.0.1:9180", "refused", jobUser},
		{"at any own address", "tcp", "10.77.0.1:9180", "refused", jobUser},
		{"other loopback is left alone", "tcp", "127.0.0.1:8080", "answer job", jobUser},
		{"over IPv6", "tcp", "[::1]:8080", "answer job", jobUser},
		{"and over UDP", "udp", "127.0.0.1:1053", "answer job", jobUser},
		{"and own addresses", "tcp", "10.77.0.1:8080", "answer job", jobUser},
		{"we get out", "tcp", "198.51.100.7:443", "answer far", ownUser},
		{"over IPv6", "tcp", "[2001:db8::7]:443", "answer far", ownUser},
		{"and over UDP", "udp", "198.51.100.7:443", "answer far", ownUser},
		{"and reach our admin", "tcp", "127.0.0.1:9180", "answer gate", ownUser},
	} {
		before := arrived.number()
		if got := start(t, "", c.user, "dial", c.network, c.addr).line(); got != c.want {
			t.Errorf("%s: %s %s as %d: %s; want %s", c.does, c.network, c.addr, c.user, got, c.want)
		}
		if n := arrived.number() - before; c.user != ownUser && n != 0 {
			t.Errorf("%s: %s %s: %d packets escaped", c.does, c.network, c.addr, n)
		}
	}
	before := arrived.settled() // our own connections have said farewell
	start(t, "", 0, "frame", "eth0").line()
	_ = exec.Command("ping", "-c", "1", "-W", "1", "198.51.100.7").Run()
	_ = exec.Command("ping", "-c", "1", "-W", "1", "2001:db8::7").Run()
	if n := arrived.number() - before; n != 0 {
		t.Errorf("frames and pings: %d packets escaped", n)
	}
	for addr, want := range map[string]string{"10.77.0.1:3129": "silence", "10.77.0.1:9180": "answer gate", "10.77.0.1:8080": "silence"} {
		if got := start(t, peer, 0, "dial", "tcp", addr).line(); got != want {
			t.Errorf("from the network to %s: %s; want %s", addr, got, want)
		}
	}
}

// TestNobodyElseIsAnswered has a job send from the address of another machine:
// whoever answers here, the kernel with an error or we ourselves, would carry
// the job's bytes out.
func TestNobodyElseIsAnswered(t *testing.T) {
	_, arrived := newWorld(t)
	const other = "[2001:db8::7]:4000"
	start(t, "", ownUser, "echo", "gate", "[::]:3129", "[::]:5300").line()
	start(t, "", jobUser, "pretend", other, "[fd77::1]:9999").line()
	if arrived.settled() == 0 {
		t.Error("nothing goes out without the tables: this test counts nothing")
	}
	apply(t, worldPlan())
	before := arrived.settled()
	for _, to := range []string{
		"[::1]:9999", "[fd77::1]:9999", // where nobody listens
		"[::1]:53", "[fd77::1]:53", "[2001:db8::9]:53", "[::1]:5300", // our resolver
		"[::1]:3129", "[fd77::1]:3129", "[2001:db8::9]:443", // our transparent listener
		"[2001:db8::7]:9999", // what is refused
	} {
		start(t, "", jobUser, "pretend", other, to).line()
		if n := arrived.number() - before; n != 0 {
			t.Fatalf("%s: %d packets escaped", to, n)
		}
	}
	if n := arrived.settled() - before; n != 0 {
		t.Errorf("%d packets escaped", n)
	}
}

// TestWhatASocketLeavesBehindGetsOut closes our own socket with most of its
// data still to be sent: those packets have no user any more.
func TestWhatASocketLeavesBehindGetsOut(t *testing.T) {
	for _, addr := range []string{"198.51.100.7:443", "[2001:db8::7]:443"} {
		peer, _ := newWorld(t)
		apply(t, worldPlan())
		far := start(t, peer, 0, "receive", addr)
		far.line()
		start(t, "", ownUser, "send", addr)
		if got, want := far.line(), fmt.Sprint(streamed, " <nil>"); got != want {
			t.Errorf("%s: %s; want %s", addr, got, want)
		}
	}
}

// TestNestedContainers puts a container behind a bridge that the job makes once
// the rules stand.
func TestNestedContainers(t *testing.T) {
	peer, arrived := newWorld(t)
	apply(t, worldPlan())
	nested := fmt.Sprintf("sp%d-%d", os.Getpid()%10000, worlds())
	shell(t, "ip", "netns", "add", nested)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", nested).Run() })
	for _, line := range [][]string{
		{"ip", "link", "add", "docker0", "type", "bridge"}, {"ip", "link", "set", "docker0", "up"},
		{"ip", "link", "add", "veth1", "type", "veth", "peer", "name", "eth0", "netns", nested},
		{"ip", "link", "set", "veth1", "master", "docker0", "up"},
		{"ip", "addr", "add", "172.17.0.1/16", "dev", "docker0"}, {"ip", "addr", "add", "fd17::1/64", "dev", "docker0", "nodad"},
		{"ip", "-n", nested, "link", "set", "lo", "up"}, {"ip", "-n", nested, "link", "set", "eth0", "up"},
		{"ip", "-n", nested, "addr", "add", "172.17.0.2/16", "dev", "eth0"}, {"ip", "-n", nested, "addr", "add", "fd17::2/64", "dev", "eth0", "nodad"},
		{"ip", "-n", nested, "route", "add", "default", "via", "172.17.0.1"}, {"ip", "-n", nested, "route", "add", "default", "via", "fd17::1"},
		{"ip", "-n", peer, "route", "add", "172.17.0.0/16", "via", "10.77.0.1"}, {"ip", "-n", peer, "route", "add", "fd17::/64", "via", "fd77::1"},
		{"sysctl", "-q", "-w", "net.ipv4.ip_forward=1"}, {"sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1"},
	} {
		shell(t, line[0], line[1:]...)
	}
	start(t, "", ownUser, "echo", "gate", "[::]:3129", "[::]:5300", "[::]:9180").line()
	start(t, peer, 0, "echo", "far", "198.51.100.7:443", "[2001:db8::7]:443").line()
	start(t, nested, 0, "echo", "nested", "[::]:8080").line()
	for _, c := range []struct{ does, from, network, addr, want string }{
		{"a container's TCP comes to us", nested, "tcp", "198.51.100.7:443", "answer gate"},
		{"over IPv6", nested, "tcp", "[2001:db8::7]:443", "answer gate"},
		{"and its DNS", nested, "udp", "198.51.100.7:53", "answer gate"},
		{"also when it asks the bridge", nested, "udp", "172.17.0.1:53", "answer gate"},
		{"over IPv6 and TCP", nested, "tcp", "[2001:db8::7]:53", "answer gate"},
		{"its UDP is refused", nested, "udp", "198.51.100.7:443", "refused"},
		{"over IPv6", nested, "udp", "[2001:db8::7]:443", "refused"},
		{"admin is not its", nested, "tcp", "172.17.0.1:9180", "refused"},
		{"at any own address", nested, "tcp", "10.77.0.1:9180", "refused"},
		{"the network does not reach it", peer, "tcp", "172.17.0.2:8080", "silence"},
		{"the job's way to it leads to us", "", "tcp", "172.17.0.2:8080", "answer gate"},
	} {
		before := arrived.number()
		if got := start(t, c.from, 0, "dial", c.network, c.addr).line(); got != c.want {
			t.Errorf("%s: %s %s: %s; want %s", c.does, c.network, c.addr, got, c.want)
		}
		if n := arrived.number() - before; n != 0 {
			t.Errorf("%s: %s %s: %d packets reached the network", c.does, c.network, c.addr, n)
		}
	}
	before := arrived.number()
	for _, addr := range []string{"198.51.100.7", "2001:db8::7"} {
		_ = exec.Command("ip", "netns", "exec", nested, "ping", "-c", "1", "-W", "1", addr).Run()
	}
	if n := arrived.number() - before; n != 0 {
		t.Errorf("pings: %d packets escaped", n)
	}
	// What it says in another's name is not answered, least of all to that one.
	before = arrived.settled()
	for addr, own := range map[string][]string{"198.51.100.7": {"172.17.0.1:53", "172.17.0.1:9999"}, "2001:db8::7": {"[fd17::1]:53", "[fd17::1]:9999"}} {
		shell(t, "ip", "-n", nested, "addr", "add", addr, "dev", "lo")
		for _, to := range own {
			start(t, nested, 0, "dial", "udp", to, addr).line()
			start(t, nested, 0, "dial", "tcp", to, addr).line()
		}
	}
	if n := arrived.settled() - before; n != 0 {
		t.Errorf("in another's name: %d packets reached the network", n)
	}
}

// TestOutsideDevices tells what leads out from the bridges of containers.
func TestOutsideDevices(t *testing.T) {
	peer, _ := newWorld(t)
	for _, line := range []string{
		"link add docker0 type bridge", "link add veth1 type veth peer name veth2", "link set veth1 master docker0",
		"link add uplink type bridge", "link set uplink up", "addr add 192.0.2.1/24 dev uplink", "route add default via 192.0.2.2",
	} {
		shell(t, "ip", append([]string{"-n", peer}, strings.Fields(line)...)...)
	}
	// Kernels put fallback devices of tunnels into every namespace.
	if got, want := start(t, peer, 0, "devices").line(), "job uplink veth2"; !strings.HasSuffix(got, want) {
		t.Errorf("%s; want %s", got, want)
	}
}
