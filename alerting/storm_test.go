package alerting_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// theStorm is the load of `make storm`, for as long as SALLYPORT_STORM says;
// without it a lighter one, for what does not depend on speed.
func theStorm(t *testing.T) (s storm, full bool) {
	s = storm{lasts: 10 * time.Second, perMinute: 120_000, destinations: 10_000, clients: 200, probeEvery: 250 * time.Millisecond}
	if lasts := os.Getenv("SALLYPORT_STORM"); lasts != "" {
		d, err := time.ParseDuration(lasts)
		if err != nil {
			t.Fatalf("SALLYPORT_STORM: %v", err)
		}
		return storm{lasts: d, perMinute: 1_000_000, destinations: 100_000, clients: 1000, probeEvery: 250 * time.Millisecond}, true
	}
	return s, false
}

// A stormSlack stands in for Slack: it takes every message and notes when, and
// which probes it told of.
type stormSlack struct {
	mu     sync.Mutex
	at     []time.Time
	probes map[string]time.Time
}

var probeClient = regexp.MustCompile(`10\.99\.\d+\.\d+`)

func (s *stormSlack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, now)
	if strings.Contains(string(body), "denied-then-direct") {
		for _, client := range probeClient.FindAllString(string(body), -1) {
			if s.probes[client].IsZero() {
				s.probes[client] = now
			}
		}
	}
	io.WriteString(w, "ok")
}

// TestStorm holds what docs/decisions/0009 promises: no record is lost between
// the call and the log, Slack is not flooded, and what was found adds up. With
// SALLYPORT_STORM set it is also about speed and memory.
func TestStorm(t *testing.T) {
	s, full := theStorm(t)
	slack := &stormSlack{probes: make(map[string]time.Time)}
	server := httptest.NewServer(slack)
	defer server.Close()
	var told atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		told.Add(int64(newOf(readPosts(t, []string{string(body)}))))
	}))
	defer hook.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	registry := prometheus.NewRegistry()
	a, err := alerting.New(alerting.Config{
		Log: zerolog.New(os.Stderr).Level(zerolog.WarnLevel), Events: allowlists.Log{Events: path}, Registerer: registry,
		Alerts: allowlists.Alerts{
			StateDir: filepath.Join(dir, "state"), Slack: allowlists.Slack{WebhookURL: server.URL, MinSeverity: "medium"},
			Webhook: allowlists.Webhook{URL: hook.URL}, Baseline: allowlists.Baseline{Learn: time.Nanosecond},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := (&gateLog{Alerting: a}).run(t)
	eventually(t, "the log is there", func() bool { _, err := os.Stat(path); return err == nil })
	log := followLog(t, path)

	memory := watchMemory(t)
	before := cpuTime()
	begun := time.Now()
	out := s.send(t, a)
	took := time.Since(begun)
	spent := cpuTime() - before
	eventually(t, "everything is taken", func() bool { return a.Waiting() == 0 && a.Behind() == 0 })
	peak := memory()
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	log.end()
	groups, untold := a.Totals("webhook")

	t.Logf("%d records in %s (%.0f a minute), CPU %.2f s = %.0f %% of a core, load generator included",
		out.records.Load(), took.Round(time.Millisecond), float64(out.records.Load())/took.Minutes(), spent.Seconds(), 100*spent.Seconds()/took.Seconds())
	t.Logf("memory: heap %d MiB, of the system %d MiB at most", peak.heap>>20, peak.system>>20)
	if peak.heap > stormHeap {
		t.Errorf("the heap grew to %d MiB", peak.heap>>20)
	}
	checkLines(t, log, out)
	checkCounts(t, registry, out, groups)
	if sum := groupSum(groups); int(told.Load())+untold != sum {
		t.Errorf("a sink was told of %d findings and not yet of %d, but there were %d", told.Load(), untold, sum)
	}
	checkPace(t, slack)
	checkDelays(t, "in the log", out, log.probes, full)
	checkDelays(t, "at Slack", out, slack.probes, full)
}

// checkLines holds the log against what was sent: every record has one line.
func checkLines(t *testing.T, log *stormLog, out *sent) {
	t.Helper()
	twice := 0
	for _, n := range log.seen {
		if n > 1 {
			twice++
		}
	}
	t.Logf("the log has %d lines of records", log.records)
	if log.records != out.records.Load() || twice > 0 || log.other > 0 {
		t.Errorf("%d records were sent, %d lines are in the log, %d ids more than once, %d lines unreadable", out.records.Load(), log.records, twice, log.other)
	}
}

// checkCounts holds the groups against the findings counted, and those against
// what was sent.
func checkCounts(t *testing.T, registry *prometheus.Registry, out *sent, groups map[string]int) {
	t.Helper()
	found := make(map[string]int)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			switch family.GetName() {
			case "sallyport_alerts_total":
				for _, label := range metric.GetLabel() {
					if label.GetName() == "alert" {
						found[label.GetValue()] += int(metric.GetCounter().GetValue())
					}
				}
			case "sallyport_events_dropped_total":
				if n := metric.GetCounter().GetValue(); n != 0 {
					t.Errorf("%v events dropped", n)
				}
			}
		}
	}
	for alert, n := range found {
		if groups[alert] != n {
			t.Errorf("%s: %d findings, but the groups count %d", alert, n, groups[alert])
		}
	}
	t.Logf("findings: %v", found)
	for _, c := range []struct {
		alerts []string // of which each such record makes one
		want   int64
	}{
		{[]string{alerting.AlertDeniedEgress}, turnRecords*out.turns[0].Load() + out.probed.Load()},
		{[]string{alerting.AlertFirstSeen}, out.turns[1].Load() - int64(len(stormPools))}, // the first of a pool ends its learning
		{[]string{alerting.AlertDirectIP, alerting.AlertScan}, turnRecords * out.turns[2].Load()},
		{[]string{alerting.AlertDeniedThenDirect}, out.probed.Load()},
	} {
		sum := int64(0)
		for _, alert := range c.alerts {
			sum += int64(found[alert])
		}
		if sum != c.want {
			t.Errorf("%v: %d findings of %d", c.alerts, sum, c.want)
		}
	}
}

func groupSum(groups map[string]int) (sum int) {
	for _, n := range groups {
		sum += n
	}
	return sum
}

// checkPace holds the messages against one a second.
func checkPace(t *testing.T, slack *stormSlack) {
	t.Helper()
	slack.mu.Lock()
	defer slack.mu.Unlock()
	t.Logf("Slack got %d messages", len(slack.at))
	for i := range slack.at { // in any ten seconds eleven at most: both ends count
		if j := i + 11; j < len(slack.at) && slack.at[j].Sub(slack.at[i]) < 10*time.Second {
			t.Errorf("messages %d to %d came within %s", i, j, slack.at[j].Sub(slack.at[i]))
		}
	}
}

// checkDelays tells how long the alerts of probes took, and that each came.
func checkDelays(t *testing.T, where string, out *sent, came map[string]time.Time, full bool) {
	t.Helper()
	var delays []time.Duration
	missing := 0
	out.probes.Range(func(client, sent any) bool {
		if at := came[client.(string)]; at.IsZero() {
			missing++
		} else {
			delays = append(delays, at.Sub(sent.(time.Time)))
		}
		return true
	})
	if missing > 0 || len(delays) == 0 {
		t.Errorf("%s: the alerts of %d probes did not come, of %d they did", where, missing, len(delays))
		return
	}
	slices.Sort(delays)
	p99 := delays[len(delays)*99/100]
	t.Logf("%s: %d probes, p50 %s, p99 %s, most %s", where, len(delays), delays[len(delays)/2].Round(time.Millisecond),
		p99.Round(time.Millisecond), delays[len(delays)-1].Round(time.Millisecond))
	if full && p99 > 2*time.Second {
		t.Errorf("%s: p99 is %s", where, p99)
	}
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// stormHeap is the most that the heap may grow to: see docs/decisions/0009.
const stormHeap = 256 << 20

// peakMemory is the most there was of the heap, and of what the runtime holds
// of the system's memory, in bytes.
type peakMemory struct{ heap, system uint64 }

// watchMemory looks at the memory twice a second; what it returns ends that and
// tells the most there was.
func watchMemory(t testing.TB) func() peakMemory {
	t.Helper()
	stop := make(chan struct{})
	var done sync.WaitGroup
	var peak peakMemory
	done.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = peakMemory{max(peak.heap, m.HeapAlloc), max(peak.system, m.Sys-m.HeapReleased)}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	end := sync.OnceFunc(func() { close(stop); done.Wait() })
	t.Cleanup(end)
	return func() peakMemory {
		end()
		return peak
	}
}
