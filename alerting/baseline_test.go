package alerting_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

const day = 24 * time.Hour

// reached is the end of an allowed connection that carried bytes.
func reached(host string, change ...func(*alerting.Event)) alerting.Event {
	return connect(host, 443, append([]func(*alerting.Event){func(e *alerting.Event) {
		e.Verdict, e.Reason, e.Phase, e.Sent = allowlists.Allow, allowlists.Allowed, alerting.PhaseClose, 517
	}}, change...)...)
}

func job(run string) func(*alerting.Event) {
	return func(e *alerting.Event) { e.Job = &allowlists.Job{Repo: "corp/app", RunID: run} }
}

func learning(learn time.Duration, jobs int) alerting.CorrelatorSetup {
	return alerting.CorrelatorSetup{Alerts: allowlists.Alerts{Baseline: allowlists.Baseline{Learn: learn, Jobs: jobs}}}
}

func TestFirstSeenSpeaksOfWhatIsNew(t *testing.T) {
	type events = []alerting.Event
	for _, c := range []struct {
		when   string
		events events
		want   string
	}{
		{"while it learns", events{reached("a.example"), reached("b.example", after(6*day))}, ""},
		{"after it has learnt", events{reached("a.example"), reached("b.example", after(8*day))}, "first-seen:medium:1"},
		{"a destination of two days", events{reached("a.example"), reached("a.example", after(day)), reached("a.example", after(8*day))}, ""},
		{"a destination of one day", events{reached("a.example"), reached("a.example"), reached("b.example", after(8*day)), reached("b.example", after(8*day))}, "first-seen:medium:2"},
		{"its second day", events{reached("a.example"), reached("b.example", after(8*day)), reached("b.example", after(9*day)), reached("b.example", after(10*day))}, "first-seen:medium:1"},
		{"two jobs of one day", events{reached("a.example"), reached("b.example", after(8*day), job("1")), reached("b.example", after(8*day), job("2"))}, "first-seen:medium:1"},
		{"another port", events{reached("a.example"), reached("a.example", after(day)), reached("a.example", after(8*day), func(e *alerting.Event) { e.Port = 8443 })}, "first-seen:medium:1"},
		{"another pool learns by itself", events{reached("a.example"), reached("b.example", after(8*day), inPool("deploy"))}, ""},
		{"a tunnel without a byte", events{reached("a.example"), reached("b.example", after(8*day), func(e *alerting.Event) { e.Sent = 0 })}, ""},
		{"a failure of the world", events{reached("a.example"), reached("b.example", after(8*day), reason(allowlists.TimedOut))}, ""},
		{"audit carried it", events{reached("a.example"), reached("b.example", after(8*day), func(e *alerting.Event) {
			e.Reason, e.Would = allowlists.AllowedByAudit, allowlists.NotInAllowlist
		})}, "first-seen:medium:1"},
	} {
		t.Run(c.when, func(t *testing.T) {
			correlator := newCorrelator(t, learning(7*day, 50))
			for _, e := range c.events {
				correlator.Take(e)
			}
			if got := summarise(correlator.Alerts()); got != c.want {
				t.Errorf("alerts are %q, want %q", got, c.want)
			}
		})
	}
}

func TestEnoughJobsEndLearning(t *testing.T) {
	c := newCorrelator(t, learning(7*day, 50))
	for i := range 50 {
		c.Take(reached("a.example", job(fmt.Sprint(i))))
	}
	c.Take(reached("new.example", job("49")))
	if got := summarise(c.Alerts()); got != "" {
		t.Fatalf("within 50 jobs: %q", got)
	}
	c.Take(reached("newer.example", job("50")))
	if got := summarise(c.Alerts()); got != "first-seen:medium:1" {
		t.Errorf("in the 51st job: %q", got)
	}
}

func TestASuspectTeachesNothing(t *testing.T) {
	c := newCorrelator(t, learning(7*day, 50))
	c.Take(connect("203.0.113.9", 443))
	c.Take(reached("a.example"))
	c.Take(reached("b.example", client("10.20.0.8")))
	entries := c.Entries("build")
	if len(entries) != 1 || entries[0].Destination != "b.example:443" || entries[0].By != "10.20.0.8" {
		t.Errorf("entries are %+v", entries)
	}
}

func TestEntriesCanBeRemoved(t *testing.T) {
	c := newCorrelator(t, learning(7*day, 50))
	c.Take(reached("a.example"))
	c.Take(reached("a.example", after(day)))
	if e := c.Entries("build"); len(e) != 1 || e[0].Entered.IsZero() {
		t.Fatalf("entries are %+v", e)
	}
	if !c.Forget("build", "a.example:443") || c.Forget("build", "a.example:443") {
		t.Error("removing works once")
	}
	c.Take(reached("a.example", after(8*day)))
	if got := summarise(c.Alerts()); got != "first-seen:medium:1" {
		t.Errorf("after the removal: %q", got)
	}
}

// TestNoSuspectTeaches though the group of what was found names others,
// and though it folded: a destination that only suspects reach stays news.
func TestNoSuspectTeaches(t *testing.T) {
	t.Parallel()
	for _, clients := range []int{1, 40, 20_000} {
		c := newCorrelator(t, learning(0, 0))
		c.Take(reached("ends-the-learning.example"))
		last := ""
		for i := range clients {
			last = fmt.Sprintf("10.21.%d.%d", i>>8, i&255)
			c.Take(connect("169.254.169.254", 80, special, client(last)))
		}
		for run := range 3 {
			c.Take(reached("drop.example", client(last), job(fmt.Sprint(run))))
		}
		news := 0
		for _, a := range c.Alerts() {
			if a.Host == "drop.example" {
				news += a.Count
			}
		}
		if news != 3 {
			t.Errorf("the last of %d clients teaches: %d of 3 visits are news", clients, news)
		}
	}
}

func TestTheBaselineStaysBounded(t *testing.T) {
	t.Parallel()
	c := newCorrelator(t, learning(7*day, 50))
	c.Take(reached("kept.example"))
	c.Take(reached("kept.example", after(day)))
	for i := range alerting.BaselineEntries * 11 / 10 {
		c.Take(reached(fmt.Sprintf("h%d.example", i), after(day)))
	}
	entries := c.Entries("build")
	if len(entries) > alerting.BaselineEntries {
		t.Errorf("%d entries", len(entries))
	}
	if last := entries[len(entries)-1].Destination; last != "kept.example:443" {
		t.Errorf("what entered was pushed out; the last is %s", last)
	}
}

func TestTheBaselineOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &alerting.MemoryStore{}
		setup := learning(7*day, 50)
		setup.Store, setup.Send = store, func(*http.Request) (*http.Response, error) { return reply(200), nil }
		one := runCorrelator(t, setup, nil)
		one.Take(reached("a.example"))
		one.Take(reached("a.example", after(day)))
		time.Sleep(2 * time.Second)
		one.stop()
		two := runCorrelator(t, setup, nil)
		defer two.stop()
		two.Take(reached("a.example", after(8*day)))
		two.Take(reached("b.example", after(8*day)))
		if got := summarise(two.Alerts()); got != "first-seen:medium:1" {
			t.Errorf("after the restart: %q", got)
		}
	})
}

func TestWithoutAStoreFirstSeenIsSilent(t *testing.T) {
	setup := learning(0, 1)
	c, err := alerting.NewCorrelator(setup)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		c.Take(reached(fmt.Sprintf("h%d.example", i), job(fmt.Sprint(i))))
	}
	if got := summarise(c.Alerts()); got != "" {
		t.Errorf("it says %q", got)
	}
}

func TestABaselineFileIsWhatAPoolHasLearnt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline.jsonl")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"pool":"build","destination":"a.example:443"}` + "\n")
	setup := learning(7*day, 50)
	setup.Alerts.Baseline.File = path
	c := newCorrelator(t, setup)
	c.Take(reached("a.example"))
	c.Take(reached("b.example"))
	if got := summarise(c.Alerts()); got != "first-seen:medium:1" {
		t.Errorf("alerts are %q", got)
	}
	write("a.example\n")
	setup.Store = &alerting.MemoryStore{}
	if _, err := alerting.NewCorrelator(setup); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a bad file gives %v", err)
	}
}
