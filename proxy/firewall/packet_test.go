package firewall

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// ip4 is an IPv4 packet with the given protocol and contents.
func ip4(protocol uint8, fragment uint16, inner ...byte) []byte {
	head := make([]byte, 20)
	head[0], head[9] = 0x45, protocol
	binary.BigEndian.PutUint16(head[2:], uint16(20+len(inner)))
	binary.BigEndian.PutUint16(head[6:], fragment)
	copy(head[12:], netip.MustParseAddr("10.20.0.7").AsSlice())
	copy(head[16:], netip.MustParseAddr("203.0.113.9").AsSlice())
	return append(head, inner...)
}

// ip6 is an IPv6 packet whose first header is next.
func ip6(next uint8, inner ...byte) []byte {
	head := make([]byte, 40)
	head[0], head[6] = 0x60, next
	binary.BigEndian.PutUint16(head[4:], uint16(len(inner)))
	copy(head[8:], netip.MustParseAddr("fd00:20::7").AsSlice())
	copy(head[24:], netip.MustParseAddr("2001:db8::9").AsSlice())
	return append(head, inner...)
}

// ports are the first bytes of UDP from 40000 to 443.
var ports = []byte{0x9c, 0x40, 0x01, 0xbb, 0, 8, 0, 0}

func TestHeadsSayWhoWantedWhat(t *testing.T) {
	chain := func(n int) []byte { // n destination options, then UDP
		var inner []byte
		for i := range n {
			next := byte(60)
			if i == n-1 {
				next = 17
			}
			inner = append(inner, next, 0, 0, 0, 0, 0, 0, 0)
		}
		return append(inner, ports...)
	}
	for _, row := range []struct {
		says     string
		head     []byte
		protocol uint8
		src, dst string
	}{
		{"IPv4 UDP", ip4(17, 0, ports...), 17, "10.20.0.7:40000", "203.0.113.9:443"},
		{"IPv4 TCP", ip4(6, 0x4000, ports...), 6, "10.20.0.7:40000", "203.0.113.9:443"},
		{"SCTP", ip4(132, 0, ports...), 132, "10.20.0.7:40000", "203.0.113.9:443"},
		{"ICMP has no ports", ip4(1, 0, ports...), 1, "10.20.0.7:0", "203.0.113.9:0"},
		{"the first fragment has ports", ip4(17, 0x2000, ports...), 17, "10.20.0.7:40000", "203.0.113.9:443"},
		{"a later fragment has none", ip4(17, 0x2001, ports...), 17, "10.20.0.7:0", "203.0.113.9:0"},
		{"ports cut off", ip4(17, 0, 0x9c), 17, "10.20.0.7:0", "203.0.113.9:0"},
		{"IPv6 UDP", ip6(17, ports...), 17, "[fd00:20::7]:40000", "[2001:db8::9]:443"},
		{"ICMPv6", ip6(58, 128, 0), 58, "[fd00:20::7]:0", "[2001:db8::9]:0"},
		{"UDP behind an extension header", ip6(60, chain(1)...), 17, "[fd00:20::7]:40000", "[2001:db8::9]:443"},
		{"UDP behind eight", ip6(60, chain(8)...), 17, "[fd00:20::7]:40000", "[2001:db8::9]:443"},
		{"behind nine it is not looked for", ip6(60, chain(9)...), 60, "[fd00:20::7]:0", "[2001:db8::9]:0"},
		{"UDP behind authentication", ip6(51, append([]byte{17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, ports...)...), 17, "[fd00:20::7]:40000", "[2001:db8::9]:443"},
		{"the first IPv6 fragment", ip6(44, append([]byte{17, 0, 0, 1, 0, 0, 0, 1}, ports...)...), 17, "[fd00:20::7]:40000", "[2001:db8::9]:443"},
		{"a later IPv6 fragment", ip6(44, append([]byte{17, 0, 0, 8, 0, 0, 0, 1}, ports...)...), 17, "[fd00:20::7]:0", "[2001:db8::9]:0"},
		{"an extension longer than the copy", ip6(60, 17, 255, 0, 0, 0, 0, 0, 0), 17, "[fd00:20::7]:0", "[2001:db8::9]:0"},
		{"no IP", []byte{0, 1, 8, 0}, 0, "invalid AddrPort", "invalid AddrPort"},
		{"nothing", nil, 0, "invalid AddrPort", "invalid AddrPort"},
		{"half an IPv4 header", ip4(17, 0)[:19], 0, "invalid AddrPort", "invalid AddrPort"},
	} {
		var p Packet
		p.parseHead(row.head)
		if p.Protocol != row.protocol || p.Src.String() != row.src || p.Dst.String() != row.dst {
			t.Errorf("%s: %d from %s to %s, want %d from %s to %s", row.says, p.Protocol, p.Src, p.Dst, row.protocol, row.src, row.dst)
		}
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add(ip4(17, 0, ports...))
	f.Add(ip6(60, append([]byte{17, 0, 0, 0, 0, 0, 0, 0}, ports...)...))
	f.Add(ip6(44, append([]byte{17, 0, 0, 8, 0, 0, 0, 1}, ports...)...))
	f.Add(ip6(51, append([]byte{17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, ports...)...))
	f.Fuzz(func(t *testing.T, head []byte) {
		var p Packet
		p.parseHead(head)
		if p.Src.IsValid() != p.Dst.IsValid() || p.Src.Addr().Is4In6() || p.Dst.Addr().Is4In6() {
			t.Errorf("from %s to %s", p.Src, p.Dst)
		}
		if !p.Src.IsValid() && (p.Protocol != 0 || p.Size != 0) {
			t.Errorf("protocol %d without addresses", p.Protocol)
		}
		if (p.Src.Port() != 0 || p.Dst.Port() != 0) && !withPorts[p.Protocol] {
			t.Errorf("ports of protocol %d", p.Protocol)
		}
	})
}

func TestWantedForgetsTheOldest(t *testing.T) {
	var w Wanted
	now := time.Now()
	resolver := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte{9, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	client := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 16), 1}), uint16(i))
	}
	for i := range maxWanted + 10 {
		w.Note(client(i), resolver(i), now)
	}
	if got := w.Of(client(9), now); got.IsValid() {
		t.Errorf("the tenth question is remembered beyond the bound: %s", got)
	}
	if got := w.Of(client(10), now); got != resolver(10) {
		t.Errorf("the eleventh question: %s", got)
	}
	if len(w.byAsk) != maxWanted || len(w.ring) != maxWanted {
		t.Errorf("%d and %d entries, want %d", len(w.byAsk), len(w.ring), maxWanted)
	}
	w.Note(client(10), resolver(1), now.Add(time.Second))
	if got := w.Of(client(10), now.Add(time.Second)); got != resolver(1) {
		t.Errorf("the latest of a client's questions: %s", got)
	}
	if got := w.Of(client(10), now.Add(time.Minute)); got.IsValid() {
		t.Errorf("after a minute: %s", got)
	}
}
