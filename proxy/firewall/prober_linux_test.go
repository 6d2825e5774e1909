package firewall_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"sallyport/proxy/firewall"
)

// TestProbesSeeWhatIsTakenAway takes one rule after the other away by hand, and
// has a child of the job's user try.
func TestProbesSeeWhatIsTakenAway(t *testing.T) {
	newWorld(t)
	child := start(t, "", jobUser, "probe")
	p := firewall.NewProber(child.in, child)
	gate := []string{"127.0.0.1", "[::1]"}
	for _, host := range gate {
		takeTCP(t, host+":3129", func(conn *net.TCPConn) { p.Conn(original(conn)) })
		takeTCP(t, host+":5300", func(conn *net.TCPConn) {
			buf := make([]byte, 512)
			if n, _ := conn.Read(buf); n > 2 && p.Name(question(buf[2:n])) {
				_, _ = conn.Write(buf[:n])
			}
		})
		takeDNS(t, host+":5300", p)
	}
	private := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9180")}
	for _, addr := range []string{"127.0.0.1:9180", "127.0.0.11:40123", "127.0.0.1:8080"} {
		takeTCP(t, addr, func(*net.TCPConn) {})
	}
	closed6 := worldPlan()
	closed6.Ways[0].TCP.V6, closed6.Ways[0].DNS.V6 = 0, 0
	audit := worldPlan()
	audit.Ways[0].PassesOther = true
	for _, row := range []struct {
		says, chain, rule string // the rule has this text; a chain alone loses all
		plan              *firewall.Plan
		want              string // in a fault; "" for none
	}{
		{"nothing is taken away", "", "", worldPlan(), ""},
		{"of one that closes IPv6", "", "", closed6, ""},
		{"of one in audit", "", "", audit, ""},
		{"the tables", "", "all", worldPlan(), "TCP to"},
		{"of one that closes IPv6", "out", "", closed6, "TCP to [2001:db8::"},
		{"IPv4's TCP", "take", "meta nfproto ipv4 meta l4proto tcp", worldPlan(), "did not come to our listener"},
		{"IPv6's TCP", "take", "meta nfproto ipv6 meta l4proto tcp", worldPlan(), "TCP to [2001:db8::"},
		{"IPv4's DNS over UDP", "take", "meta nfproto ipv4 udp dport 53", worldPlan(), "5 of 8 questions"},
		{"IPv4's DNS over TCP", "take", "meta nfproto ipv4 tcp dport 53", worldPlan(), "5 of 8 questions"},
		{"IPv6's DNS over UDP", "take", "meta nfproto ipv6 udp dport 53", worldPlan(), "7 of 8 questions"},
		{"IPv6's DNS over TCP", "take", "meta nfproto ipv6 tcp dport 53", worldPlan(), "7 of 8 questions"},
		{"what refuses addresses of other machines", "check", "its answer would leave elsewhere", worldPlan(), "from an address of another machine"},
		{"what keeps our listeners ours", "out", "@private_ports", worldPlan(), "127.0.0.1:9180, which is not the job's"},
		{"what closes the other doors of Docker's resolver", "out", "@resolvers4", worldPlan(), "127.0.0.11:40123, which is not the job's"},
		{"all that refuses", "out", "", worldPlan(), "UDP to"},
		{"a rule whose chain refuses without it", "out", "what outlives our sockets", worldPlan(), ""},
	} {
		// No t.Run: its goroutine would be on a thread outside the namespace.
		apply(t, row.plan)
		takeAway(t, row.chain, row.rule)
		doors := firewall.HiddenDoors("/proc/thread-self", row.plan.Resolvers)
		faults, err := p.Round(context.Background(), &row.plan.Ways[0], append(doors, private...))
		if err != nil || len(faults) > 0 != (row.want != "") || !strings.Contains(strings.Join(faults, "\n"), row.want) {
			t.Errorf("%s: faults %q, %v; want one with %q", row.says, faults, err, row.want)
		}
	}
}

// takeAway deletes by hand, and opens what would refuse without any rule.
func takeAway(t *testing.T, chain, rule string) {
	t.Helper()
	switch {
	case rule == "all":
		shell(t, "nft", "delete table inet sallyport; delete table netdev sallyport")
	case chain == "":
	case rule == "":
		shell(t, "nft", "flush chain inet sallyport "+chain+"; chain inet sallyport "+chain+" { policy accept; }")
	default:
		for line := range strings.Lines(shell(t, "nft", "-a", "list", "chain", "inet", "sallyport", chain)) {
			if text, handle, ok := strings.Cut(line, " # handle "); ok && strings.Contains(text, rule) {
				shell(t, "nft", "delete", "rule", "inet", "sallyport", chain, "handle", strings.TrimSpace(handle))
				return
			}
		}
		t.Fatalf("chain %s has no rule %q", chain, rule)
	}
}

// takeTCP serves connections at an address of the test's namespace.
func takeTCP(t *testing.T, addr string, serve func(*net.TCPConn)) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn.(*net.TCPConn)) }()
		}
	}()
}

// takeDNS answers the prober's questions, with themselves.
func takeDNS(t *testing.T, addr string, p *firewall.Prober) {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if p.Name(question(buf[:n])) {
				_, _ = conn.WriteTo(buf[:n], from)
			}
		}
	}()
}

// question is the name in a DNS message, without its final dot.
func question(message []byte) string {
	var parser dnsmessage.Parser
	if _, err := parser.Start(message); err != nil {
		return ""
	}
	q, err := parser.Question()
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(q.Name.String(), ".")
}

// original is where a redirected connection was sent: SO_ORIGINAL_DST, which
// both families have at one number.
func original(conn *net.TCPConn) (to netip.AddrPort) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return to
	}
	_ = raw.Control(func(fd uintptr) {
		if conn.LocalAddr().(*net.TCPAddr).IP.To4() != nil {
			// A sockaddr_in, by a call that gives as many bytes.
			if got, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
				to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(got.Multiaddr[4:8])), binary.BigEndian.Uint16(got.Multiaddr[2:4]))
			}
			return
		}
		if got, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, unix.SO_ORIGINAL_DST); err == nil {
			port := binary.NativeEndian.AppendUint16(nil, got.Addr.Port)
			to = netip.AddrPortFrom(netip.AddrFrom16(got.Addr.Addr), binary.BigEndian.Uint16(port))
		}
	})
	return to
}
