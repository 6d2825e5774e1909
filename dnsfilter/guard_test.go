package dnsfilter_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
)

// tunnelLimits makes the guard refuse the sixth name.
func tunnelLimits(c *dnsfilter.Config) { c.Tunnel.Names = 5 }

// answersAll answers every question with what an attacker's zone may: a TTL as
// given, and something for every type.
func answersAll(ttl uint32) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: ttl}
		switch h.Rrtype {
		case dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: h, A: []byte{93, 184, 216, 34}}}
		case dns.TypeTXT:
			m.Answer = []dns.RR{&dns.TXT{Hdr: h, Txt: []string{strings.Repeat("x", 100)}}}
		}
		_ = w.WriteMsg(m)
	}
}

// name is the i-th that no person would think of.
func name(i int) string { return fmt.Sprintf("x%08d.wild.example", i) }

// TestTheGuardRefusesFurtherNames asks for more names than may be, and then for
// those of before, of which one is cached and one is not.
func TestTheGuardRefusesFurtherNames(t *testing.T) {
	w := start(t, poolBuild, answersAll(0), tunnelLimits)
	for i := range 5 {
		if m := w.ask(question(name(i), dns.TypeA)); len(m.Answer) != 1 {
			t.Fatalf("name %d: %v", i, m)
		}
	}
	before := len(w.upstream.Queries())
	for _, m := range []*dns.Msg{
		question(name(5), dns.TypeA), question(strings.ToUpper(name(6)), dns.TypeAAAA), withEDNS(question(name(7), dns.TypeHTTPS), 1232, true),
	} {
		reply := w.ask(m)
		if reply.Rcode != dns.RcodeRefused || len(reply.Answer)+len(reply.Ns) != 0 {
			t.Errorf("the reply to one name too many is %v", reply)
		}
		r := w.last()
		if r.Reason != allowlists.LimitExceeded || r.Allowed() || r.Limit != dnsfilter.LimitTunnelNames || r.Rule == nil || !strings.Contains(r.Err, "wild.example") {
			t.Errorf("its record is %+v", r)
		}
	}
	if n := len(w.upstream.Queries()); n != before {
		t.Errorf("%d refused questions went upstream", n-before)
	}
	for _, known := range []string{name(0), strings.ToUpper(name(1)), "allowed.example"} {
		if m := w.ask(question(known, dns.TypeA)); len(m.Answer) != 1 {
			t.Errorf("%s: %v", known, m)
		}
	}
	if m := w.ask(question("also-new.svc.example", dns.TypeA)); m.Rcode != dns.RcodeNameError {
		t.Errorf("a refused name is %v", m)
	}
	if r := w.last(); r.Reason != allowlists.NotInAllowlist {
		t.Errorf("a refused name has the reason %v", r.Reason)
	}
}

// TestCachedAnswersDoNotCount asks often for what is cached.
func TestCachedAnswersDoNotCount(t *testing.T) {
	w := start(t, poolBuild, answersAll(3600), func(c *dnsfilter.Config) { c.Tunnel.Bytes = 64 })
	for range 300 {
		if m := w.ask(question(name(0), dns.TypeA)); len(m.Answer) != 1 {
			t.Fatalf("%v", m)
		}
	}
}

// TestTheGuardHoldsForLookupsOfTheProxy asks for names by connections.
func TestTheGuardHoldsForLookupsOfTheProxy(t *testing.T) {
	w := start(t, poolBuild, answersAll(0), tunnelLimits)
	sub := allowlists.Subject{Client: netip.MustParseAddr("127.0.0.1"), Pool: "build"}
	for i := range 7 {
		host, err := allowlists.ParseHost(name(i))
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.server.Lookup(context.Background(), sub, host)
		var denied *allowlists.DeniedError
		switch {
		case i < 5 && err != nil:
			t.Errorf("name %d: %v", i, err)
		case i >= 5 && (!errors.As(err, &denied) || denied.Decision.Reason != allowlists.LimitExceeded || denied.Err == nil):
			t.Errorf("name %d: %v", i, err)
		}
	}
	if m := w.ask(question(name(8), dns.TypeA)); m.Rcode != dns.RcodeRefused {
		t.Errorf("the client's own question is %v", m)
	}
}

// TestAMachineHasOneCount whatever address its questions come from.
func TestAMachineHasOneCount(t *testing.T) {
	w := start(t, poolBuild, answersAll(0), tunnelLimits)
	for i := range 7 {
		host, err := allowlists.ParseHost(name(i))
		if err != nil {
			t.Fatal(err)
		}
		sub := allowlists.Subject{Client: netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}), Machine: netip.MustParseAddr("10.20.0.7"), Pool: "build"}
		if _, err := w.server.Lookup(context.Background(), sub, host); (err != nil) != (i >= 5) {
			t.Errorf("name %d: %v", i, err)
		}
	}
}

// TestTheGuardCountsServiceLabels writes data into labels before a host that a
// rule names exactly.
func TestTheGuardCountsServiceLabels(t *testing.T) {
	w := start(t, poolBuild, answersAll(0), tunnelLimits)
	for i := range 8 {
		m := w.ask(question(fmt.Sprintf("_x%08d._tcp.svc.example", i), dns.TypeTXT))
		if refused := m.Rcode == dns.RcodeRefused; refused != (i >= 5) {
			t.Errorf("name %d: %v", i, m)
		}
		if r := w.last(); i < 5 && r.Payload != 101 {
			t.Errorf("the answer's payload is %d bytes", r.Payload)
		}
	}
}

// TestTheGuardLetsNamesOfRulesPass asks for hosts that rules name exactly.
func TestTheGuardLetsNamesOfRulesPass(t *testing.T) {
	var rules strings.Builder
	for i := range 20 {
		fmt.Fprintf(&rules, "      - x%08d.listed.example\n", i)
	}
	w := start(t, "\n  build:\n    sources: [127.0.0.1/32]\n    allow:\n"+rules.String(), answersAll(0), tunnelLimits)
	for i := range 20 {
		if m := w.ask(question(fmt.Sprintf("x%08d.listed.example", i), dns.TypeA)); len(m.Answer) != 1 {
			t.Errorf("name %d: %v", i, m)
		}
	}
}

// TestTheGuardHoldsInAudit asks for names that only audit forwards.
func TestTheGuardHoldsInAudit(t *testing.T) {
	w := start(t, "\n  build:\n    mode: audit\n    sources: [127.0.0.1/32]\n    allow: [allowed.example]\n", answersAll(0), tunnelLimits)
	for i := range 8 {
		m := w.ask(question(name(i), dns.TypeA))
		if refused := m.Rcode == dns.RcodeRefused; refused != (i >= 5) {
			t.Errorf("name %d: %v", i, m)
		}
	}
}

// TestTheGuardKnowsTheBaseline asks for names that are usual.
func TestTheGuardKnowsTheBaseline(t *testing.T) {
	w := start(t, poolBuild, answersAll(0), tunnelLimits, func(c *dnsfilter.Config) {
		c.Known = func(pool, name string) bool { return pool == "build" && strings.HasPrefix(name, "x0000001") }
	})
	for i := range 10 {
		if m := w.ask(question(name(10+i), dns.TypeA)); len(m.Answer) != 1 {
			t.Errorf("usual name %d: %v", i, m)
		}
	}
}

// TestTheRateLimitNamesItsKey is what tells it from the guard.
func TestTheRateLimitNamesItsKey(t *testing.T) {
	w := start(t, poolBuild, answersAll(60), func(c *dnsfilter.Config) { c.PerClient = 1 })
	for range 2 {
		w.ask(question("allowed.example", dns.TypeA))
	}
	if r := w.last(); r.Reason != allowlists.LimitExceeded || r.Limit != "limits.dns_per_client" {
		t.Errorf("%+v", r)
	}
}
