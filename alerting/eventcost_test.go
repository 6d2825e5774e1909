package alerting_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
)

// BenchmarkEvent is what an event costs in all: record, line in a file, and
// every detector. cpu-ns/op is the CPU time of all goroutines.
func BenchmarkEvent(b *testing.B) {
	sub := allowlists.Subject{Client: netip.MustParseAddr("10.20.0.7"), Pool: "build"}
	host, err := allowlists.ParseHost("registry.corp.example")
	if err != nil {
		b.Fatal(err)
	}
	asked := dnsfilter.QueryRecord{Subject: sub, Generation: 1, By: "client", Name: "registry.corp.example", Host: host, Type: 1, Cached: true, Upstream: "udp://10.0.0.2:53", TTL: time.Minute, Took: 40 * time.Microsecond}
	cached, refused := asked, asked
	cached.Decision = allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed}
	cached.Answers = []netip.Addr{netip.MustParseAddr("198.51.100.7")}
	refused.Decision, refused.RCode = allowlists.Decision{Reason: allowlists.NotInAllowlist}, 3
	conn := proxy.ConnRecord{Subject: sub, Generation: 1, Via: "connect", Host: "registry.corp.example", Port: 443, ClientPort: 40000, Method: "CONNECT", Took: time.Millisecond}
	open, denied := conn, conn
	open.Phase, open.Addr, open.SNI, open.Decision = "open", netip.MustParseAddr("198.51.100.7"), "registry.corp.example", cached.Decision
	denied.Phase, denied.Decision = "refused", refused.Decision

	for _, c := range []struct {
		name   string
		record func(a *alerting.Alerting, id string, at time.Time)
	}{
		{"dns-cached", query(cached)},
		{"dns-refused", query(refused)},
		{"conn-refused", func(a *alerting.Alerting, id string, at time.Time) {
			r := denied
			r.ID, r.Time = id, at
			a.ObserveConn(r)
		}},
		{"tunnel", func(a *alerting.Alerting, id string, at time.Time) {
			r := open
			r.ID, r.Time = id, at
			a.ObserveConn(r)
			r.Phase, r.Sent, r.Received = "close", 1000, 2000
			a.ObserveConn(r)
		}},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkEvent(b, c.record) })
	}
}

// query records copies of r.
func query(r dnsfilter.QueryRecord) func(a *alerting.Alerting, id string, at time.Time) {
	return func(a *alerting.Alerting, id string, at time.Time) {
		one := r // they are recorded by many at once
		one.ID, one.Time = id, at
		a.ObserveQuery(one)
	}
}

func benchmarkEvent(b *testing.B, record func(a *alerting.Alerting, id string, at time.Time)) {
	dir := b.TempDir()
	config := toFile(filepath.Join(dir, "events.jsonl"))
	config.Alerts.StateDir = filepath.Join(dir, "state")
	config.Alerts.Baseline.Learn, config.Alerts.Baseline.Jobs = 7*24*time.Hour, 50
	config.Alerts.Webhook.URL = "http://127.0.0.1:9/"
	g := newLog(b, config).run(b)
	var ids atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	before := cpuTime()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := ids.Add(1)
			for n%64 == 0 && g.Behind() > 4000 { // what finds the queue full is read from the file, at another cost
				runtime.Gosched()
			}
			record(g.Alerting, fmt.Sprintf("%012d", n), time.Now())
		}
	})
	for g.Behind() > 0 {
		<-time.After(time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkRefusedName is what the correlator takes for a name that a pool was
// refused before: one of 1,000, as a load that repeats itself asks for them,
// beside 1,000 that are allowed.
func BenchmarkRefusedName(b *testing.B) {
	var allow []string
	for i := range 1000 {
		allow = append(allow, fmt.Sprintf("service%d.corp%d.example", i, i%100))
	}
	c := newCorrelator(b, alerting.CorrelatorSetup{Policy: policyOf(b, allow, nil)})
	var events []alerting.Event
	for i := range 1000 {
		events = append(events, question(fmt.Sprintf("blocked%d.elsewhere%d.example", i, i%100)))
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	for i := range b.N {
		c.Take(events[i%len(events)])
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}
