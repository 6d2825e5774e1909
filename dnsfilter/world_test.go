package dnsfilter_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/dnsfilter/dnstest"
)

// patience bounds every wait; nothing passes by waiting it out.
const patience = 10 * time.Second

// poolBuild is the pool that most tests ask as: 127.0.0.1 and nobody else.
const poolBuild = `
  build:
    sources: [127.0.0.1/32]
    allow:
      - allowed.example
      - "*.wild.example"
      - {host: lan.example, resolves_to: [10.0.0.0/8]}
      - {host: svc.example, dns_types: [SRV, TXT]}
    deny: [bad.wild.example, {cidr: 93.184.216.66/32}]
`

// world is a server under test with its upstream and what it recorded.
type world struct {
	t        *testing.T
	upstream *dnstest.Server
	server   *dnsfilter.Server
	addr     netip.AddrPort
	policy   atomic.Pointer[allowlists.Policy]
	gate     atomic.Uint32 // an allowlists.Reason
	stop     context.CancelFunc

	mu      sync.Mutex
	records []dnsfilter.QueryRecord
	grown   chan struct{} // closed and replaced at each record
}

// compile makes a policy from the text under "pools:" and what follows it.
func compile(t testing.TB, pools string) *allowlists.Policy {
	t.Helper()
	text := "pools:" + pools
	file, report := allowlists.Load([]allowlists.Source{{Name: "test.yaml", Text: []byte(text)}},
		func(string) (string, bool) { return "", false }, time.Now())
	if file == nil {
		t.Fatalf("the test's policy does not load: %v", report)
	}
	return file.Policy
}

// start runs a server until the test ends. change may edit its Config.
func start(t *testing.T, pools string, handler dns.HandlerFunc, change ...func(*dnsfilter.Config)) *world {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	w := &world{t: t, upstream: dnstest.NewServer(t, handler), grown: make(chan struct{})}
	w.policy.Store(compile(t, pools))
	w.gate.Store(uint32(allowlists.Allowed))
	cfg := dnsfilter.Config{
		Listeners: []dnsfilter.Listener{{Addr: "127.0.0.1:0"}},
		Policy:    w.policy.Load,
		Gate:      func() allowlists.Reason { return allowlists.Reason(w.gate.Load()) },
		Observe:   w.observe,
		Upstreams: []string{w.upstream.Addr().String()},
		BookGrace: time.Hour,
		PerClient: 1 << 20,
		Log:       zerolog.Nop(),
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if w.server, err = dnsfilter.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Listen(); err != nil {
		t.Fatal(err)
	}
	w.addr = w.server.Addrs()[0]
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not return")
		}
	})
	return w
}

func (w *world) observe(r dnsfilter.QueryRecord) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = append(w.records, r)
	close(w.grown)
	w.grown = make(chan struct{})
}

// last gives the newest record.
func (w *world) last() dnsfilter.QueryRecord {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.records) == 0 {
		w.t.Fatal("nothing was recorded")
	}
	return w.records[len(w.records)-1]
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.records)
}

// await waits until there are n records.
func (w *world) await(n int) []dnsfilter.QueryRecord {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		records, grown := append([]dnsfilter.QueryRecord(nil), w.records...), w.grown
		w.mu.Unlock()
		if len(records) >= n {
			return records
		}
		select {
		case <-grown:
		case <-deadline:
			w.t.Fatalf("%d records instead of %d", len(records), n)
		}
	}
}

// question makes a query message.
func question(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
}

// withEDNS adds an OPT record.
func withEDNS(m *dns.Msg, size uint16, do bool) *dns.Msg {
	m.SetEdns0(size, do)
	return m
}

// send sends raw bytes over UDP from a client address and gives the reply, nil
// if none came before the reply to a question sent after it.
func (w *world) send(client string, raw []byte) []byte {
	w.t.Helper()
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(client)}, net.UDPAddrFromAddrPort(w.addr))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	before := w.count()
	if _, err := conn.Write(raw); err != nil {
		w.t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	w.await(before + 1)
	if r := w.last(); r.RCode < 0 {
		return nil
	}
	reply := make([]byte, 65535)
	n, err := conn.Read(reply)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply[:n]
}

// ask asks over UDP as 127.0.0.1.
func (w *world) ask(m *dns.Msg) *dns.Msg {
	w.t.Helper()
	return w.askAs("127.0.0.1", m)
}

// askAs asks over UDP from a client address.
func (w *world) askAs(client string, m *dns.Msg) *dns.Msg {
	w.t.Helper()
	wire, err := m.Pack()
	if err != nil {
		w.t.Fatal(err)
	}
	raw := w.send(client, wire)
	if raw == nil {
		w.t.Fatalf("no reply to %v", m)
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(raw); err != nil {
		w.t.Fatalf("the reply is malformed: %v", err)
	}
	if reply.Id != m.Id || !reply.Response || reply.AuthenticatedData || reply.Authoritative || !reply.RecursionAvailable {
		w.t.Fatalf("the reply's header is %v", reply.MsgHdr)
	}
	return reply
}

// addrs gives the addresses in a reply's answer section.
func addrs(m *dns.Msg) []string {
	var all []string
	for _, rr := range m.Answer {
		switch r := rr.(type) {
		case *dns.A:
			all = append(all, r.A.String())
		case *dns.AAAA:
			all = append(all, r.AAAA.String())
		}
	}
	return all
}

// ede gives the extended error in a reply.
func ede(m *dns.Msg) *dns.EDNS0_EDE {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return e
			}
		}
	}
	return nil
}
