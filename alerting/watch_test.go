package alerting_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
)

// serving runs an Alerting that logs nowhere, until the test ends.
func serving(t *testing.T) *alerting.Alerting {
	t.Helper()
	a, err := alerting.New(alerting.Config{Events: allowlists.Log{Events: "stdout"}, Stdout: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a
}

// anyEvent asks for everything.
func anyEvent(*alerting.Event) bool { return true }

// refusedConn is a refusal of a host.
func refusedConn(id, host string) proxy.ConnRecord {
	return proxy.ConnRecord{
		ID: id, Time: time.Now(), Subject: allowlists.Subject{Client: netip.MustParseAddr("10.20.0.7"), Pool: "build"}, Via: proxy.ViaConnect,
		Host: host, Port: 443, Phase: proxy.PhaseRefused, Decision: allowlists.Decision{Reason: allowlists.NotInAllowlist},
	}
}

// openedConn is an opened connection.
func openedConn(id string, rule *allowlists.Rule) proxy.ConnRecord {
	r := refusedConn(id, "registry.corp.example")
	r.Phase, r.Decision = proxy.PhaseOpen, allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed, Rule: rule}
	return r
}

// next waits for events, and counts those that are not shown.
func next(t *testing.T, w *alerting.Watch) ([]alerting.Event, int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events, missed := w.Next(ctx)
	if events == nil && missed == 0 {
		t.Fatal("nothing was shown")
	}
	return events, missed
}

// TestAWatchIsSampledAndSaysSo: of many events some are shown and the rest are
// counted; refusals are not crowded out by what is allowed, and the end of a
// connection that was shown is shown.
func TestAWatchIsSampledAndSaysSo(t *testing.T) {
	a := serving(t)
	w, ok := a.Watch(func(e *alerting.Event) bool { return e.Kind == alerting.KindConn })
	if !ok {
		t.Fatal("the first one may not watch")
	}
	defer w.Close()
	const many = 1000
	for i := range many {
		a.ObserveConn(openedConn(fmt.Sprintf("open%d", i), nil))
	}
	a.ObserveConn(refusedConn("refused", "evil.example"))
	over := openedConn("open0", nil)
	over.Phase = proxy.PhaseClose
	a.ObserveConn(over)
	shown, missed := make(map[string]int), int64(0)
	for shown["refused"] == 0 || shown["open0"] < 2 {
		events, more := next(t, w)
		for _, e := range events {
			shown[e.ID]++
		}
		missed += more
	}
	total := missed
	for _, n := range shown {
		total += int64(n)
	}
	if total != many+2 || missed < many/2 {
		t.Errorf("%d shown and %d not, of %d", total-missed, missed, many+2)
	}
}

// TestAWatchThatNobodyReadsIsBounded: what waits does not grow.
func TestAWatchThatNobodyReadsIsBounded(t *testing.T) {
	hub := serving(t)
	w, _ := hub.Watch(anyEvent)
	defer w.Close()
	for i := range 40 { // each lets a burst pass
		alerting.OfferAt(w, time.Duration(i)*time.Hour, 1000)
	}
	events, missed := next(t, w)
	if len(events) > 128 || int64(len(events))+missed != 40*1000 {
		t.Errorf("%d events wait, %d were not shown", len(events), missed)
	}
}

// TestAWatchGoesOn: of more than it shows, a watch shows 40 at once and then one
// each 50 ms, whether or not others come between, and whichever goroutine took its
// time first.
func TestAWatchGoesOn(t *testing.T) {
	w, _ := serving(t).Watch(anyEvent)
	defer w.Close()
	for _, c := range []struct {
		age         time.Duration
		come, shown int
	}{
		{0, 100, 40}, {40 * time.Millisecond, 100, 0}, {60 * time.Millisecond, 100, 1}, {99 * time.Millisecond, 1, 0},
		{160 * time.Millisecond, 100, 2}, {100 * time.Millisecond, 1, 0}, {161 * time.Millisecond, 1, 0}, {5 * time.Second, 3, 3}, {5 * time.Second, 100, 37},
	} {
		alerting.OfferAt(w, c.age, c.come)
		if events, missed := next(t, w); len(events) != c.shown || missed != int64(c.come-c.shown) {
			t.Errorf("%s: %d shown and %d not, want %d of %d", c.age, len(events), missed, c.shown, c.come)
		}
	}
}

// TestSoManyMayWatch: the seventeenth may not, until another closes.
func TestSoManyMayWatch(t *testing.T) {
	a := serving(t)
	var all []*alerting.Watch
	for i := range 16 {
		w, ok := a.Watch(anyEvent)
		if !ok {
			t.Fatalf("only %d may watch", i)
		}
		all = append(all, w)
	}
	if _, ok := a.Watch(anyEvent); ok {
		t.Error("17 may watch")
	}
	all[3].Close()
	all[3].Close()
	if _, ok := a.Watch(anyEvent); !ok {
		t.Error("nobody may watch after one has gone")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if events, missed := all[0].Next(ctx); events != nil || missed != 0 {
		t.Errorf("shown after the end: %v, %d", events, missed)
	}
}

// TestAlertsAreWatchedToo: an alert is shown when it is made, and is open.
func TestAlertsAreWatchedToo(t *testing.T) {
	a := serving(t)
	w, _ := a.Watch(func(e *alerting.Event) bool { return e.Kind == alerting.KindAlert })
	defer w.Close()
	a.ObserveConn(refusedConn("a2b3c4d5e6f7", "evil.example"))
	if events, _ := next(t, w); events[0].Alert != alerting.AlertDeniedEgress {
		t.Errorf("shown: %+v", events[0])
	}
	open, more := a.OpenAlerts(10)
	if len(open) != 1 || more != 0 || open[0].Evidence[0] != "a2b3c4d5e6f7" || open[0].Suggest != "- evil.example" {
		t.Errorf("open: %+v, and %d more", open, more)
	}
	if open, more := a.OpenAlerts(0); len(open) != 0 || more != 1 {
		t.Errorf("of none: %d and %d", len(open), more)
	}
}

// TestRecentIsNewestFirst: with the latest line of each, and as many as asked for.
func TestRecentIsNewestFirst(t *testing.T) {
	a := serving(t)
	for i := range 10_050 {
		a.ObserveConn(openedConn(fmt.Sprintf("c%d", i), nil))
	}
	closed := openedConn("c10048", nil)
	closed.Phase, closed.Sent = proxy.PhaseClose, 1000
	a.ObserveConn(closed)
	var ids []string
	a.Recent(func(_, _ []byte) bool { return true }, func(first, latest *alerting.Event) bool {
		ids = append(ids, first.ID)
		if (latest != nil) != (first.ID == "c10048") || latest != nil && latest.Sent != 1000 {
			t.Errorf("%s: latest is %+v", first.ID, latest)
		}
		return true
	})
	if len(ids) != 10_000 || ids[0] != "c10049" || ids[9_999] != "c50" {
		t.Errorf("%d ids, from %s to %s", len(ids), ids[0], ids[len(ids)-1])
	}
	seen := 0
	a.Recent(func(first, _ []byte) bool { return true }, func(*alerting.Event, *alerting.Event) bool { seen++; return seen < 3 })
	if seen != 3 {
		t.Errorf("%d were shown of 3", seen)
	}
}

// TestRulesAreCounted: by pool and text, questions and connections together, each
// decision once; the end of a connection decides nothing.
func TestRulesAreCounted(t *testing.T) {
	a := serving(t)
	rule, other := &allowlists.Rule{Text: "registry.corp.example"}, &allowlists.Rule{Text: "other.example", Preset: "npm"}
	w, _ := a.Watch(anyEvent)
	defer w.Close()
	record := openedConn("open", rule)
	a.ObserveConn(record)
	record.Phase = proxy.PhaseClose
	a.ObserveConn(record)
	query := dnsfilter.QueryRecord{ID: "ask", Time: time.Now(), Subject: record.Subject, By: "client", Name: "registry.corp.example", Type: 1, Decision: record.Decision}
	a.ObserveQuery(query)
	ids := []alerting.RuleID{alerting.IDOfRule("build", rule), alerting.IDOfRule("build", other), alerting.IDOfRule("release", rule)}
	for seen := 0; seen < 3; {
		events, _ := next(t, w)
		seen += len(events)
	}
	use := a.RuleUse(ids)
	if hit := use.Hits[ids[0]]; len(use.Hits) != 1 || hit.Count != 2 || time.Since(hit.Last) > time.Minute || use.Uncounted != 0 || use.Since.IsZero() {
		t.Errorf("counted: %+v", use)
	}
}

// BenchmarkWatched is what an event costs those that feed pages: with none open,
// one, and as many as may be. Events are fed by up to 64 together.
func BenchmarkWatched(b *testing.B) {
	const together = 64
	for _, open := range []int{0, 1, 16} {
		b.Run(fmt.Sprint(open), func(b *testing.B) {
			a, err := alerting.New(alerting.Config{Events: allowlists.Log{Events: "stdout"}, Stdout: io.Discard})
			if err != nil {
				b.Fatal(err)
			}
			for range open {
				w, _ := a.Watch(anyEvent)
				defer w.Close()
			}
			e := alerting.Event{Kind: alerting.KindConn, Phase: alerting.PhaseOpen, ID: "a2b3c4d5e6f7", Verdict: allowlists.Allow}
			b.ReportAllocs()
			for b.Loop() {
				alerting.ShowForBench(a, &e, together)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*together), "ns/event")
		})
	}
}
