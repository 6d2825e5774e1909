package dnsfilter

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rs/zerolog"

	"sallyport/allowlists"
)

const fuzzPools = `pools:
  build:
    sources: [10.0.0.1/32, 10.0.0.3/32]
    allow: [allowed.example, "*.wild.example", {host: svc.example, dns_types: [SRV, TXT]}]
    deny: [bad.wild.example]
  other:
    sources: [10.1.0.0/24]
    allow: [allowed.example]
`

// offline makes a server without sockets whose upstream is ask.
func offline(t testing.TB, ask func(name string, qtype uint16) (*dns.Msg, error)) (*Server, func() []QueryRecord) {
	t.Helper()
	file, _ := allowlists.Load([]allowlists.Source{{Name: "fuzz.yaml", Text: []byte(fuzzPools)}},
		func(string) (string, bool) { return "", false }, time.Now())
	if file == nil {
		t.Fatal("the policy does not load")
	}
	var mu sync.Mutex
	var records []QueryRecord
	s, err := New(Config{
		Policy:    func() *allowlists.Policy { return file.Policy },
		Upstreams: []string{"192.0.2.1"}, // never asked
		PerClient: 1 << 30,
		Log:       zerolog.Nop(),
		Observe: func(r QueryRecord) {
			mu.Lock()
			defer mu.Unlock()
			records = append(records, r)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.ask = func(_ context.Context, name string, qtype uint16, _ queryFlags) (*dns.Msg, string, error) {
		m, err := ask(name, qtype)
		return m, "fuzz", err
	}
	t.Cleanup(s.Close)
	return s, func() []QueryRecord {
		mu.Lock()
		defer mu.Unlock()
		taken := records
		records = nil
		return taken
	}
}

// from a client in pool build, and from one without a pool.
var (
	poolOrigin   = origin{client: netip.MustParseAddrPort("10.0.0.1:1000"), udp: true}
	noPoolOrigin = origin{client: netip.MustParseAddrPort("10.0.0.2:1000"), udp: true}
)

func packed(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// FuzzQuery sends a client's bytes: there is no panic, one record each, a reply
// that is well formed and no longer than it may be, and no question upstream
// for a name that is not allowed.
func FuzzQuery(f *testing.F) {
	for _, name := range []string{"allowed.example.", "denied.example.", "a.wild.example.", "_http._tcp.svc.example.", "1.0.0.10.in-addr.arpa.", ".", `a\.b.wild.example.`} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypePTR, dns.TypeANY, dns.TypeHTTPS} {
			m := new(dns.Msg).SetQuestion(name, qtype)
			f.Add(packed(f, m))
			m.SetEdns0(4096, true)
			f.Add(packed(f, m))
		}
	}
	f.Add([]byte{})
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	var asked []string
	s, records := offline(f, func(name string, qtype uint16) (*dns.Msg, error) {
		asked = append(asked, strings.TrimSuffix(name, "."))
		m := new(dns.Msg).SetQuestion(name, qtype)
		m.Response = true
		if rr, err := dns.NewRR(name + " 60 IN A 93.184.216.34"); err == nil {
			m.Answer = append(m.Answer, rr)
		}
		return m, nil
	})
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, from := range []origin{poolOrigin, noPoolOrigin} {
			asked = nil
			reply := s.handle(context.Background(), raw, from)
			got := records()
			if len(got) != 1 {
				t.Fatalf("%d records", len(got))
			}
			if got[0].Reason == allowlists.InternalError {
				t.Fatalf("it panicked: %+v", got[0])
			}
			if from == noPoolOrigin && (len(reply) > len(raw) || got[0].Allowed()) {
				t.Fatalf("%d bytes for %d to a client without a pool", len(reply), len(raw))
			}
			for _, name := range asked {
				if name != "allowed.example" && name != "svc.example" && !strings.HasSuffix(name, ".wild.example") && !strings.HasSuffix(name, ".svc.example") {
					t.Fatalf("%q went upstream", name)
				}
			}
			if reply == nil {
				continue
			}
			m := new(dns.Msg)
			if err := m.Unpack(reply); err != nil || !m.Response || !bytes.Equal(reply[:2], raw[:2]) || len(reply) > maxUDPReply {
				t.Fatalf("the reply is %d bytes, %v, %v", len(reply), err, m)
			}
			if q, err := parseInquiry(raw); err == nil && !bytes.HasPrefix(reply[headerSize:], q.question) {
				t.Fatalf("the question %x came back as %x", q.question, reply[headerSize:])
			}
		}
	})
}

// FuzzScrub answers with an upstream's bytes: what reaches the client is the
// chain that belongs to the question, without a special address and without keys.
func FuzzScrub(f *testing.F) {
	seed := func(lines ...string) {
		m := new(dns.Msg).SetQuestion("allowed.example.", dns.TypeA)
		m.Response = true
		for _, line := range lines {
			rr, err := dns.NewRR(line)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
			m.Ns = append(m.Ns, rr)
		}
		for i := range 4 {
			f.Add(packed(f, m), uint8(i))
		}
	}
	seed("allowed.example. 60 IN A 93.184.216.34", "allowed.example. 60 IN A 10.0.0.1")
	seed("allowed.example. 60 IN AAAA ::ffff:10.0.0.1", "allowed.example. 60 IN AAAA 2606:2800:220:1::1")
	seed("allowed.example. 60 IN CNAME b.example.", "b.example. 60 IN A 93.184.216.34", "c.example. 60 IN A 93.184.216.35")
	seed("allowed.example. 60 IN CNAME b.example.", "b.example. 60 IN CNAME allowed.example.")
	seed(`allowed.example. 60 IN HTTPS 1 . alpn=h2 ech="AAAA" ipv4hint=10.0.0.1,93.184.216.34 ipv6hint=::1`)
	seed("example. 60 IN SOA a. b. 1 2 3 4 5")
	seed("allowed.example. 60 IN RRSIG A 8 2 60 20300101000000 20200101000000 1 example. AAAA", "allowed.example. 60 IN A 93.184.216.34")
	// A CNAME without its data, which the fuzzer found.
	f.Add([]byte("0000\x00\x01000000\x000000\aAllowed\aeXAmple\x00\x00\x05\x00\x010000\x00\x00"), uint8(3))
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeCNAME}
	var upstream *dns.Msg
	s, records := offline(f, func(string, uint16) (*dns.Msg, error) { return upstream, nil })
	s.meter = unmetered() // else one name, asked for as fast as that, is a tunnel
	f.Fuzz(func(t *testing.T, raw []byte, n uint8) {
		qtype := types[int(n)%len(types)]
		upstream = new(dns.Msg)
		if upstream.Unpack(raw) != nil {
			return
		}
		s.cache.keepOnly(func(flightKey) bool { return false })
		defer records() // of an input that fails, which would fail its next run and hide why
		query := new(dns.Msg).SetQuestion("allowed.example.", qtype)
		query.SetEdns0(1232, n&128 != 0)
		for range 2 { // from upstream, and perhaps from the cache
			from := poolOrigin
			from.udp = false
			reply := new(dns.Msg)
			if err := reply.Unpack(s.handle(context.Background(), packed(t, query), from)); err != nil {
				t.Fatal(err)
			}
			if got := records(); len(got) != 1 || got[0].Reason == allowlists.InternalError {
				t.Fatalf("recorded %+v", got)
			}
			checkScrubbed(t, reply, qtype)
		}
	})
}

// checkScrubbed holds a reply against what a reply may be, by a reading of its own.
func checkScrubbed(t *testing.T, m *dns.Msg, qtype uint16) {
	t.Helper()
	name, seen := "allowed.example.", map[string]bool{}
	for _, rr := range m.Answer {
		if rr.Header().Name != name || rr.Header().Class != dns.ClassINET || rr.Header().Ttl > 3600 {
			t.Fatalf("%v does not belong to %s", rr, name)
		}
		var found []netip.Addr
		switch r := rr.(type) {
		case *dns.CNAME:
			if name = r.Target; seen[name] {
				t.Fatal("the chain goes round")
			}
			seen[name] = true
		case *dns.A:
			addr, _ := netip.AddrFromSlice(r.A.To4())
			found = append(found, addr)
		case *dns.AAAA:
			addr, _ := netip.AddrFromSlice(r.AAAA)
			found = append(found, addr)
		case *dns.HTTPS:
			for _, v := range r.Value {
				switch h := v.(type) {
				case *dns.SVCBIPv4Hint:
					for _, ip := range h.Hint {
						addr, _ := netip.AddrFromSlice(ip.To4())
						found = append(found, addr)
					}
				case *dns.SVCBIPv6Hint:
					for _, ip := range h.Hint {
						addr, _ := netip.AddrFromSlice(ip.To16())
						found = append(found, addr)
					}
				case *dns.SVCBECHConfig:
					t.Fatal("keys for encrypted hellos came through")
				}
			}
		case *dns.RRSIG:
		default:
			if rr.Header().Rrtype != qtype {
				t.Fatalf("%v was not asked for", rr)
			}
		}
		for _, addr := range found {
			if class := allowlists.SpecialClass(addr); class != "" {
				t.Fatalf("%s is %s", addr, class)
			}
		}
	}
	for _, rr := range m.Ns {
		if rr.Header().Rrtype != dns.TypeSOA {
			t.Fatalf("the authority section has %v", rr)
		}
	}
	if len(m.Extra) != 1 || m.IsEdns0() == nil || m.AuthenticatedData || m.Authoritative {
		t.Fatalf("the reply is %v", m)
	}
}

func TestAPanicCostsItsQuestionAlone(t *testing.T) {
	s, records := offline(t, func(name string, qtype uint16) (*dns.Msg, error) {
		if name == "a.wild.example." {
			panic("a bug of ours")
		}
		m := new(dns.Msg).SetQuestion(name, qtype)
		rr, _ := dns.NewRR(name + " 60 IN A 93.184.216.34")
		m.Answer = []dns.RR{rr}
		return m, nil
	})
	gateBroken := false
	s.cfg.Gate = func() allowlists.Reason {
		if gateBroken {
			panic("another bug of ours")
		}
		return allowlists.Allowed
	}
	for _, tt := range []struct {
		rule, name string
		gateBroken bool
		rcode      int
		reason     allowlists.Reason
	}{
		{"in a flight", "a.wild.example.", false, dns.RcodeServerFailure, allowlists.InternalError},
		{"before the verdict", "allowed.example.", true, dns.RcodeServerFailure, allowlists.InternalError},
		{"not at all", "allowed.example.", false, dns.RcodeSuccess, allowlists.Allowed},
	} {
		gateBroken = tt.gateBroken
		reply := new(dns.Msg)
		if err := reply.Unpack(s.handle(context.Background(), packed(t, new(dns.Msg).SetQuestion(tt.name, dns.TypeA)), poolOrigin)); err != nil || reply.Rcode != tt.rcode {
			t.Errorf("%s: %v, %v", tt.rule, reply, err)
		}
		if got := records(); len(got) != 1 || got[0].Reason != tt.reason || got[0].Allowed() != (tt.reason == allowlists.Allowed) {
			t.Errorf("%s: recorded %+v", tt.rule, got)
		}
	}
}
