package dnsfilter

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"sallyport/allowlists"
)

// quickPools are the policies that FuzzFastAgainstSlow picks from, for the
// clients 10.0.0.1 and 10.0.0.3.
var quickPools = []string{
	fuzzPools,
	`pools:
  build:
    sources: [10.0.0.0/24]
    mode: audit
    allow: [allowed.example]
    deny: [bad.wild.example]
`,
	`pools:
  build:
    sources: [10.0.0.0/24]
    allow:
      - "*.example"
      - {host: special.example, resolves_to: [10.0.0.0/8]}
      - {host: ended.wild.example, expires: 2020-01-01}
    deny: [{cidr: 93.184.216.35/32}, special.wild.example]
    quiet: [quiet.test]
  other:
    sources: [10.0.0.3/32]
    allow: [other.example]
`,
}

// quickZone answers as upstreams do, in every form that replies differ in.
func quickZone(name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.Response = true
	lines := []string{"%s 3000 IN A 93.184.216.34", "%s 3000 IN AAAA 2606:2800:220:1::1"}
	switch label, _, _ := strings.Cut(name, "."); label {
	case "alias":
		lines = []string{"%s 3000 IN CNAME b.cdn.example.", "b.cdn.example. 2000 IN CNAME c.other.", "c.other. 2500 IN A 93.184.216.34", "c.other. 2500 IN AAAA 2606::1"}
	case "_dns", "svc":
		lines = []string{"%s 3000 IN TXT some-words", "%s 3000 IN SRV 1 1 53 followed.test."}
	case "many":
		for i := range 60 {
			lines = append(lines, fmt.Sprintf("%%s 3000 IN A 93.184.217.%d", i))
		}
	case "missing":
		m.Rcode, lines = dns.RcodeNameError, nil
		rr, _ := dns.NewRR("example. 3000 IN SOA ns.example. host.example. 1 2 3 4 3000")
		m.Ns = []dns.RR{rr}
	case "empty":
		rr, _ := dns.NewRR("example. 3000 IN SOA ns.other. host.other. 1 2 3 4 3000")
		m.Ns, lines = []dns.RR{rr}, nil
	case "special":
		lines = []string{"%s 3000 IN A 10.0.0.9", "%s 3000 IN A 93.184.216.35", "%s 3000 IN AAAA fd00::1", "%s 3000 IN A 93.184.216.34"}
	case "web":
		lines = append(lines, "%s 3000 IN HTTPS 1 . alpn=h2 ipv4hint=93.184.216.34,10.0.0.1", "%s 3000 IN TXT some-words")
	}
	for _, line := range lines {
		rr, err := dns.NewRR(strings.ReplaceAll(line, "%s", name))
		if err != nil {
			return nil, err
		}
		if rr.Header().Rrtype == qtype || rr.Header().Rrtype == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m, nil
}

// quickServer is offline with a policy of quickPools, and without a meter: asked
// for as fast as by a fuzzer, names are a tunnel.
func quickServer(t testing.TB, text string, change ...func(*Config)) (*Server, func() []QueryRecord) {
	s, records := offline(t, quickZone)
	s.cfg.Policy = policyOf(t, text)
	s.meter = unmetered()
	for _, f := range change {
		f(&s.cfg)
	}
	return s, records
}

func policyOf(t testing.TB, text string) func() *allowlists.Policy {
	t.Helper()
	file, report := allowlists.Load([]allowlists.Source{{Name: "quick.yaml", Text: []byte(text)}},
		func(string) (string, bool) { return "", false }, time.Now())
	if file == nil {
		t.Fatalf("the policy does not load: %v", report)
	}
	return func() *allowlists.Policy { return file.Policy }
}

// fast answers by quick alone; nil if it does not.
func fast(t testing.TB, s *Server, raw []byte, from origin) []byte {
	t.Helper()
	record := QueryRecord{Name: "of another", RCode: 77, Answers: []netip.Addr{netip.IPv6Loopback()}}
	before := bytes.Clone(raw)
	reply, made := s.quick(raw, &from, time.Now(), nil, &record, true)
	if made == nil {
		return nil
	}
	if !bytes.Equal(raw, before) {
		t.Fatal("the question was written to")
	}
	if made.entry == nil {
		s.cfg.ObserveRefused([]QueryRecord{record})
	} else if !s.observe(made, &record) {
		return failure(reply, made)
	}
	return reply
}

// timeless is a record without what differs between two of the same question.
func timeless(r QueryRecord) QueryRecord {
	r.ID, r.Time, r.Took = "", time.Time{}, 0
	return r
}

// quickQuestion makes a message from a name and knobs.
func quickQuestion(t testing.TB, name string, qtype uint16, knobs uint16) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m.Id = knobs * 257
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = knobs&1 != 0, knobs&2 != 0, knobs&4 != 0
	if knobs&8 != 0 {
		m.SetEdns0([]uint16{0, 512, 1232, 4096}[knobs>>6&3], knobs&16 != 0)
		if knobs&32 != 0 {
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"})
		}
	}
	return packed(t, m)
}

// quickNames are questions that quick has to do with.
var quickNames = []string{
	"allowed.example", "ALLowed.ExamplE", "a.wild.example", "alias.wild.example", "aLias.wild.EXAMPLE", "many.wild.example",
	"missing.wild.example", "empty.wild.example", "special.example", "special.wild.example", "web.wild.example", "bad.wild.example",
	"ended.wild.example", "denied.test", "quiet.test", "svc.example", "_dns._udp.svc.example", "1.2.0.192.in-addr.arpa", "0x7f.1", "xn--mnchen-3ya.example",
	"a", strings.Repeat("a23456789.", 24) + "wild.example",
}

// FuzzFastAgainstSlow asks the same by both ways: where quick answers at all, its
// reply is that of handle to the byte, and so are the record and the book.
func FuzzFastAgainstSlow(f *testing.F) {
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeCNAME, dns.TypeTXT, dns.TypeSRV, dns.TypePTR, dns.TypeANY}
	for i, name := range quickNames {
		for j, qtype := range types {
			f.Add(quickQuestion(f, name, qtype, uint16(i*len(types)+j)|1), uint8(i+j))
		}
		for knobs := uint16(0); knobs < 256; knobs += 7 {
			f.Add(quickQuestion(f, name, dns.TypeA, knobs), uint8(i)+uint8(knobs))
		}
	}
	for _, spoil := range []func([]byte) []byte{
		func(b []byte) []byte { return append(b, 0) },
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { b[2] |= 0x80; return b },
		func(b []byte) []byte { b[2] |= 0x10; return b },
		func(b []byte) []byte { b[3] |= 0x40; return b },
		func(b []byte) []byte { b[5] = 2; return b },
		func(b []byte) []byte { b[12] = 0xC0; return b },
		func(b []byte) []byte { b[14] = '.'; return b },
		func(b []byte) []byte { b[len(b)-1] = 3; return b },
		func(b []byte) []byte { b[11] = 1; return append(b, 0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0) },
		func(b []byte) []byte { b[11] = 1; return append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 15, 0, 0) },
		func(b []byte) []byte { b[11] = 2; return append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0) },
		func(b []byte) []byte { b[11] = 1; return append(b, 192, 12, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0) },
		func(b []byte) []byte { b[11] = 1; return append(b, 1, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0) },
		func(b []byte) []byte { b[11] = 1; return append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0) },
		func(b []byte) []byte { b[11] = 1; return append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0, 10, 0, 2, 1) },
		func(b []byte) []byte {
			b[11] = 1
			return append(append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0, 16, 4, 0, 10, 16, 0), make([]byte, 4096)...)
		},
		longName(62), longName(61), // 256 bytes and 255
	} {
		f.Add(spoil(quickQuestion(f, "allowed.example", dns.TypeA, 1)), uint8(0))
	}
	type both struct {
		server  *Server
		records func() []QueryRecord
	}
	var servers []both
	for i, text := range quickPools {
		s, records := quickServer(f, text, func(c *Config) {
			c.Search = []allowlists.Host{hostOf(f, "test")}
			if i == 1 {
				c.Probe = func(name string) bool { return name == "denied.test" }
			}
		})
		servers = append(servers, both{s, records})
	}
	f.Fuzz(func(t *testing.T, raw []byte, knobs uint8) {
		b := servers[int(knobs&63)%len(servers)]
		from := poolOrigin
		switch knobs >> 6 {
		case 1:
			from = noPoolOrigin
		case 2:
			from.machine = netip.MustParseAddr("10.0.0.77")
		case 3:
			from.client = netip.MustParseAddrPort("10.0.0.3:53")
		}
		var o ordinary
		inq, err := parseInquiry(raw)
		if o.parse(raw) && (err != nil || inq.class != dns.ClassINET || inq.qtype != o.qtype || inq.flags != o.flags || inq.edns != o.edns ||
			lowerASCII(inq.asked()) != string(o.name()) || inq.asked() != o.asked(raw) || inq.udpLimit() != o.limit() || len(inq.question)+headerSize != o.end) {
			t.Fatalf("%x is read as %+v and as %+v, %v", raw, o, inq, err)
		}
		prime(b.server, raw, from)
		compareWays(t, b.server, b.records, raw, from)
	})
}

// longName makes a question for a name of three labels of 63 bytes and one of n.
func longName(n int) func([]byte) []byte {
	return func(b []byte) []byte {
		b = b[:headerSize]
		for _, n := range []int{63, 63, 63, n} {
			b = append(append(b, byte(n)), bytes.Repeat([]byte("a"), n)...)
		}
		return append(b, 0, 0, byte(dns.TypeA), 0, dns.ClassINET)
	}
}

// prime has handle make a reply ready for a question, in answer to one that is
// not that question to the byte: of another id and case, with another size and RD.
func prime(s *Server, raw []byte, from origin) {
	var o ordinary
	raw = bytes.Clone(raw)
	if o.parse(raw) {
		raw[0], raw[2], raw[3] = ^raw[0], raw[2]^bitRD, raw[3]^bitAD
		if c := &raw[headerSize+1]; 'a' <= *c|0x20 && *c|0x20 <= 'z' {
			*c ^= 0x20
		}
		if o.edns {
			binary.BigEndian.PutUint16(raw[o.end+3:], maxUDPReply)
		}
	}
	for range 2 { // from upstream, and from the cache
		s.handle(context.Background(), raw, from)
	}
}

// compareWays asks by quick and by handle. It tries again where they differ, as
// a second of the answer's age may have ended between them.
func compareWays(t testing.TB, s *Server, records func() []QueryRecord, raw []byte, from origin) (answered bool) {
	t.Helper()
	for tries := 1; ; tries++ {
		records()
		quick := fast(t, s, raw, from)
		if quick == nil {
			return false
		}
		slow := s.handle(context.Background(), raw, from)
		got := records()
		if len(got) != 2 {
			t.Fatalf("%d records", len(got))
		}
		if a, b := timeless(got[0]), timeless(got[1]); bytes.Equal(quick, slow) && reflect.DeepEqual(a, b) {
			return true
		} else if tries == 3 {
			t.Fatalf("to %x\nfast %x\nslow %x\nfast %+v\nslow %+v", raw, quick, slow, a, b)
		}
		prime(s, raw, from)
	}
}

func hostOf(t testing.TB, name string) allowlists.Host {
	t.Helper()
	h, err := allowlists.ParseHost(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestQuickAnswersWhatIsOrdinary says what the second or third question for a
// name is answered by, so that neither way is left unused.
func TestQuickAnswersWhatIsOrdinary(t *testing.T) {
	for _, tt := range []struct {
		rule, name string
		qtype      uint16
		knobs      uint16
		quick      bool
	}{
		{"an answer", "allowed.example", dns.TypeA, 1, true},
		{"with EDNS and a cookie", "allowed.example", dns.TypeA, 1 | 8 | 32 | 2<<6, true},
		{"in mixed case", "aLLowed.eXample", dns.TypeAAAA, 1, true},
		{"an alias", "alias.wild.example", dns.TypeA, 1, true},
		{"a name that does not exist", "missing.wild.example", dns.TypeA, 1, true},
		{"a name without the type", "empty.wild.example", dns.TypeA, 1, true},
		{"a refusal", "denied.test", dns.TypeA, 1, true},
		{"a refusal to EDNS", "denied.test", dns.TypeA, 1 | 8, true},
		{"a refused type", "allowed.example", dns.TypeTXT, 1, true},
		{"more than fits", "many.wild.example", dns.TypeA, 1, false},
		{"the same where it fits", "many.wild.example", dns.TypeA, 1 | 8 | 2<<6, true},
		{"an address taken out", "special.wild.example", dns.TypeA, 1, true},
		{"every address taken out", "special.wild.example", dns.TypeAAAA, 1, false},
		{"a service", "_dns._udp.svc.example", dns.TypeTXT, 1, false},
		{"an SRV answer", "svc.example", dns.TypeSRV, 1, false},
		{"words that a rule lists", "svc.example", dns.TypeTXT, 1, true},
		{"a reverse name", "1.2.0.192.in-addr.arpa", dns.TypePTR, 1, false},
	} {
		s, records := quickServer(t, fuzzPools)
		raw := quickQuestion(t, tt.name, tt.qtype, tt.knobs)
		if fast(t, s, raw, poolOrigin) != nil {
			t.Errorf("%s: answered at once", tt.rule)
		}
		prime(s, raw, poolOrigin)
		if got := compareWays(t, s, records, raw, poolOrigin); got != tt.quick {
			t.Errorf("%s: quick: %v", tt.rule, got)
		}
	}
}

// TestWhatIsReadyAges counts down, byte for byte as the slow way does, until the
// answer's time is over.
func TestWhatIsReadyAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := quickServer(t, fuzzPools)
		for i, name := range []string{"alias.wild.example", "missing.wild.example", "allowed.example"} {
			raw := quickQuestion(t, name, dns.TypeA, uint16(i*8+1))
			s.handle(context.Background(), raw, poolOrigin)
			time.Sleep(1700 * time.Millisecond)
			s.handle(context.Background(), raw, poolOrigin)
			for range 3 {
				time.Sleep(450*time.Second + 300*time.Millisecond)
				if !compareWays(t, s, records, raw, poolOrigin) {
					t.Errorf("%s is not answered quickly", name)
				}
			}
			time.Sleep(time.Hour)
			if fast(t, s, raw, poolOrigin) != nil {
				t.Errorf("%s outlived its TTL", name)
			}
		}
		s.Close()
	})
}

// TestWhatIsReadyEnds changes one thing at a time after which it must not be
// answered as before.
func TestWhatIsReadyEnds(t *testing.T) {
	ending := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	pools := `pools:
  build:
    sources: [10.0.0.1/32, 10.0.0.3/32]
    allow: [allowed.example, {host: ends.wild.example, expires: 2030-01-01}]
  other:
    sources: [10.1.0.0/24]
    allow: [allowed.example]
`
	for _, tt := range []struct {
		rule, name string
		change     func(*testing.T, *Server, *origin)
		stands     bool
	}{
		{"nothing", "allowed.example", func(*testing.T, *Server, *origin) {}, true},
		{"nothing, of a refusal", "denied.test", func(*testing.T, *Server, *origin) {}, true},
		{"another policy", "allowed.example", func(t *testing.T, s *Server, _ *origin) { s.cfg.Policy = policyOf(t, pools) }, false},
		{"another policy, of a refusal", "denied.test", func(t *testing.T, s *Server, _ *origin) { s.cfg.Policy = policyOf(t, pools) }, false},
		{"a client of another pool", "allowed.example", func(_ *testing.T, _ *Server, from *origin) { from.client = netip.MustParseAddrPort("10.1.0.1:9") }, false},
		{"a client of none", "denied.test", func(_ *testing.T, _ *Server, from *origin) { from.client = noPoolOrigin.client }, false},
		{"a closed gate", "allowed.example", func(_ *testing.T, s *Server, _ *origin) {
			s.cfg.Gate = func() allowlists.Reason { return allowlists.LogDegraded }
		}, false},
		{"a used up rate", "denied.test", func(_ *testing.T, s *Server, from *origin) {
			s.rates = newRates(1, 10)
			s.rates.take(rateKey{"build", from.client.Addr()}, time.Now())
		}, false},
		{"a probe", "denied.test", func(_ *testing.T, s *Server, _ *origin) {
			s.cfg.Probe = func(name string) bool { return name == "denied.test" }
		}, false},
		{"the answer gone from the cache", "allowed.example", func(_ *testing.T, s *Server, _ *origin) {
			s.cache.keepOnly(func(flightKey) bool { return false })
		}, false},
		{"a newer answer", "allowed.example", func(_ *testing.T, s *Server, _ *origin) {
			s.cache.put(flightKey{name: "allowed.example", qtype: dns.TypeA}, oneAddr("allowed.example", 60), "up", time.Now())
		}, false},
		{"a question of ours that comes back", "allowed.example", func(t *testing.T, s *Server, _ *origin) {
			s.upstreams.echoes.sending(quickQuestion(t, "allowed.example", dns.TypeA, 1))
		}, false},
		{"an SRV answer that leads there", "denied.test", func(t *testing.T, s *Server, _ *origin) {
			s.follows.add("build", follow{hostOf(t, "denied.test"), hostOf(t, "allowed.example"), time.Now().Add(time.Hour)})
		}, false},
		{"the end of the rule", "ends.wild.example", func(*testing.T, *Server, *origin) { time.Sleep(2 * time.Second) }, false},
		{"the end of a rule, of a refusal", "denied.test", func(*testing.T, *Server, *origin) { time.Sleep(2 * time.Second) }, false},
		{"a policy that changed", "allowed.example", func(_ *testing.T, s *Server, _ *origin) { s.PolicyChanged() }, false},
		{"a policy that changed, of a refusal", "denied.test", func(_ *testing.T, s *Server, _ *origin) { s.PolicyChanged() }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(ending) - time.Second)
			s, _ := quickServer(t, pools)
			raw := quickQuestion(t, tt.name, dns.TypeA, 1)
			for range 2 {
				s.handle(context.Background(), raw, poolOrigin)
			}
			if fast(t, s, raw, poolOrigin) == nil {
				t.Fatalf("%s: nothing is ready", tt.rule)
			}
			from := poolOrigin
			tt.change(t, s, &from)
			if got := fast(t, s, raw, from) != nil; got != tt.stands {
				t.Errorf("%s: answered quickly: %v", tt.rule, got)
			}
			s.Close()
			synctest.Wait()
		})
	}
}

// TestAQuickAnswerIsInTheBookBeforeItsRecord has the client's own address looked
// up by the one who observes.
func TestAQuickAnswerIsInTheBookBeforeItsRecord(t *testing.T) {
	s, _ := quickServer(t, fuzzPools)
	raw := quickQuestion(t, "allowed.example", dns.TypeA, 1)
	for range 2 {
		s.handle(context.Background(), raw, poolOrigin)
	}
	s.book = newBook(100)
	seen := false
	s.cfg.Observe = func(r QueryRecord) {
		seen = s.Answered(r.Subject, r.Host, netip.MustParseAddr("93.184.216.34"))
	}
	if fast(t, s, raw, poolOrigin) == nil || !seen {
		t.Error("the book knows nothing of a quick answer")
	}
}

// TestAPanicOfAnObserverIsAFailure answers SERVFAIL as handle does.
func TestAPanicOfAnObserverIsAFailure(t *testing.T) {
	s, _ := quickServer(t, fuzzPools)
	raw := quickQuestion(t, "alloWed.example", dns.TypeA, 3)
	for range 2 {
		s.handle(context.Background(), raw, poolOrigin)
	}
	s.cfg.Observe = func(QueryRecord) { panic("a bug of ours") }
	slow, quick := s.handle(context.Background(), raw, poolOrigin), fast(t, s, raw, poolOrigin)
	if quick == nil || !bytes.Equal(slow, quick) {
		t.Errorf("slow %x, quick %x", slow, quick)
	}
}

// TestATargetOfAnSRVAnswerIsAskedTheSlowWay as it may be asked for by that answer
// alone, which ends.
func TestATargetOfAnSRVAnswerIsAskedTheSlowWay(t *testing.T) {
	s, records := quickServer(t, fuzzPools)
	s.handle(context.Background(), quickQuestion(t, "_dns._udp.svc.example", dns.TypeSRV, 1), poolOrigin)
	raw := quickQuestion(t, "followed.test", dns.TypeA, 1)
	for range 3 {
		s.handle(context.Background(), raw, poolOrigin)
	}
	if got := records(); !got[3].Allowed() || !got[3].Cached {
		t.Fatalf("recorded %+v", got[3])
	}
	if fast(t, s, raw, poolOrigin) != nil {
		t.Error("it was answered quickly")
	}
}

// TestAQuickAnswerCountsAsUse has it in a cache of two, with others that come and go.
func TestAQuickAnswerCountsAsUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := quickServer(t, fuzzPools)
		s.cache = newCache(2, cacheBytes, 0)
		raw := quickQuestion(t, "allowed.example", dns.TypeA, 1)
		prime(s, raw, poolOrigin)
		for i := range 4 {
			time.Sleep(time.Second)
			if fast(t, s, raw, poolOrigin) == nil {
				t.Fatalf("it went after %d others", i)
			}
			s.handle(context.Background(), quickQuestion(t, fmt.Sprintf("n%d.wild.example", i), dns.TypeA, 1), poolOrigin)
		}
		s.Close()
	})
}

// TestQuickRepliesAreCounted reads the metrics as a scrape does.
func TestQuickRepliesAreCounted(t *testing.T) {
	s, _ := quickServer(t, fuzzPools)
	for _, name := range []string{"allowed.example", "denied.test"} {
		raw := quickQuestion(t, name, dns.TypeA, 1)
		prime(s, raw, poolOrigin)
		var record QueryRecord
		_, made := s.quick(raw, &poolOrigin, time.Now(), nil, &record, true)
		queries, seconds := count(t, made.queries), count(t, made.seconds.(prometheus.Collector))
		if made.entry != nil {
			s.observe(made, &record)
		} else {
			s.observeRefused(&refusing{records: []QueryRecord{record}, made: []*ready{made}})
		}
		if count(t, made.queries) != queries+1 || count(t, made.seconds.(prometheus.Collector)) != seconds+1 {
			t.Errorf("%s is not counted", name)
		}
	}
}

// count is the value of a counter, or how many values a histogram was given.
func count(t *testing.T, c prometheus.Collector) uint64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	value := families[0].Metric[0]
	return uint64(value.GetCounter().GetValue()) + value.GetHistogram().GetSampleCount()
}

// TestReadiesAreBounded asks for one all the time and for others once.
func TestReadiesAreBounded(t *testing.T) {
	rs := newReadies(100)
	used := &ready{key: readyKey{name: "used"}}
	rs.add(used)
	for i := range 1000 {
		rs.add(&ready{key: readyKey{name: fmt.Sprint(i)}})
		if rs.get(nil, named("used")) != used {
			t.Fatalf("what is asked for all the time went after %d others", i)
		}
		if n := len(rs.young) + len(rs.old); n > 100 {
			t.Fatalf("%d are kept", n)
		}
	}
	if rs.get(nil, named("1")) != nil {
		t.Error("what nobody asks for stays")
	}
	rs.clear()
	if rs.get(nil, named("used")) != nil {
		t.Error("clear leaves some")
	}
}

func named(name string) *ordinary {
	var o ordinary
	o.n = copy(o.buf[:], name)
	return &o
}

// TestTTLsAreFoundInEveryReply holds the places against miekg's reading.
func TestTTLsAreFoundInEveryReply(t *testing.T) {
	for _, name := range quickNames {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeHTTPS, dns.TypeTXT} {
			m, err := quickZone(dns.Fqdn(name), qtype)
			if err != nil {
				t.Fatal(err)
			}
			for _, m.Compress = range []bool{true, false} {
				wire := packed(t, m.SetEdns0(1232, true))
				records := append(m.Answer, m.Ns...)
				offsets := ttlOffsets(wire, headerSize+len(packed(t, new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)))-headerSize)
				if len(offsets) != len(records) {
					t.Fatalf("%d places for %d records", len(offsets), len(records))
				}
				for i, off := range offsets {
					if got := binary.BigEndian.Uint32(wire[off:]); got != records[i].Header().Ttl {
						t.Errorf("at %d stands %d, not the TTL of %v", off, got, records[i])
					}
				}
				m.Extra = nil
			}
		}
	}
}
