package dnsfilter_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/dnsfilter/dnstest"
)

// reply makes a handler that answers every question with these records, given
// as in a zone file, with %s for the name asked.
func reply(t testing.TB, answer []string, rest ...string) dns.HandlerFunc {
	parse := func(line, name string) dns.RR {
		rr, err := dns.NewRR(strings.ReplaceAll(line, "%s", name))
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		return rr
	}
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.AuthenticatedData = true
		for _, line := range answer {
			m.Answer = append(m.Answer, parse(line, q.Question[0].Name))
		}
		for _, line := range rest {
			m.Ns = append(m.Ns, parse(line, q.Question[0].Name))
			m.Extra = append(m.Extra, parse(line, q.Question[0].Name))
		}
		_ = w.WriteMsg(m)
	}
}

func TestOnlyTheChainThatWasAskedForIsKept(t *testing.T) {
	w := start(t, poolBuild, reply(t, []string{
		"unrelated.example. 60 IN A 93.184.216.99",
		"end.example. 60 IN A 93.184.216.2",
		"middle.example. 60 IN CNAME end.example.",
		"%s 60 IN CNAME middle.example.",
		"%s 60 IN TXT words",
		"%s 60 IN NS ns.evil.example.",
		"bad.wild.example. 60 IN A 93.184.216.98",
		"%s 60 CH A 93.184.216.97",
	}, "example. 60 IN NS ns.evil.example.", "ns.evil.example. 60 IN A 93.184.216.96"))
	got := w.ask(question("allowed.example", dns.TypeA))
	if len(got.Answer) != 3 || !slices.Equal(addrs(got), []string{"93.184.216.2"}) || len(got.Ns)+len(got.Extra) != 0 {
		t.Errorf("got %v", got)
	}
	if r := w.last(); !slices.Equal(r.CNAMEs, []string{"middle.example", "end.example"}) {
		t.Errorf("recorded the chain %v", r.CNAMEs)
	}
	// What came unasked is in no cache and in no book.
	w.ask(question("unrelated.example", dns.TypeA))
	w.ask(question("99.216.184.93.in-addr.arpa", dns.TypePTR))
	if r := w.last(); r.Allowed() {
		t.Error("an unsolicited record was remembered")
	}
}

func TestAChainIsBounded(t *testing.T) {
	var long []string
	for i := range 40 {
		long = append(long, fmt.Sprintf("n%d.wild.example. 60 IN CNAME n%d.wild.example.", i, i+1))
	}
	long = append(long, "n40.wild.example. 60 IN A 93.184.216.2",
		"loop.wild.example. 60 IN CNAME pool.wild.example.", "pool.wild.example. 60 IN CNAME loop.wild.example.")
	w := start(t, poolBuild, reply(t, long))
	for _, name := range []string{"n0.wild.example", "loop.wild.example"} {
		if got := w.ask(question(name, dns.TypeA)); got.Rcode != dns.RcodeServerFailure || len(got.Answer) != 0 || w.last().Reason != allowlists.UpstreamFailed {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := w.ask(question("n30.wild.example", dns.TypeA)); len(got.Answer) != 11 {
		t.Errorf("a chain of ten came back as %v", got)
	}
}

func TestSpecialAddressesAreTakenOut(t *testing.T) {
	for _, addr := range []string{
		"127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "169.254.169.254", "168.63.129.16", "0.0.0.0", "224.0.0.1",
		"::1", "::", "fe80::1", "fd00:ec2::254", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:a00:1::", "2001:0:a00:1::",
	} {
		t.Run(addr, func(t *testing.T) {
			qtype, kind := dns.TypeA, "A"
			if strings.Contains(addr, ":") {
				qtype, kind = dns.TypeAAAA, "AAAA"
			}
			// Text cannot spell every form of an AAAA record, so the bytes are set.
			w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
				m := new(dns.Msg).SetReply(q)
				h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: qtype, Class: dns.ClassINET, Ttl: 60}
				if kind == "A" {
					m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.ParseIP(addr)})
				} else {
					m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: net.ParseIP(addr).To16()})
				}
				_ = rw.WriteMsg(m)
			})
			got := w.ask(question("allowed.example", qtype))
			r := w.last()
			if got.Rcode != dns.RcodeSuccess || len(got.Answer) != 0 || len(got.Ns) != 1 {
				t.Errorf("got %v", got)
			}
			if r.Reason != allowlists.SpecialAddress || r.Allowed() || !slices.Equal(r.Removed, []netip.Addr{netip.MustParseAddr(addr)}) || len(r.Answers) != 0 {
				t.Errorf("recorded %+v", r)
			}
			if names := w.server.Names(r.Subject, netip.MustParseAddr(addr)); len(names) != 0 {
				t.Errorf("the book holds %v", names)
			}
		})
	}
}

func TestAddressesAreJudgedForEachPoolAtEachReply(t *testing.T) {
	w := start(t, poolBuild+`
  lan:
    sources: [127.0.0.2/32]
    resolves_to: [10.0.0.0/8]
    allow: ["*.wild.example"]
`, zone(t))
	mixed := question("mixed.wild.example", dns.TypeA)
	for range 2 { // from upstream, then from the cache
		if got := addrs(w.askAs("127.0.0.2", mixed)); len(got) != 2 {
			t.Errorf("the pool that resolves to 10/8 got %v", got)
		}
		if got := addrs(w.ask(mixed)); !slices.Equal(got, []string{"93.184.216.37"}) {
			t.Errorf("the pool that does not got %v", got)
		}
		if r := w.last(); len(r.Removed) != 1 || !r.Allowed() || r.Reason != allowlists.Allowed {
			t.Errorf("recorded %+v", r)
		}
	}
	if got := addrs(w.ask(question("lan.example", dns.TypeA))); !slices.Equal(got, []string{"10.1.2.3"}) {
		t.Errorf("an address that the rule opens: %v", got)
	}
	if got := w.ask(question("denied.wild.example", dns.TypeA)); len(got.Answer) != 0 || w.last().Reason != allowlists.DeniedByRule {
		t.Errorf("an address that a rule denies: %v, %s", got, w.last().Reason)
	}
}

func TestRebindingNeverShowsThePrivateAddress(t *testing.T) {
	var n atomic.Int64
	w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
		turn := n.Add(1) % 3
		m := new(dns.Msg).SetReply(q)
		h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}
		if turn != 1 {
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.IPv4(169, 254, 169, 254)})
		}
		if turn != 2 {
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.IPv4(93, 184, 216, 34)})
		}
		_ = rw.WriteMsg(m)
	})
	for range 1000 {
		for _, addr := range addrs(w.ask(question("allowed.example", dns.TypeA))) {
			if addr != "93.184.216.34" {
				t.Fatalf("answered %s", addr)
			}
		}
	}
	if n.Load() < 1000 {
		t.Errorf("an answer with TTL 0 was kept: %d questions went upstream", n.Load())
	}
}

func TestServiceRecordsLoseKeysAndHints(t *testing.T) {
	w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		rr, err := dns.NewRR(q.Question[0].Name + ` 60 IN HTTPS 1 . alpn=h2 ipv4hint=10.0.0.1,93.184.216.34 ech="AAAA" ipv6hint=fd00::1`)
		if err != nil {
			t.Error(err)
		}
		only, err := dns.NewRR(q.Question[0].Name + ` 60 IN HTTPS 2 . mandatory=ech ech="AAAA" alpn=h2`)
		if err != nil {
			t.Error(err)
		}
		m.Answer = []dns.RR{rr, only}
		_ = rw.WriteMsg(m)
	})
	got := w.ask(question("allowed.example", dns.TypeHTTPS))
	if len(got.Answer) != 1 {
		t.Fatalf("got %v", got)
	}
	text := got.Answer[0].String()
	if strings.Contains(text, "ech") || strings.Contains(text, "10.0.0.1") || strings.Contains(text, "ipv6hint") || !strings.Contains(text, `ipv4hint="93.184.216.34"`) {
		t.Errorf("got %s", text)
	}
	r := w.last()
	if len(r.Answers) != 1 || len(r.Removed) != 2 || !r.Allowed() {
		t.Errorf("recorded %+v", r)
	}
	if names := w.server.Names(r.Subject, r.Answers[0]); !slices.Equal(names, []string{"allowed.example"}) {
		t.Errorf("the book holds %v", names)
	}
}

func TestSRVTargetsFollow(t *testing.T) {
	w := start(t, poolBuild+`
  other:
    sources: [127.0.0.2/32]
    allow: [allowed.example]
`, zone(t))
	target := question("target.elsewhere.example", dns.TypeA)
	if w.ask(target); w.last().Allowed() {
		t.Fatal("the target was answered before an SRV answer named it")
	}
	if got := w.ask(question("_http._tcp.svc.example", dns.TypeSRV)); len(got.Answer) != 1 {
		t.Fatalf("got %v", got)
	}
	if got := w.ask(target); !slices.Equal(addrs(got), []string{"93.184.216.36"}) || w.last().Rule.Host.String() != "svc.example" {
		t.Errorf("got %v", got)
	}
	if names := w.server.Names(w.last().Subject, netip.MustParseAddr("93.184.216.36")); !slices.Equal(names, []string{"svc.example"}) {
		t.Errorf("the book holds %v", names)
	}
	if w.ask(question("target.elsewhere.example", dns.TypeTXT)); w.last().Allowed() {
		t.Error("a target's TXT was answered")
	}
	if w.askAs("127.0.0.2", target); w.last().Allowed() {
		t.Error("another pool's target was answered")
	}
	w.policy.Store(compile(t, "\n  build: {sources: [127.0.0.1/32], allow: [allowed.example]}\n"))
	if w.ask(target); w.last().Allowed() {
		t.Error("a target outlived the rule that it followed from")
	}
}

func TestATypeThatTheRuleListsIsAnswered(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	if got := w.ask(question("svc.example", dns.TypeTXT)); len(got.Answer) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestReverseNamesComeFromTheBook(t *testing.T) {
	w := start(t, poolBuild+`
  other:
    sources: [127.0.0.2/32]
    allow: [allowed.example]
`, zone(t))
	w.ask(question("allowed.example", dns.TypeA))
	w.ask(question("allowed.example", dns.TypeAAAA))
	packets := w.upstream.Packets()
	six, _ := dns.ReverseAddr("2606:2800:220:1::1")
	for _, name := range []string{"34.216.184.93.in-addr.arpa", "34.216.184.93.IN-ADDR.arpa", six} {
		got := w.ask(question(name, dns.TypePTR))
		if ptr, ok := got.Answer[0].(*dns.PTR); !ok || ptr.Ptr != "allowed.example." || ptr.Hdr.Name != dns.Fqdn(name) {
			t.Errorf("%s: %v", name, got)
		}
		if r := w.last(); !r.Reverse || !r.Allowed() {
			t.Errorf("recorded %+v", r)
		}
	}
	if got := w.askAs("127.0.0.2", question("34.216.184.93.in-addr.arpa", dns.TypePTR)); len(got.Answer) != 0 || w.last().Allowed() {
		t.Errorf("another pool was told: %v", got)
	}
	if n := w.upstream.Packets(); n != packets {
		t.Errorf("%d packets went upstream", n-packets)
	}
}

func TestTheBookIsWrittenBeforeTheReplyLeaves(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	for i := range 200 {
		r := w.ask(question(fmt.Sprintf("a%s.wild.example", strings.Repeat("a", i%5)), dns.TypeA))
		for _, addr := range addrs(r) {
			if names := w.server.Names(w.last().Subject, netip.MustParseAddr(addr)); len(names) == 0 {
				t.Fatalf("%s was answered before it was written down", addr)
			}
		}
	}
}

func TestTheCaseOfTheQuestionComesBack(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	for _, name := range []string{"aLLoWed.ExamPLE.", "ALLOWED.EXAMPLE.", "allowed.example."} {
		got := w.ask(question(name, dns.TypeA))
		if got.Question[0].Name != name || got.Answer[0].Header().Name != name {
			t.Errorf("%s came back as %v", name, got)
		}
	}
	if n := w.upstream.Packets(); n != 1 {
		t.Errorf("%d packets went upstream for three spellings of one name", n)
	}
	for _, q := range w.upstream.Received() {
		if opt := q.Msg.IsEdns0(); opt != nil && len(opt.Option) != 0 {
			t.Errorf("options went upstream: %v", opt)
		}
	}
}

func TestNothingOfTheClientsMessageButTheQuestionTravels(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	m := withEDNS(question("allowed.example", dns.TypeA), 4096, false)
	m.AuthenticatedData, m.RecursionDesired = true, false
	opt := m.IsEdns0()
	opt.Option = append(opt.Option,
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(192, 0, 2, 0).To4()},
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"},
		&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("a covert message")})
	got := w.ask(m)
	sent := w.upstream.Received()[0].Msg
	if o := sent.IsEdns0(); o == nil || len(o.Option) != 0 || o.UDPSize() != 1232 || sent.AuthenticatedData || !sent.RecursionDesired || len(sent.Extra) != 1 {
		t.Errorf("upstream was sent %v", sent)
	}
	if o := got.IsEdns0(); o == nil || len(o.Option) != 0 || o.UDPSize() != 1232 {
		t.Errorf("the client was sent %v", got)
	}
}

func TestDOAndCDAreKeptApart(t *testing.T) {
	w := start(t, poolBuild, reply(t, []string{
		"%s 60 IN A 93.184.216.34",
		"%s 60 IN RRSIG A 8 2 60 20300101000000 20200101000000 1 example. AAAA",
	}))
	plainQuestion := question("allowed.example", dns.TypeA)
	signed := withEDNS(question("allowed.example", dns.TypeA), 1232, true)
	unchecked := question("allowed.example", dns.TypeA)
	unchecked.CheckingDisabled = true
	for range 2 {
		if got := w.ask(plainQuestion); len(got.Answer) != 1 {
			t.Errorf("without DO: %v", got)
		}
		if got := w.ask(signed); len(got.Answer) != 2 || !got.IsEdns0().Do() {
			t.Errorf("with DO: %v", got)
		}
		if got := w.ask(unchecked); !got.CheckingDisabled {
			t.Errorf("with CD: %v", got)
		}
	}
	if n := w.upstream.Packets(); n != 3 {
		t.Errorf("%d packets went upstream instead of 3", n)
	}
}

func TestAnswersAreCutForUDP(t *testing.T) {
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("%%s 60 IN A 93.184.216.%d", i+1))
	}
	w := start(t, poolBuild, reply(t, many), func(c *dnsfilter.Config) { c.Upstreams = []string{"tcp://" + c.Upstreams[0]} })
	for _, tt := range []struct {
		ask   *dns.Msg
		limit int
	}{
		{question("allowed.example", dns.TypeA), 512},
		{withEDNS(question("allowed.example", dns.TypeA), 700, false), 700},
		{withEDNS(question("allowed.example", dns.TypeA), 100, false), 512},
		{withEDNS(question("allowed.example", dns.TypeA), 65535, false), 1232},
	} {
		wire, _ := tt.ask.Pack()
		raw := w.send("127.0.0.1", wire)
		got := new(dns.Msg)
		if err := got.Unpack(raw); err != nil || !got.Truncated || len(raw) > tt.limit || len(got.Answer) == 0 {
			t.Errorf("at %d: %d bytes, %v, %v", tt.limit, len(raw), err, got.MsgHdr)
		}
	}
	client := &dns.Client{Net: "tcp", Timeout: patience}
	got, _, err := client.Exchange(question("allowed.example", dns.TypeA), w.addr.String())
	if err != nil || got.Truncated || len(got.Answer) != 99 { // poolBuild denies one
		t.Errorf("over TCP: %d records, %v", len(got.Answer), err)
	}
}

func TestTTLsAreCappedAndCountedDown(t *testing.T) {
	w := start(t, poolBuild, reply(t, []string{"%s 86400 IN A 93.184.216.34"}), func(c *dnsfilter.Config) { c.MaxTTL = time.Minute })
	for range 2 {
		if got := w.ask(question("allowed.example", dns.TypeA)); got.Answer[0].Header().Ttl > 60 {
			t.Errorf("got %v", got)
		}
	}
}

func TestNegativeAnswersAreKeptForTheirSOA(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	for range 3 {
		got := w.ask(question("none.wild.example", dns.TypeA))
		if got.Rcode != dns.RcodeNameError || len(got.Ns) != 1 || got.Ns[0].Header().Ttl > 30 {
			t.Errorf("got %v", got)
		}
		got = w.ask(question("lan.example", dns.TypeAAAA))
		if got.Rcode != dns.RcodeSuccess || len(got.Answer) != 0 || len(got.Ns) != 1 {
			t.Errorf("got %v", got)
		}
	}
	if n := w.upstream.Packets(); n != 2 {
		t.Errorf("%d packets went upstream instead of 2", n)
	}
}

func TestAnSOAFromElsewhereIsNotBelieved(t *testing.T) {
	w := start(t, poolBuild, reply(t, nil, "evil.example. 3600 IN SOA ns.evil.example. a.evil.example. 1 1 1 1 3600"))
	for range 2 {
		if got := w.ask(question("allowed.example", dns.TypeA)); len(got.Ns) != 0 || got.Rcode != dns.RcodeSuccess {
			t.Errorf("got %v", got)
		}
	}
	if n := w.upstream.Packets(); n != 2 {
		t.Errorf("an empty answer without an SOA was kept: %d packets", n)
	}
}

func TestFailuresAreVerdictAllowWithAnError(t *testing.T) {
	w := start(t, poolBuild, dnstest.Answer(dns.RcodeServerFailure))
	got := w.ask(question("allowed.example", dns.TypeA))
	if r := w.last(); got.Rcode != dns.RcodeServerFailure || !r.Allowed() || r.Reason != allowlists.UpstreamFailed || r.Err == "" {
		t.Errorf("got %v, recorded %+v", got, r)
	}
}

func TestASilentUpstreamTimesOut(t *testing.T) {
	w := start(t, poolBuild, func(dns.ResponseWriter, *dns.Msg) {}, func(c *dnsfilter.Config) {
		c.QueryTimeout = 200 * time.Millisecond
	})
	got := w.ask(question("allowed.example", dns.TypeA))
	if r := w.last(); got.Rcode != dns.RcodeServerFailure || !r.Allowed() || r.Reason != allowlists.TimedOut || r.Err == "" {
		t.Errorf("got %v, recorded %+v", got, r)
	}
}

func TestStaleAnswersServeWhileUpstreamsFail(t *testing.T) {
	var broken atomic.Bool
	w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
		if broken.Load() {
			dnstest.Answer(dns.RcodeServerFailure)(rw, q)
			return
		}
		reply(t, []string{"%s 1 IN A 93.184.216.34"})(rw, q)
	}, func(c *dnsfilter.Config) { c.Stale = time.Hour })
	w.ask(question("allowed.example", dns.TypeA))
	broken.Store(true)
	deadline := time.Now().Add(patience)
	for { // each question is an event; the answer's second ends in between
		got := w.ask(question("allowed.example", dns.TypeA))
		if !slices.Equal(addrs(got), []string{"93.184.216.34"}) {
			t.Fatalf("got %v", got)
		}
		if w.upstream.Packets() > 1 {
			if ttl := got.Answer[0].Header().Ttl; ttl != 30 || !w.last().Cached {
				t.Errorf("a stale answer has TTL %d, recorded %+v", ttl, w.last())
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the answer never became old")
		}
	}
}
