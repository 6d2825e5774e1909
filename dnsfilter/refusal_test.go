package dnsfilter_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/dnsfilter/dnstest"
)

func zone(t testing.TB) dns.HandlerFunc {
	return dnstest.Zone(t,
		"allowed.example. 60 IN A 93.184.216.34",
		"allowed.example. 60 IN AAAA 2606:2800:220:1::1",
		"allowed.example. 60 IN TXT secret",
		"a.wild.example. 60 IN CNAME hidden.example.",
		"hidden.example. 60 IN A 93.184.216.35",
		"lan.example. 60 IN A 10.1.2.3",
		"svc.example. 60 IN TXT words",
		"_http._tcp.svc.example. 60 IN SRV 1 1 80 target.elsewhere.example.",
		"target.elsewhere.example. 60 IN A 93.184.216.36",
		"private.wild.example. 60 IN A 192.168.1.1",
		"denied.wild.example. 60 IN A 93.184.216.66",
		"mixed.wild.example. 60 IN A 10.0.0.1",
		"mixed.wild.example. 60 IN A 93.184.216.37",
	)
}

// reply codes and reasons of questions that are not answered, each without a
// packet to any upstream.
func TestRefusals(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	class := func(m *dns.Msg, class uint16) *dns.Msg { m.Question[0].Qclass = class; return m }
	tests := []struct {
		rule   string
		ask    *dns.Msg
		rcode  int
		reason allowlists.Reason
	}{
		{"a name that no rule allows", question("denied.example", dns.TypeA), dns.RcodeNameError, allowlists.NotInAllowlist},
		{"the apex of a wildcard", question("wild.example", dns.TypeA), dns.RcodeNameError, allowlists.NotInAllowlist},
		{"a name that a rule denies", question("bad.wild.example", dns.TypeAAAA), dns.RcodeNameError, allowlists.DeniedByRule},
		{"a label that holds a dot", question(`evil\.wild.example`, dns.TypeA), dns.RcodeNameError, allowlists.BadHost},
		{"a label that holds NUL", question(`a\000b.wild.example`, dns.TypeA), dns.RcodeNameError, allowlists.BadHost},
		{"a label that holds a space", question(`a\ b.wild.example`, dns.TypeA), dns.RcodeNameError, allowlists.BadHost},
		{"a label that holds a percent escape", question("a%2eb.wild.example", dns.TypeA), dns.RcodeNameError, allowlists.BadHost},
		{"a number that is an address to some", question("0x7f.1", dns.TypeA), dns.RcodeNameError, allowlists.BadHost},
		{"the root", question(".", dns.TypeNS), dns.RcodeNameError, allowlists.BadHost},
		{"a service of an allowed host that no rule opens", question("_http._tcp.allowed.example", dns.TypeSRV), dns.RcodeSuccess, allowlists.DNSTypeBlocked},
		{"a service of a host that no rule allows", question("_http._tcp.denied.example", dns.TypeSRV), dns.RcodeNameError, allowlists.NotInAllowlist},
		{"an address at a service's name", question("_http._tcp.svc.example", dns.TypeA), dns.RcodeSuccess, allowlists.DNSTypeBlocked},
		{"a target that no SRV answer named", question("target.elsewhere.example", dns.TypeA), dns.RcodeNameError, allowlists.NotInAllowlist},
		{"an address that nobody was given", question("34.216.184.93.in-addr.arpa", dns.TypePTR), dns.RcodeNameError, allowlists.NotInAllowlist},
		{"a reverse name that is no address", question("93.in-addr.arpa", dns.TypePTR), dns.RcodeNameError, allowlists.NotInAllowlist},
		{"a type that the rule does not list", question("allowed.example", dns.TypeTXT), dns.RcodeSuccess, allowlists.DNSTypeBlocked},
		{"ANY", question("allowed.example", dns.TypeANY), dns.RcodeRefused, allowlists.DNSTypeBlocked},
		{"a zone transfer", question("allowed.example", dns.TypeAXFR), dns.RcodeRefused, allowlists.DNSTypeBlocked},
		{"an incremental zone transfer", question("allowed.example", dns.TypeIXFR), dns.RcodeRefused, allowlists.DNSTypeBlocked},
		{"ANY of a denied name", question("denied.example", dns.TypeANY), dns.RcodeRefused, allowlists.NotInAllowlist},
		{"the class CHAOS", class(question("allowed.example", dns.TypeA), dns.ClassCHAOS), dns.RcodeRefused, allowlists.DNSTypeBlocked},
		{"the class ANY", class(question("allowed.example", dns.TypeA), dns.ClassANY), dns.RcodeRefused, allowlists.DNSTypeBlocked},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			reply := w.ask(withEDNS(tt.ask, 4096, false))
			r := w.last()
			if reply.Rcode != tt.rcode || r.RCode != tt.rcode || r.Reason != tt.reason || r.Allowed() || len(reply.Answer) != 0 {
				t.Errorf("got %s, recorded %s, reason %s", dns.RcodeToString[reply.Rcode], dns.RcodeToString[r.RCode], r.Reason)
			}
			if e := ede(reply); e == nil || e.InfoCode != 15 || e.ExtraText != tt.reason.String() {
				t.Errorf("the extended error is %v", e)
			}
			if len(reply.Question) != 1 || reply.Question[0] != tt.ask.Question[0] {
				t.Errorf("the question came back as %v", reply.Question)
			}
			if tt.rcode != dns.RcodeRefused {
				if soa, ok := reply.Ns[0].(*dns.SOA); !ok || soa.Hdr.Ttl != 5 || soa.Minttl != 5 {
					t.Errorf("the authority section is %v", reply.Ns)
				}
			}
		})
	}
	if n := w.upstream.Packets(); n != 0 {
		t.Errorf("%d packets went upstream", n)
	}
}

func TestARefusalWithoutEDNSHasNoOPT(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	if reply := w.ask(question("denied.example", dns.TypeA)); reply.IsEdns0() != nil || reply.Rcode != dns.RcodeNameError {
		t.Errorf("got %v", reply)
	}
}

func TestBlockedREFUSED(t *testing.T) {
	w := start(t, poolBuild, zone(t), func(c *dnsfilter.Config) { c.Blocked = dnsfilter.BlockedREFUSED })
	if reply := w.ask(question("denied.example", dns.TypeA)); reply.Rcode != dns.RcodeRefused {
		t.Errorf("got %v", reply)
	}
}

func TestDeniedNamesNeverGoUpstream(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	for _, name := range []string{"denied.example", "DENIED.example", "x.denied.example", "allowed.example.denied.example"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT, dns.TypeCNAME, dns.TypeDS, dns.TypeANY} {
			w.ask(question(name, qtype))
		}
	}
	if n := w.upstream.Packets(); n != 0 {
		t.Errorf("%d packets went upstream", n)
	}
	w.ask(question("allowed.example", dns.TypeA))
	if n := w.upstream.Packets(); n != 1 {
		t.Errorf("%d packets went upstream for an allowed name", n)
	}
}

func TestMalformedMessages(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	good, _ := question("allowed.example", dns.TypeA).Pack()
	edit := func(change func([]byte) []byte) []byte { return change(append([]byte(nil), good...)) }
	set := func(at int, value byte) []byte { return edit(func(b []byte) []byte { b[at] = value; return b }) }
	version := withEDNS(question("allowed.example", dns.TypeA), 1232, false)
	version.IsEdns0().SetVersion(1)
	versionOne, _ := version.Pack()
	two := withEDNS(question("allowed.example", dns.TypeA), 1232, false)
	two.Extra = append(two.Extra, dns.Copy(two.Extra[0]))
	twoOPT, _ := two.Pack()
	// 0xC0 read as a length, not as a pointer, would end the name 193 bytes on.
	pointer := append([]byte(nil), good[:12]...)
	pointer = append(append(pointer, 0xC0, 14), good[12:len(good)-4]...)
	pointer = append(append(pointer, make([]byte, 205-len(pointer)+1)...), 0, 1, 0, 1)
	const silence = -1
	tests := []struct {
		rule  string
		raw   []byte
		rcode int
	}{
		{"less than a header", good[:11], silence},
		{"a response", set(2, good[2]|0x80), silence},
		{"NOTIFY", set(2, good[2]|4<<3), dns.RcodeNotImplemented},
		{"UPDATE", set(2, good[2]|5<<3), dns.RcodeNotImplemented},
		{"an unassigned opcode", set(2, good[2]|15<<3), dns.RcodeNotImplemented},
		{"no question", set(5, 0), dns.RcodeFormatError},
		{"two questions", set(5, 2), dns.RcodeFormatError},
		{"an answer record", set(7, 1), dns.RcodeFormatError},
		{"an authority record", set(9, 1), dns.RcodeFormatError},
		{"many additional records", set(10, 255), dns.RcodeFormatError},
		{"an additional record that is not there", set(11, 1), dns.RcodeFormatError},
		{"a name that points to itself", set(12, 0xC0), dns.RcodeFormatError},
		{"a name that points elsewhere", pointer, dns.RcodeFormatError},
		{"a label longer than the message", set(12, 63), dns.RcodeFormatError},
		{"bytes after the message", append(good[:len(good):len(good)], 0), dns.RcodeFormatError},
		{"a question cut short", good[:len(good)-1], dns.RcodeFormatError},
		{"a header alone", good[:12], dns.RcodeFormatError},
		{"two OPT records", twoOPT, dns.RcodeFormatError},
		{"EDNS version 1", versionOne, dns.RcodeBadVers},
		{"a very long message", append(good[:len(good):len(good)], make([]byte, 5000)...), dns.RcodeFormatError},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			raw := w.send("127.0.0.1", tt.raw)
			if r := w.last(); r.Reason != allowlists.DNSMalformed || r.RCode != tt.rcode || r.Allowed() {
				t.Errorf("recorded %s, rcode %d", r.Reason, r.RCode)
			}
			if tt.rcode == silence {
				return
			}
			reply := new(dns.Msg)
			if err := reply.Unpack(raw); err != nil || reply.Rcode != tt.rcode || len(raw) > len(tt.raw) {
				t.Errorf("got %d bytes, %v, %v", len(raw), reply, err)
			}
		})
	}
	if n := w.upstream.Packets(); n != 0 {
		t.Errorf("%d packets went upstream", n)
	}
}

func TestAClientWithoutAPoolGetsNoMoreBytesThanItSent(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	w.ask(question("allowed.example", dns.TypeA)) // in the cache
	for _, m := range []*dns.Msg{
		question("allowed.example", dns.TypeA),
		question("denied.example", dns.TypeA),
		question("allowed.example", dns.TypeANY),
		question(`\000.example`, dns.TypeTXT),
		question(strings.Repeat("a.", 120)+"example", dns.TypeA),
		withEDNS(question("allowed.example", dns.TypeA), 4096, true),
	} {
		wire, _ := m.Pack()
		raw := w.send("127.0.0.2", wire)
		reply := new(dns.Msg)
		if err := reply.Unpack(raw); err != nil || reply.Rcode != dns.RcodeRefused || len(raw) > len(wire) || len(reply.Answer)+len(reply.Ns)+len(reply.Extra) != 0 {
			t.Errorf("%s: %d bytes for %d, %v, %v", m.Question[0].Name, len(raw), len(wire), reply, err)
		}
		if r := w.last(); r.Reason != allowlists.NoPool || r.Subject.Pool != "" {
			t.Errorf("recorded %s", r.Reason)
		}
	}
	garbage := []byte("\x12\x34\x01\x00\x00\x02\x00\x01\x00\x00\x00\x00garbage")
	if raw := w.send("127.0.0.2", garbage); len(raw) != 12 || raw[3]&15 != dns.RcodeRefused || w.last().Reason != allowlists.NoPool {
		t.Errorf("garbage was answered with %x, recorded %s", raw, w.last().Reason)
	}
	if n := w.upstream.Packets(); n != 1 {
		t.Errorf("%d packets went upstream", n)
	}
}

func TestTheGateRefuses(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	for _, reason := range []allowlists.Reason{allowlists.NotReady, allowlists.LogDegraded, allowlists.ShuttingDown} {
		w.gate.Store(uint32(reason))
		if reply := w.ask(question("allowed.example", dns.TypeA)); reply.Rcode != dns.RcodeRefused || w.last().Reason != reason {
			t.Errorf("%s: got %v, recorded %s", reason, reply, w.last().Reason)
		}
	}
	if n := w.upstream.Packets(); n != 0 {
		t.Errorf("%d packets went upstream", n)
	}
}

func TestARateIsHeldForEachClientWithARecordEach(t *testing.T) {
	w := start(t, poolBuild, zone(t), func(c *dnsfilter.Config) { c.PerClient = 5 })
	limited := 0
	for range 50 {
		reply := w.ask(question("denied.example", dns.TypeA))
		switch reason := w.last().Reason; {
		case reason == allowlists.LimitExceeded && reply.Rcode == dns.RcodeRefused:
			limited++
		case reason != allowlists.NotInAllowlist || reply.Rcode != dns.RcodeNameError:
			t.Errorf("%s: %v", reason, reply)
		}
	}
	if limited < 30 || limited > 45 || w.count() != 50 {
		t.Errorf("%d of 50 were refused, %d recorded", limited, w.count())
	}
}

func TestAnEchoOfTheSearchListIsMarked(t *testing.T) {
	suffix, _ := allowlists.ParseHost("corp.example")
	w := start(t, poolBuild, zone(t), func(c *dnsfilter.Config) { c.Search = []allowlists.Host{suffix} })
	w.ask(question("allowed.example.corp.example", dns.TypeA))
	if r := w.last(); !r.Search || r.Reason != allowlists.NotInAllowlist {
		t.Errorf("recorded %+v", r)
	}
	w.ask(question("denied.corp.example", dns.TypeA))
	if w.last().Search {
		t.Error("a name that is no echo is marked")
	}
}

func TestTheRecordSaysWhatWasAsked(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	w.ask(question("A.Wild.Example", dns.TypeA))
	r := w.last()
	want := netip.MustParseAddr("93.184.216.35")
	if r.Name != "A.Wild.Example" || r.Host.String() != "a.wild.example" || r.Type != dns.TypeA || r.By != dnsfilter.ByClient ||
		r.Subject.Pool != "build" || r.Rule == nil || len(r.Answers) != 1 || r.Answers[0] != want || len(r.CNAMEs) != 1 ||
		r.CNAMEs[0] != "hidden.example" || r.Cached || r.Upstream != w.upstream.Addr().String() || r.ID == "" ||
		r.TTL.Seconds() != 60 || r.Generation != w.policy.Load().Generation() || r.Reason != allowlists.Allowed {
		t.Errorf("recorded %+v", r)
	}
	w.ask(question("a.wild.example", dns.TypeA))
	if r := w.last(); !r.Cached {
		t.Errorf("recorded %+v", r)
	}
	w.ask(question("none.wild.example", dns.TypeA))
	if r := w.last(); !r.Allowed() || r.Reason != allowlists.NoSuchHost || r.RCode != dns.RcodeNameError || r.Err == "" {
		t.Errorf("recorded %+v", r)
	}
}
