package proxy_test

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// noDeadline takes a deadline away.
var noDeadline time.Time

// fakeResolver is a Resolver made of funcs; a nil one answers with nothing.
type fakeResolver struct {
	lookup func(allowlists.Host) (allowlists.Answer, error)
	names  func(netip.Addr) []string
}

func (r *fakeResolver) Lookup(_ context.Context, _ allowlists.Subject, h allowlists.Host) (allowlists.Answer, error) {
	if r.lookup == nil {
		return allowlists.Answer{}, &allowlists.DeniedError{Decision: allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.NoSuchHost}}
	}
	return r.lookup(h)
}

func (r *fakeResolver) Names(_ allowlists.Subject, addr netip.Addr) []string {
	if r.names == nil {
		return nil
	}
	return r.names(addr)
}

func (r *fakeResolver) Answered(sub allowlists.Subject, h allowlists.Host, addr netip.Addr) bool {
	return slices.Contains(r.Names(sub, addr), h.String())
}

// answers makes a lookup that gives each name its addresses.
func answers(table map[string]string) func(allowlists.Host) (allowlists.Answer, error) {
	return func(h allowlists.Host) (allowlists.Answer, error) {
		var a allowlists.Answer
		for _, text := range strings.Fields(table[h.String()]) {
			a.Addrs = append(a.Addrs, netip.MustParseAddr(text))
		}
		if a.Addrs == nil {
			return a, &allowlists.DeniedError{Decision: allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.NoSuchHost}}
		}
		a.IDs = []string{"dns-" + h.String()}
		return a, nil
	}
}

// A world is a proxy that serves, with what it was given and what it said.
type world struct {
	t        testing.TB
	addr     string
	server   *proxy.Server
	resolver *fakeResolver
	registry *prometheus.Registry
	stop     context.CancelFunc
	served   chan struct{} // closed when Serve has returned

	policy  atomic.Pointer[allowlists.Policy]
	gate    atomic.Uint32 // an allowlists.Reason
	observe atomic.Pointer[func(proxy.ConnRecord)]

	mu      sync.Mutex
	records []proxy.ConnRecord
	changed chan struct{} // closed and replaced with every record
}

// newWorld starts a proxy for pool. Every name it allows leads to 127.0.0.1
// unless change gives it another resolver.
func newWorld(t testing.TB, pool allowlists.PoolSpec, change ...func(*proxy.Config)) *world {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	w := &world{t: t, changed: make(chan struct{}), registry: prometheus.NewRegistry(), served: make(chan struct{})}
	w.gate.Store(uint32(allowlists.Allowed))
	w.resolver = &fakeResolver{lookup: func(allowlists.Host) (allowlists.Answer, error) {
		return allowlists.Answer{IDs: []string{"dns-1"}, Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, nil
	}}
	w.set(pool)
	cfg := proxy.Config{
		Listeners: []proxy.Listener{{Addr: "127.0.0.1:0"}},
		Limits: allowlists.Limits{
			Connections: 16384, ConnectionsPerClient: 16384, Dials: 1024, HeaderBytes: 8192,
			HeaderTimeout: 5 * time.Second, HelloTimeout: 5 * time.Second, DialTimeout: 5 * time.Second,
			IdleTimeout: time.Minute, DrainTimeout: 5 * time.Second,
		},
		Policy: w.policy.Load, Resolver: w.resolver, Observe: w.note, Log: zerolog.Nop(), Registerer: w.registry,
		ParkAfter: time.Millisecond, // so that every test of a tunnel is one of parking
		Gate:      func() allowlists.Reason { return allowlists.Reason(w.gate.Load()) },
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if w.server, err = proxy.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Listen(); err != nil {
		t.Fatal(err)
	}
	w.addr = w.server.Addrs()[0].String()
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	go func() {
		defer close(w.served)
		if err := w.server.Serve(ctx); err != nil {
			t.Errorf("serving: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-w.served })
	return w
}

// limits changes the limits of a world.
func limits(change func(*allowlists.Limits)) func(*proxy.Config) {
	return func(cfg *proxy.Config) { change(&cfg.Limits) }
}

// set puts a policy in force.
func (w *world) set(pool allowlists.PoolSpec) {
	w.t.Helper()
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{pool}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.policy.Store(policy)
}

// pool is a pool of loopback clients named build.
func pool(rules ...allowlists.Rule) allowlists.PoolSpec {
	return allowlists.PoolSpec{Name: "build", Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Allow: rules}
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// rule allows "host:port", or "*" for the port, at loopback addresses.
func rule(text string, change ...func(*allowlists.Rule)) allowlists.Rule {
	host, port, _ := strings.Cut(text, ":")
	r := allowlists.Rule{Text: text, ResolvesTo: loopback, Ports: allowlists.AllPorts()}
	if prefix, err := netip.ParsePrefix(host); err == nil {
		r.Prefix, r.ResolvesTo = prefix, nil
	} else if r.Host, err = allowlists.ParsePattern(host); err != nil {
		panic(err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		r.Ports = allowlists.NewPortSet(uint16(n))
	}
	r.Pos.File, r.Pos.Line = "sallyport.yaml", 14
	for _, c := range change {
		c(&r)
	}
	return r
}

func requireTLS(r *allowlists.Rule) { r.TLS = allowlists.TLSRequire }

// note takes a record.
func (w *world) note(rec proxy.ConnRecord) {
	w.mu.Lock()
	w.records = append(w.records, rec)
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
	if f := w.observe.Load(); f != nil {
		(*f)(rec)
	}
}

// wait waits for a record and gives the first that fits.
func (w *world) wait(what string, fits func(proxy.ConnRecord) bool) proxy.ConnRecord {
	w.t.Helper()
	late := time.After(patience)
	for {
		w.mu.Lock()
		for _, rec := range w.records {
			if fits(rec) {
				w.mu.Unlock()
				return rec
			}
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-late:
			w.t.Fatalf("no record of %s; all: %s", what, w.dump())
		}
	}
}

// phase waits for the first record of a phase.
func (w *world) phase(phase string) proxy.ConnRecord {
	w.t.Helper()
	return w.wait("phase "+phase, func(r proxy.ConnRecord) bool { return r.Phase == phase })
}

// all gives the records so far.
func (w *world) all() []proxy.ConnRecord {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]proxy.ConnRecord(nil), w.records...)
}

func (w *world) dump() string {
	var out strings.Builder
	for _, r := range w.all() {
		out.WriteString("\n\t" + r.Phase + " " + r.Via + " " + r.Host + ":" + strconv.Itoa(int(r.Port)) + " " + r.Decision.Reason.String() + " " + r.Err)
	}
	return out.String()
}

// checkRecords holds what was said against DESIGN section 6: one first line an
// id, and a close for each open.
func (w *world) checkRecords() {
	w.t.Helper()
	first, last := map[string]int{}, map[string]int{}
	for _, r := range w.all() {
		switch r.Phase {
		case proxy.PhaseRefused:
			first[r.ID]++
			last[r.ID]++
		case proxy.PhaseOpen:
			first[r.ID]++
		case proxy.PhaseClose:
			last[r.ID]++
		}
	}
	for id, n := range first {
		if n != 1 || last[id] != 1 {
			w.t.Errorf("id %s has %d first and %d last records, want 1 and 1%s", id, n, last[id], w.dump())
		}
	}
}
