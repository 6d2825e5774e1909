package alerting_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
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

// TestEntriesAreDocumented holds docs/control.md against what an entry has.
func TestEntriesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/control.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "## GET /api/v1/baseline\n")
	section, _, _ := strings.Cut(rest, "\n## ")
	var documented, has []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, row[1])
	}
	for field := range reflect.TypeFor[alerting.BaselineEntry]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		has = append(has, name)
	}
	slices.Sort(has)
	if !slices.Equal(slices.Sorted(slices.Values(documented)), has) {
		t.Errorf("documented are %v, an entry has %v", documented, has)
	}
}

func TestEntriesCanBeRemoved(t *testing.T) {
	c := newCorrelator(t, learning(7*day, 50))
	c.Take(reached("a.example"))
	c.Take(reached("a.example", after(day)))
	if e := c.Entries("build"); len(e) != 1 || e[0].Entered.IsZero() {
		t.Fatalf("entries are %+v", e)
	}
	c.Take(reached("once.example", after(day)))
	if e := c.Entries("build"); len(e) != 2 || e[1].Last.Before(e[1].First) {
		t.Errorf("a destination was last reached before it was reached first: %+v", e)
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

// TestWhoTeachesTheBaseline: distinct jobs or days do, and nothing that only
// looks like two of them.
func TestWhoTeachesTheBaseline(t *testing.T) {
	nearMidnight := 11*time.Hour + 55*time.Minute // noon is the clock of the events
	type events = []alerting.Event
	for _, c := range []struct {
		who     string
		events  events
		entered bool
	}{
		{"one client on two days", events{reached("a.example"), reached("a.example", after(day))}, true},
		{"one client over midnight", events{reached("a.example", after(nearMidnight)), reached("a.example", after(nearMidnight+10*time.Minute))}, false},
		{"many clients on one day", events{reached("a.example"), reached("a.example", client("10.20.0.8")), reached("a.example", client("10.20.0.9"))}, false},
		{"one job on two days", events{reached("a.example", job("1")), reached("a.example", job("1"), after(2*day))}, false},
		{"two jobs", events{reached("a.example", job("1")), reached("a.example", job("2"))}, true},
		{"one job, known and not", events{reached("a.example"), reached("a.example", job("1"))}, false},
		{"a suspect on two days", events{connect("203.0.113.9", 443), reached("a.example"), reached("a.example", after(day))}, false},
		{"a suspect and another", events{reached("a.example"), connect("203.0.113.9", 443), reached("a.example", after(day))}, false},
		{"a suspect of another pool", events{connect("203.0.113.9", 443, inPool("deploy")), reached("a.example"), reached("a.example", after(day))}, true},
	} {
		t.Run(c.who, func(t *testing.T) {
			correlator := newCorrelator(t, learning(7*day, 50))
			for _, e := range c.events {
				correlator.Take(e)
			}
			entered := false
			for _, entry := range correlator.Entries("build") {
				entered = entered || !entry.Entered.IsZero()
			}
			if entered != c.entered {
				t.Errorf("entered: %v, want %v", entered, c.entered)
			}
		})
	}
}

// TestAPoisonedBaselineHidesNothingElse: with the attacker's host, address and
// names in the baseline, every alert but first-seen is raised all the same.
func TestAPoisonedBaselineHidesNothingElse(t *testing.T) {
	poisoned := func(t *testing.T) alerting.Correlator {
		c := newCorrelator(t, learning(7*day, 50))
		for d := range 9 {
			for _, host := range []string{"evil.example", "t.wild.example"} {
				c.Take(reached(host, after(time.Duration(d)*day)))
			}
			for _, ip := range []string{"203.0.113.9", "169.254.169.254"} {
				c.Take(reached(ip, after(time.Duration(d)*day)))
			}
		}
		for _, entry := range c.Entries("build") {
			if entry.Entered.IsZero() {
				t.Fatalf("%s is not in the baseline", entry.Destination)
			}
		}
		return c
	}
	for alert, events := range map[string][]alerting.Event{
		alerting.AlertDeniedEgress:   {connect("evil.example", 443, after(9*day))},
		alerting.AlertDirectIP:       {connect("203.0.113.9", 443, after(9*day))},
		alerting.AlertMetadataAccess: {connect("169.254.169.254", 443, after(9*day), reason(allowlists.SpecialAddress))},
		alerting.AlertUploadVolume:   {reached("evil.example", bytesSent(11*mb), after(9*day))},
	} {
		t.Run(alert, func(t *testing.T) {
			c := poisoned(t)
			for _, e := range events {
				c.Take(e)
			}
			find(t, c, alert)
		})
	}
}

// TestAFileThatWasExported brings usual, first and by along, and is not asked
// again for what was removed.
func TestAFileThatWasExported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline.jsonl")
	lines := `{"pool":"build","destination":"a.example:443","first":"2025-01-02T03:04:05Z","by":"10.9.9.9","usual":7000000}` + "\n" +
		`{"pool":"build","destination":"b.example:443"}` + "\n"
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	setup := learning(7*day, 50)
	setup.Store, setup.Alerts.Baseline.File = &alerting.MemoryStore{}, path
	one := newCorrelator(t, setup)
	one.Take(reached("a.example", bytesSent(69*mb)))
	if got := summarise(one.Alerts()); got != "" {
		t.Errorf("alerts are %q", got)
	}
	if e := one.Entries("build")[0]; e.By != "10.9.9.9" || e.First.Year() != 2025 || e.Usual != 7*mb || !e.FromFile {
		t.Errorf("the entry is %+v", e)
	}
	if !one.Forget("build", "b.example:443") || one.Forget("build", "b.example:443") {
		t.Error("removing works once")
	}
	one.Keep()
	two := newCorrelator(t, setup)
	if entries := two.Entries("build"); len(entries) != 1 {
		t.Errorf("after a restart there are %+v", entries)
	}
	two.Take(reached("b.example"))
	if got := summarise(two.Alerts()); got != "first-seen:medium:1" {
		t.Errorf("of what was removed: %q", got)
	}
	two.Take(reached("b.example", after(day)))
	if entries := two.Entries("build"); len(entries) != 2 || entries[1].Entered.IsZero() || entries[1].By != "10.20.0.7" {
		t.Errorf("what was removed does not enter again: %+v", entries)
	}

	if err := os.WriteFile(path, []byte(`{"pool":"build","destination":"a.example:443"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	newCorrelator(t, setup).Keep() // the file names b.example no more
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	if entries := newCorrelator(t, setup).Entries("build"); len(entries) != 2 {
		t.Errorf("a file that names it again is not believed: %+v", entries)
	}
}

// TestWhatAFileNamesDoesNotAge, until the file names it no more.
func TestWhatAFileNamesDoesNotAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline.jsonl")
	name := func(hosts ...string) {
		var lines strings.Builder
		for _, host := range hosts {
			fmt.Fprintf(&lines, "{\"pool\":\"build\",\"destination\":\"%s:443\"}\n", host)
		}
		if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	setup := learning(7*day, 50)
	setup.Store, setup.Alerts.Baseline.File = &alerting.MemoryStore{}, path
	left := func() (destinations []string) {
		c := newCorrelator(t, setup)
		c.Begin(alerting.Position{})                  // opens the store and the file
		c.Take(reached("b.example", bytesSent(5*mb))) // so that the store has it
		c.Keep()
		c.Tick(time.Now().Add(100 * day))
		for _, e := range c.Entries("build") {
			destinations = append(destinations, e.Destination)
		}
		return destinations
	}
	name("a.example", "b.example")
	if got := left(); len(got) != 2 {
		t.Errorf("after 100 days there are %v", got)
	}
	name("a.example")
	if got := left(); !slices.Equal(got, []string{"a.example:443"}) {
		t.Errorf("100 days after the file was shortened there are %v", got)
	}
}

// TestAFileIsEnoughForABaseline: without a store there is one all the same.
func TestAFileIsEnoughForABaseline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline.jsonl")
	if err := os.WriteFile(path, []byte(`{"pool":"build","destination":"a.example:443"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	setup := learning(7*day, 50)
	setup.Alerts.Baseline.File = path
	c, err := alerting.NewCorrelator(setup)
	if err != nil {
		t.Fatal(err)
	}
	c.Take(reached("a.example"))
	c.Take(reached("b.example"))
	if got := summarise(c.Alerts()); got != "first-seen:medium:1" {
		t.Errorf("alerts are %q", got)
	}
}

// TestARemovalOutlivesAFlood of new destinations, which fill the baseline.
func TestARemovalOutlivesAFlood(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "baseline.jsonl")
	if err := os.WriteFile(path, []byte(`{"pool":"build","destination":"a.example:443"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	setup := learning(7*day, 50)
	setup.Store, setup.Alerts.Baseline.File = &alerting.MemoryStore{}, path
	c := newCorrelator(t, setup)
	c.Forget("build", "a.example:443")
	for i := range alerting.BaselineEntries * 11 / 10 {
		c.Take(reached(fmt.Sprintf("h%d.example", i), after(day)))
	}
	c.Keep()
	for _, entry := range newCorrelator(t, setup).Entries("build") {
		if entry.Destination == "a.example:443" {
			t.Errorf("the file has brought it back: %+v", entry)
		}
	}
}
