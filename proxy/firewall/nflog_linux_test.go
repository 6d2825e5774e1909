package firewall

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace runs f in a network namespace of its own, with loopback up and
// the rules given.
func inNamespace(t *testing.T, rules string, f func()) {
	t.Helper()
	_, noNft := exec.LookPath("nft")
	if os.Geteuid() != 0 || noNft != nil {
		if os.Getenv("SALLYPORT_CI") == "1" {
			t.Fatal("CI must have root and nft")
		}
		t.Skip("SKIPPED on this machine: needs root and nft")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		for _, command := range []string{"ip link set lo up", "nft -f -"} {
			cmd := exec.Command("sh", "-c", command)
			cmd.Stdin = strings.NewReader(rules)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
				return
			}
		}
		f()
	}()
	<-done
}

const logRules = `table inet t {
	chain out {
		type filter hook output priority -150; policy accept;
		ip daddr 203.0.113.0/24 udp dport 53 log prefix "sallyport dns " group 7
		ip daddr 203.0.113.0/24 udp dport 443 log prefix "sallyport refused " group 7 reject
		ip6 daddr 2001:db8::/32 meta l4proto udp log prefix "sallyport refused " group 7 reject
	}
	chain nat {
		type nat hook output priority -110;
		udp dport 53 redirect to :5353
	}
}
`

// send sends one datagram; the error of what is refused is none of its business.
func send(t *testing.T, c net.PacketConn, to string) {
	t.Helper()
	_, _ = c.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
}

func TestPacketLogHandsOverWhatRulesLog(t *testing.T) {
	inNamespace(t, logRules+"\n", func() {
		mustRun(t, "ip addr add 10.1.0.1/24 dev lo; ip route add default dev lo; ip -6 addr add fd00:1::1/64 dev lo; ip -6 route add default dev lo")
		packets := make(chan Packet, 16)
		l, err := OpenPacketLog(7, func(p Packet) { packets <- p })
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		if _, err := OpenPacketLog(7, func(Packet) {}); err == nil || !strings.Contains(err.Error(), "no other program") {
			t.Errorf("a second reader: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		served := make(chan error)
		go func() { served <- l.Serve(ctx) }()
		c, err := net.ListenPacket("udp", ":0")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for _, row := range []struct{ to, prefix string }{
			{"203.0.113.9:443", LogRefused}, {"[2001:db8::9]:99", LogRefused}, {"203.0.113.9:53", LogDNS},
		} {
			send(t, c, row.to)
			select {
			case p := <-packets:
				if p.Dst.String() != row.to || p.Prefix != row.prefix || p.Out != "lo" || p.Protocol != ProtocolUDP || !p.HasUID || p.UID != 0 {
					t.Errorf("%s came as %+v", row.to, p)
				}
				if p.Src.Port() != uint16(c.LocalAddr().(*net.UDPAddr).Port) || time.Since(p.Time) > time.Minute {
					t.Errorf("%s came as %+v", row.to, p)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s was not logged", row.to)
			}
		}
		cancel()
		if err := <-served; err != nil || l.Lost() != 0 {
			t.Errorf("%v, %d lost", err, l.Lost())
		}
	})
}

// TestDrainIsAheadOfTheRedirect asks many questions and looks, at each that
// arrived, whether the resolver it was sent to is known: always, without waiting.
func TestDrainIsAheadOfTheRedirect(t *testing.T) {
	inNamespace(t, logRules, func() {
		mustRun(t, "ip addr add 10.1.0.1/24 dev lo; ip route add default dev lo")
		var wanted Wanted
		l, err := OpenPacketLog(7, func(p Packet) { wanted.Note(p.Src, p.Dst.Addr(), time.Now()) })
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		server, err := net.ListenPacket("udp", "127.0.0.1:5353")
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { _ = l.Serve(ctx) }()
		buffer := make([]byte, 64)
		for i := range 2000 {
			c, err := net.ListenPacket("udp", fmt.Sprintf("10.1.0.1:%d", 20000+i)) // each port once
			if err != nil {
				t.Error(err)
				return
			}
			to := fmt.Sprintf("203.0.113.%d", i%250+1)
			send(t, c, to+":53")
			_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, from, err := server.ReadFrom(buffer)
			c.Close()
			if err != nil {
				t.Errorf("question %d did not come: %v", i, err)
				return
			}
			l.Drain()
			client := from.(*net.UDPAddr).AddrPort()
			if got := wanted.Of(netip.AddrPortFrom(client.Addr().Unmap(), client.Port()), time.Now()); got.String() != to {
				t.Errorf("question %d from %s went to %s, and %s is known", i, client, to, got)
				return
			}
		}
	})
}

// TestOverrunsAreCounted sends more than the kernel keeps while nobody reads.
func TestOverrunsAreCounted(t *testing.T) {
	inNamespace(t, logRules, func() {
		mustRun(t, "ip addr add 10.1.0.1/24 dev lo; ip route add default dev lo")
		seen := uint64(0)
		l, err := OpenPacketLog(7, func(Packet) { seen++ })
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		_ = l.raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8192)
		})
		c, err := net.ListenPacket("udp", "10.1.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		const sent = 300
		for range sent {
			send(t, c, "203.0.113.9:443")
		}
		l.Drain()
		send(t, c, "203.0.113.9:443") // shows the gap
		l.Drain()
		if l.Lost() == 0 || seen+l.Lost() != sent+1 {
			t.Errorf("%d handed over and %d lost of %d", seen, l.Lost(), sent+1)
		}
	})
}

func mustRun(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}
