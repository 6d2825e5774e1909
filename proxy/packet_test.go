package proxy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// packet is one from a client at loopback.
func packet(protocol uint8, to string) proxy.Packet {
	dst, err := netip.ParseAddrPort(to)
	if err != nil {
		dst = netip.AddrPortFrom(netip.MustParseAddr(to), 0)
	}
	return proxy.Packet{
		Time: time.Unix(1700000000, 0), Protocol: protocol, Size: 60,
		Src: netip.MustParseAddrPort("127.0.0.1:40000"), Dst: dst,
	}
}

const (
	icmp = 1
	tcp  = 6
	udp  = 17
	icm6 = 58
	sctp = 132
)

func TestPacketsAreRefusedWithTheReason(t *testing.T) {
	p := pool(rule("good.example:443"))
	p.Allow = append(p.Allow, allowlists.Rule{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Ports: allowlists.NewPortSet(5432)})
	w := newWorld(t, p)
	w.resolver.names = func(addr netip.Addr) []string {
		if addr == netip.MustParseAddr("140.82.121.4") {
			return []string{"good.example"}
		}
		return nil
	}
	for _, row := range []struct {
		says     string
		protocol uint8
		to       string
		via      string
		reason   allowlists.Reason
		names    string
	}{
		{"QUIC to an address of an allowed name", udp, "140.82.121.4:443", "udp", allowlists.ProtocolBlocked, "good.example"},
		{"UDP to any port", udp, "140.82.121.5:9999", "udp", allowlists.ProtocolBlocked, ""},
		{"ICMP", icmp, "140.82.121.5", "icmp", allowlists.ProtocolBlocked, ""},
		{"ICMPv6", icm6, "2a01:4f8::1", "icmp", allowlists.ProtocolBlocked, ""},
		{"SCTP", sctp, "140.82.121.5:9", "other", allowlists.ProtocolBlocked, ""},
		{"a protocol without ports", 47, "140.82.121.5", "other", allowlists.ProtocolBlocked, ""},
		{"TCP of a family that is closed", tcp, "[2a01:4f8::1]:443", "tcp", allowlists.ProtocolBlocked, ""},
		{"DNS over QUIC", udp, "140.82.121.5:853", "udp", allowlists.ResolverBypass, ""},
		{"DNS that no redirect took", udp, "140.82.121.5:53", "udp", allowlists.ResolverBypass, ""},
		{"DNS over TLS of a family that is closed", tcp, "[2a01:4f8::1]:853", "tcp", allowlists.ResolverBypass, ""},
		{"DNS to a private address", udp, "10.0.0.2:53", "udp", allowlists.ResolverBypass, ""},
		{"SCTP on the port of DNS", sctp, "140.82.121.5:53", "other", allowlists.ProtocolBlocked, ""},
		{"the metadata address", udp, "169.254.169.254:80", "udp", allowlists.SpecialAddress, ""},
		{"the metadata address on the port of DNS", udp, "169.254.169.254:53", "udp", allowlists.SpecialAddress, ""},
		{"the metadata address by ping", icmp, "169.254.169.254", "icmp", allowlists.SpecialAddress, ""},
		{"the metadata address inside IPv6", udp, "[64:ff9b::a9fe:a9fe]:80", "udp", allowlists.SpecialAddress, ""},
		{"a private address", udp, "10.8.0.1:5432", "udp", allowlists.SpecialAddress, ""},
		{"a private address and port that a cidr rule opens to TCP", udp, "10.9.0.1:5432", "udp", allowlists.ProtocolBlocked, ""},
		{"multicast", udp, "224.0.0.251:5353", "udp", allowlists.SpecialAddress, ""},
		{"our own listener", tcp, w.addr, "tcp", allowlists.SpecialAddress, ""},
	} {
		before := len(w.all())
		if outcome := w.server.ObservePacket(packet(row.protocol, row.to)); outcome != proxy.PacketRecorded {
			t.Errorf("%s: %s", row.says, outcome)
			continue
		}
		recs := w.all()[before:]
		if len(recs) != 1 {
			t.Errorf("%s: %d records", row.says, len(recs))
			continue
		}
		rec := recs[0]
		if rec.Phase != proxy.PhaseRefused || rec.Decision.Allowed() || rec.Decision.Reason != row.reason || rec.Via != row.via {
			t.Errorf("%s: %s by %s: %s, want %s by %s", row.says, rec.Phase, rec.Via, rec.Decision.Reason, row.reason, row.via)
		}
		if rec.Host != "" || rec.Addr != packet(0, row.to).Dst.Addr() || rec.Port != packet(0, row.to).Dst.Port() || rec.ClientPort != 40000 {
			t.Errorf("%s: %+v", row.says, rec)
		}
		if rec.Subject.Pool != "build" || strings.Join(rec.Names, " ") != row.names || rec.ID == "" || rec.Generation == 0 {
			t.Errorf("%s: %+v", row.says, rec)
		}
	}
}

// TestPassedPacketsOpenAndClose holds what a pool in audit lets through, and
// what it does not.
func TestPassedPacketsOpenAndClose(t *testing.T) {
	p := pool(rule("good.example:443"))
	p.Mode = allowlists.Audit
	w := newWorld(t, p)
	passed := packet(udp, "140.82.121.5:443")
	passed.Passed = true
	w.server.ObservePacket(passed)
	w.server.ObservePacket(packet(udp, "169.254.169.254:80"))
	recs := w.all()
	if len(recs) != 3 {
		t.Fatalf("%d records", len(recs))
	}
	open, end, refused := recs[0], recs[1], recs[2]
	for _, rec := range recs[:2] {
		if d := rec.Decision; !d.Allowed() || d.Reason != allowlists.AllowedByAudit || d.Would != allowlists.ProtocolBlocked {
			t.Errorf("passed: %+v", d)
		}
	}
	if open.Phase != proxy.PhaseOpen || end.Phase != proxy.PhaseClose || open.ID != end.ID || end.Sent != 60 {
		t.Errorf("%+v, then %+v", open, end)
	}
	if refused.Phase != proxy.PhaseRefused || refused.Decision.Allowed() || refused.Decision.Reason != allowlists.SpecialAddress {
		t.Errorf("metadata in audit: %+v", refused)
	}
}

func TestPacketsOfNobody(t *testing.T) {
	w := newWorld(t, pool())
	foreign := packet(udp, "140.82.121.5:443")
	foreign.Src, foreign.Iface = netip.MustParseAddrPort("192.0.2.7:1"), "br-other"
	w.server.ObservePacket(foreign)
	if recs := w.all(); len(recs) != 1 || recs[0].Decision.Reason != allowlists.NoPool || recs[0].Subject.Iface != "br-other" {
		t.Errorf("from outside every pool: %+v", recs)
	}
	if outcome := w.server.ObservePacket(proxy.Packet{}); outcome != proxy.PacketUnrecorded || len(w.all()) != 1 {
		t.Errorf("what is no IP: %s", outcome)
	}
}

// TestAFloodOfPacketsIsCounted sends one flow many times, and more flows than
// one client may have.
func TestAFloodOfPacketsIsCounted(t *testing.T) {
	w := newWorld(t, pool())
	for range 1000 {
		w.server.ObservePacket(packet(udp, "140.82.121.5:443"))
	}
	if n := len(w.all()); n != 1 {
		t.Errorf("%d records of one flow", n)
	}
	for i := range 1000 {
		w.server.ObservePacket(packet(udp, fmt.Sprintf("140.82.121.6:%d", i+1000)))
	}
	if n := len(w.all()); n != 256 {
		t.Errorf("%d records, want those of 256 flows", n)
	}
	other := packet(udp, "140.82.121.5:443")
	other.Src = netip.MustParseAddrPort("192.0.2.7:1")
	if outcome := w.server.ObservePacket(other); outcome != proxy.PacketRecorded {
		t.Errorf("another client has %s", outcome)
	}
	w.server.LostPackets(7)
	want := `
# HELP sallyport_packets_total Packets that the firewall refused or passed outside TCP and DNS: recorded, repeated, unrecorded, lost.
# TYPE sallyport_packets_total counter
sallyport_packets_total{outcome="lost"} 7
sallyport_packets_total{outcome="recorded"} 257
sallyport_packets_total{outcome="repeated"} 999
sallyport_packets_total{outcome="unrecorded"} 745
`
	if err := testutil.GatherAndCompare(w.registry, strings.NewReader(want), "sallyport_packets_total"); err != nil {
		t.Error(err)
	}
}
