package test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestNothingIsLostThoughSlackAndWeFailAtRandom refuses names while the stand-in
// for Slack and the way to it fail in every way we know, and ends the daemon by
// kill -9 and SIGTERM at moments left to chance. Then all is well again: each
// alert stands in one message or two, and a second has its reason. It takes half
// a minute; `make chaos` has it go on for SALLYPORT_CHAOS.
func TestNothingIsLostThoughSlackAndWeFailAtRandom(t *testing.T) {
	t.Parallel()
	lasts := 24 * time.Second
	if text := os.Getenv("SALLYPORT_CHAOS"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	ca := newCA(t)
	d := prepare(t, config{env: []string{"SSL_CERT_FILE=" + ca.file}})
	f := newFaultRun(t, d, nil)
	r := newRoughSlack(t, d.neighbour(9), ca, f.chance)
	f.s = r.slack
	d.env = append(d.env, "TEST_SLACK="+r.url)
	d.extra = "\nalerts: {state_dir: " + d.path("state") + ", thresholds: {fold_groups: 100000, scan_destinations: 1000}, slack: {webhook_url: \"${TEST_SLACK}\"}}\n"
	d.write(newZone(t).addr, alertPools)
	d.run()
	r.rage()

	ends := f.rage(r, time.Now().Add(lasts))
	r.goDown()
	f.seen = len(f.events())
	f.end(r, true) // a 404 stopped the sink for the time of that daemon only
	f.ask(fmt.Sprintf("chaos%d.example", len(f.names)))
	f.says("sink-failing", "failing")
	f.shows(`sallyport_alert_sink_up{sink="slack"} 0`)
	if !strings.Contains(f.metrics(), `sallyport_alert_deliveries_total{outcome="retried",sink="slack"}`) {
		t.Error("no metric counts the tries")
	}
	r.heal()
	f.says("sink-failing", "recovered")
	f.told()
	f.shows(`sallyport_alert_sink_up{sink="slack"} 1`)
	f.atMostTwice()
	f.everyAlertWasTold()
	r.everySecondHasItsReason(append(ends, time.Now()))
	t.Logf("%d names, %d restarts, %d messages; faults %v", len(f.names), len(ends)+1, len(r.received()), r.faults)
}

// rage refuses names and ends the daemon until a time, and gives when it did.
func (f *faultRun) rage(r *roughSlack, until time.Time) (ends []time.Time) {
	f.t.Helper()
	longest := min(time.Minute, time.Until(until)/5)
	for time.Now().Before(until) {
		for range 1 + f.chance.below(3) {
			f.ask(fmt.Sprintf("chaos%d.example", len(f.names)))
		}
		if f.chance.below(6) == 0 {
			f.chance.pause(longest)
		} else {
			f.chance.pause(1500 * time.Millisecond)
		}
		if f.chance.below(2) == 0 { // a refusal that nothing but the log can know of yet
			f.ask(fmt.Sprintf("chaos%d.example", len(f.names)))
		}
		f.end(r, f.chance.below(3) > 0)
		ends = append(ends, time.Now())
	}
	return ends
}

// end kills the daemon, or ends it by SIGTERM, and starts it again.
func (f *faultRun) end(r *roughSlack, kill bool) {
	f.t.Helper()
	if kill {
		r.strike(f.kill)
	} else {
		f.stop()
	}
	f.run()
}

// everyAlertWasTold holds the alerts in the event log against the messages.
func (f *faultRun) everyAlertWasTold() {
	f.t.Helper()
	for _, e := range f.events() {
		severity := e.text("severity")
		if e.text("kind") != "alert" || severity != "medium" && severity != "high" && severity != "critical" {
			continue
		}
		eventually(f.t, "the group of "+e.text("summary"), func() bool { return f.s.mentions("group "+e.text("id")) > 0 }, f.dump)
	}
}

// everySecondHasItsReason holds why a message came twice: nobody answered it, or
// the daemon ended while the answer was on its way.
func (r *roughSlack) everySecondHasItsReason(ends []time.Time) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	last := make(map[string]receipt)
	for _, now := range r.receipt {
		for _, name := range now.names {
			first, before := last[name]
			last[name] = now
			if !before || !first.answered {
				continue
			}
			excused := false
			for _, end := range ends { // the daemon is there again by then
				excused = excused || end.After(first.at) && end.Before(first.at.Add(10*time.Second))
			}
			if !excused {
				r.t.Errorf("%s was taken and answered, and came again after %v", name, now.at.Sub(first.at))
			}
		}
	}
}
