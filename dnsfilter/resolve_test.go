package dnsfilter_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/dnsfilter/dnstest"
)

func host(t testing.TB, name string) allowlists.Host {
	t.Helper()
	h, err := allowlists.ParseHost(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// client is the subject of 127.0.0.1 in pool build.
var client = allowlists.Subject{Client: netip.MustParseAddr("127.0.0.1"), Pool: "build"}

func TestLookup(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	tests := []struct {
		name   string
		addrs  string
		reason allowlists.Reason
		addr   string
	}{
		{"allowed.example", "[2606:2800:220:1::1 93.184.216.34]", allowlists.Allowed, ""},
		{"lan.example", "[10.1.2.3]", allowlists.Allowed, ""},
		{"mixed.wild.example", "[93.184.216.37]", allowlists.Allowed, ""},
		{"none.wild.example", "[]", allowlists.NoSuchHost, ""},
		{"svc.example", "[]", allowlists.NoSuchHost, ""},
		{"private.wild.example", "[]", allowlists.SpecialAddress, "192.168.1.1"},
		{"denied.wild.example", "[]", allowlists.DeniedByRule, "93.184.216.66"},
		{"denied.example", "[]", allowlists.NotInAllowlist, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := w.count()
			answer, err := w.server.Lookup(context.Background(), client, host(t, tt.name))
			if got := fmt.Sprint(answer.Addrs); got != tt.addrs {
				t.Errorf("got %s instead of %s", got, tt.addrs)
			}
			reason := allowlists.Allowed
			var denied *allowlists.DeniedError
			if errors.As(err, &denied) {
				reason = denied.Decision.Reason
				if tt.addr != "" && denied.Addr.String() != tt.addr {
					t.Errorf("the address judged is %s", denied.Addr)
				}
				if denied.Decision.Allowed() != reason.Failure() {
					t.Errorf("the verdict of %s is %s", reason, denied.Decision.Verdict)
				}
			}
			if reason != tt.reason {
				t.Errorf("the reason is %s: %v", reason, err)
			}
			records := w.await(before + 2)[before:]
			for _, r := range records {
				if r.By != dnsfilter.ByProxy || !slices.Contains(answer.IDs, r.ID) || r.Name != tt.name {
					t.Errorf("recorded %+v", r)
				}
			}
			for _, addr := range answer.Addrs {
				if names := w.server.Names(client, addr); !slices.Contains(names, tt.name) {
					t.Errorf("%s is not in the book: %v", addr, names)
				}
			}
		})
	}
}

func TestLookupWhenUpstreamFails(t *testing.T) {
	w := start(t, poolBuild, dnstest.Answer(dns.RcodeRefused))
	_, err := w.server.Lookup(context.Background(), client, host(t, "allowed.example"))
	var denied *allowlists.DeniedError
	if !errors.As(err, &denied) || denied.Decision.Reason != allowlists.UpstreamFailed || !denied.Decision.Allowed() || denied.Err == nil {
		t.Errorf("got %v", err)
	}
}

// dueContext has a deadline and no timer for it.
type dueContext struct {
	context.Context
	at time.Time
}

func (c dueContext) Deadline() (time.Time, bool) { return c.at, true }

// TestLookupKeepsADeadlineThatHasNoTimer asks for what comes only later.
func TestLookupKeepsADeadlineThatHasNoTimer(t *testing.T) {
	release := make(chan struct{})
	w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
		<-release
		zone(t)(rw, q)
	})
	time.AfterFunc(time.Second, func() { close(release) }) // an answer, to who waits on
	ctx := dueContext{context.Background(), time.Now().Add(50 * time.Millisecond)}
	_, err := w.server.Lookup(ctx, client, host(t, "allowed.example"))
	var denial *allowlists.DeniedError
	if !errors.As(err, &denial) || denial.Decision.Reason != allowlists.TimedOut {
		t.Errorf("it came to %v", err)
	}
}

func TestIdenticalQuestionsShareOneAndOutliveEachOther(t *testing.T) {
	release := make(chan struct{})
	w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
		<-release
		zone(t)(rw, q)
	})
	quick, leave := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() {
		_, err := w.server.Lookup(quick, client, host(t, "allowed.example"))
		left <- err
	}()
	w.upstream.Await(func(s *dnstest.Server) bool { return s.Packets() == 2 })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if answer, err := w.server.Lookup(context.Background(), client, host(t, "allowed.example")); err != nil || len(answer.Addrs) != 2 {
				t.Errorf("got %v, %v", answer, err)
			}
		})
	}
	leave()
	if err := <-left; err == nil {
		t.Error("the one that left got an answer")
	}
	close(release)
	wg.Wait()
	// The first has left; whether another joined it in time, at most two
	// questions of each type went upstream for 21 askers.
	if n := w.upstream.Packets(); n > 4 {
		t.Errorf("%d packets went upstream", n)
	}
}

func TestAReloadTakesBackWhatItNoLongerAllows(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	for _, name := range []string{"allowed.example", "a.wild.example"} {
		w.ask(question(name, dns.TypeA))
	}
	w.policy.Store(compile(t, "\n  build: {sources: [127.0.0.1/32], allow: [allowed.example]}\n"))
	check := func() {
		t.Helper()
		if names := w.server.Names(client, netip.MustParseAddr("93.184.216.35")); len(names) != 0 {
			t.Errorf("the book still gives %v", names)
		}
		if names := w.server.Names(client, netip.MustParseAddr("93.184.216.34")); len(names) != 1 {
			t.Errorf("the book gives %v", names)
		}
		if got := w.ask(question("a.wild.example", dns.TypeA)); got.Rcode != dns.RcodeNameError {
			t.Errorf("got %v", got)
		}
		if got := w.ask(question("35.216.184.93.in-addr.arpa", dns.TypePTR)); len(got.Answer) != 0 {
			t.Errorf("got %v", got)
		}
	}
	check() // even before anybody is told
	w.server.PolicyChanged()
	check()
}

func TestAnAnswerUnderWayIsJudgedByTheNewPolicy(t *testing.T) {
	release := make(chan struct{})
	w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
		<-release
		zone(t)(rw, q)
	})
	done := make(chan error, 1)
	go func() {
		answer, err := w.server.Lookup(context.Background(), client, host(t, "a.wild.example"))
		if len(answer.Addrs) != 0 {
			t.Errorf("got %v", answer.Addrs)
		}
		done <- err
	}()
	w.upstream.Await(func(s *dnstest.Server) bool { return s.Packets() == 2 })
	next := compile(t, "\n  build: {sources: [127.0.0.1/32], allow: [allowed.example]}\n")
	w.policy.Store(next)
	w.server.PolicyChanged()
	close(release)
	var denied *allowlists.DeniedError
	if err := <-done; !errors.As(err, &denied) || denied.Decision.Reason != allowlists.NotInAllowlist {
		t.Errorf("got %v", err)
	}
	if r := w.last(); r.Generation != next.Generation() || r.Allowed() {
		t.Errorf("recorded %+v", r)
	}
	if names := w.server.Names(client, netip.MustParseAddr("93.184.216.35")); len(names) != 0 {
		t.Errorf("the book gives %v", names)
	}
}

func TestAuditForwardsAndSaysSo(t *testing.T) {
	w := start(t, "\n  build: {sources: [127.0.0.1/32], mode: audit, allow: [allowed.example], deny: [bad.wild.example]}\n", zone(t))
	tests := []struct {
		ask           *dns.Msg
		reason, would allowlists.Reason
		answers       int
	}{
		{question("allowed.example", dns.TypeA), allowlists.Allowed, 0, 1},
		{question("a.wild.example", dns.TypeA), allowlists.AllowedByAudit, allowlists.NotInAllowlist, 2},
		{question("allowed.example", dns.TypeTXT), allowlists.AllowedByAudit, allowlists.DNSTypeBlocked, 1},
		{question("private.wild.example", dns.TypeA), allowlists.AllowedByAudit, allowlists.NotInAllowlist, 1},
		{question("none.wild.example", dns.TypeA), allowlists.AllowedByAudit, allowlists.NotInAllowlist, 0},
		{question("bad.wild.example", dns.TypeA), allowlists.DeniedByRule, 0, 0},
		{question("allowed.example", dns.TypeANY), allowlists.DNSTypeBlocked, 0, 0},
	}
	for _, tt := range tests {
		got := w.ask(tt.ask)
		if r := w.last(); r.Reason != tt.reason || r.Would != tt.would || len(got.Answer) != tt.answers {
			t.Errorf("%s: recorded %s, would %s; got %v", tt.ask.Question[0].String(), r.Reason, r.Would, got)
		}
	}
}

func TestNamesGivesTheClientsOwnFirst(t *testing.T) {
	w := start(t, `
  build:
    sources: [127.0.0.1/32]
    allow: ["*.wild.example"]
`, reply(t, []string{"%s 60 IN A 93.184.216.34"}))
	addr := netip.MustParseAddr("93.184.216.34")
	one := allowlists.Subject{Client: netip.MustParseAddr("10.9.0.1"), Pool: "build"}
	two := allowlists.Subject{Client: netip.MustParseAddr("10.9.0.2"), Pool: "build"}
	look := func(sub allowlists.Subject, name string) {
		t.Helper()
		if _, err := w.server.Lookup(context.Background(), sub, host(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	look(one, "a.wild.example")
	look(one, "b.wild.example")
	look(two, "c.wild.example")
	look(one, "a.wild.example")
	if got := w.server.Names(one, addr); !slices.Equal(got, []string{"a.wild.example", "b.wild.example", "c.wild.example"}) {
		t.Errorf("the first client sees %v", got)
	}
	if got := w.server.Names(two, addr); !slices.Equal(got, []string{"c.wild.example", "a.wild.example", "b.wild.example"}) {
		t.Errorf("the second client sees %v", got)
	}
	if got := w.server.Names(allowlists.Subject{Client: one.Client, Pool: "other"}, addr); len(got) != 0 {
		t.Errorf("another pool sees %v", got)
	}
	for i := range 40 {
		look(one, fmt.Sprintf("n%d.wild.example", i))
	}
	if got := w.server.Names(one, addr); len(got) != 16 || got[0] != "n39.wild.example" {
		t.Errorf("got %v", got)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	w := start(t, poolBuild, zone(t), func(c *dnsfilter.Config) { c.Metrics = registry })
	w.ask(question("allowed.example", dns.TypeA))
	w.ask(question("allowed.example", dns.TypeA))
	w.ask(question("denied.example", dns.TypeA))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			got[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for key, want := range map[string]float64{
		"sallyport_dns_queries_total build allowed allow":         2,
		"sallyport_dns_queries_total build not-in-allowlist deny": 1,
		"sallyport_dns_query_seconds true":                        1,
		"sallyport_dns_query_seconds false":                       2,
		"sallyport_dns_cache_entries":                             1,
		"sallyport_dns_upstream_up " + w.upstream.Addr().String(): 1,
	} {
		if got[key] != want {
			t.Errorf("%s is %v instead of %v in %v", key, got[key], want, got)
		}
	}
}
