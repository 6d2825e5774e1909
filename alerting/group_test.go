package alerting_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestMoreThanFiveGroupsOfAClientFold(t *testing.T) {
	c := newCorrelator(t, alerting.CorrelatorSetup{})
	for i := range 5 {
		c.Take(question(fmt.Sprintf("host%02d.example", i)))
	}
	if n := c.OpenGroups(); n != 5 {
		t.Fatalf("%d groups after 5 destinations", n)
	}
	c.Take(question("host00.example"))
	for i := 5; i < 25; i++ {
		c.Take(question(fmt.Sprintf("host%02d.example", i)))
		c.Take(connect(fmt.Sprintf("host%02d.example", i), 443))
	}
	if got := summarise(c.Alerts()); got != "denied-egress:medium:46" {
		t.Fatalf("groups are %q", got)
	}
	a := c.Alerts()[0]
	if a.DestinationCount != 25 || len(a.Destinations) != 10 || a.Destinations[0] != "host00.example" {
		t.Errorf("it lists %d destinations, first %v", a.DestinationCount, a.Destinations)
	}
	if !strings.Contains(a.Summary, "25 destinations were refused to 10.20.0.7") {
		t.Errorf("it says %q", a.Summary)
	}
}

// kinds are the alerts with a group for each destination: what raises the n-th.
var kinds = []struct {
	alert, summary string
	event          func(n int) alerting.Event
}{
	{alerting.AlertDeniedEgress, "25 destinations were refused to 10.20.0.7 in pool build", func(n int) alerting.Event {
		return question(fmt.Sprintf("host%02d.example", n))
	}},
	{alerting.AlertDirectIP, "25 addresses that no answer gave were tried by 10.20.0.7 in pool build", func(n int) alerting.Event {
		return connect(fmt.Sprintf("203.0.113.%d", 10+n), 443)
	}},
	{alerting.AlertSNIMismatch, "25 hosts were asked for, and others named, by 10.20.0.7 in pool build", func(n int) alerting.Event {
		return connect(fmt.Sprintf("host%02d.example", n), 443, reason(allowlists.SNIMismatch))
	}},
	{alerting.AlertAddressMismatch, "25 hosts were claimed at addresses they never had by 10.20.0.7 in pool build", func(n int) alerting.Event {
		return connect(fmt.Sprintf("host%02d.example", n), 443, redialled)
	}},
	{alerting.AlertForeignResolver, "25 resolvers were wanted by 10.20.0.7 in pool build", func(n int) alerting.Event {
		return question(fmt.Sprintf("host%02d.example", n), reason(allowlists.ResolverBypass))
	}},
	{alerting.AlertRebinding, "25 names were answered with special addresses to 10.20.0.7 in pool build", func(n int) alerting.Event {
		return question(fmt.Sprintf("host%02d.example", n), gave("10.1.2.3"))
	}},
	{alerting.AlertFirstSeen, "25 allowed but new destinations were reached by 10.20.0.7 in pool build", func(n int) alerting.Event {
		return connect(fmt.Sprintf("host%02d.example", n), 443, func(e *alerting.Event) {
			e.Verdict, e.Reason, e.Phase, e.Sent = allowlists.Allow, allowlists.Allowed, alerting.PhaseClose, 100
		})
	}},
}

// redialled makes a connection one whose name never had the address it was made to.
func redialled(e *alerting.Event) {
	e.Verdict, e.Reason, e.Phase, e.Via = allowlists.Allow, allowlists.Allowed, alerting.PhaseOpen, "tls"
	e.Redialled, e.IP, e.Original = true, netip.MustParseAddr("140.82.121.4"), netip.MustParseAddr("203.0.113.5")
}

func TestEachKindFoldsPerClient(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.alert, func(t *testing.T) {
			learnt := toWebhook()
			learnt.Thresholds = map[string]allowlists.Threshold{"scan_destinations": 1000}
			learnt.Baseline.File = filepath.Join(t.TempDir(), "baseline")
			if err := os.WriteFile(learnt.Baseline.File, []byte(`{"pool":"build","destination":"known.example:443"}`+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c := newCorrelator(t, alerting.CorrelatorSetup{Alerts: learnt})
			for i := range 5 {
				c.Take(kind.event(i))
			}
			if n := c.OpenGroups(); n != 5 {
				t.Fatalf("%d groups after 5 destinations", n)
			}
			for i := 5; i < 25; i++ {
				c.Take(kind.event(i))
			}
			all := c.Alerts()
			if len(all) != 1 || all[0].Alert != kind.alert || all[0].Count != 25 || all[0].DestinationCount != 25 || len(all[0].Destinations) != 10 {
				t.Fatalf("groups are %s: %+v", summarise(all), all)
			}
			if all[0].Summary != kind.summary {
				t.Errorf("it says %q", all[0].Summary)
			}
		})
	}
}

// TestAlertsNameTheClientAsItsEventDoes: who looks for the client of an alert
// finds its events, though groups are kept apart by machine.
func TestAlertsNameTheClientAsItsEventDoes(t *testing.T) {
	for _, c := range []struct{ first, others, machine, key string }{
		{"127.77.0.9", "127.78.0.%d", "", "127.0.0.1"},
		{"fd00:20::7", "fd00:20::1:%d", "10.20.0.7", "10.20.0.7"},
		{"10.20.0.9", "10.20.0.9", "", "10.20.0.9"},
	} {
		correlator := newCorrelator(t, alerting.CorrelatorSetup{})
		refused := func(host, from string) alerting.Event {
			return connect(host, 443, func(e *alerting.Event) {
				e.Client, e.Verdict, e.Reason, e.Phase = netip.MustParseAddr(from), allowlists.Deny, allowlists.NotInAllowlist, alerting.PhaseRefused
				if c.machine != "" {
					e.Machine = netip.MustParseAddr(c.machine)
				}
			})
		}
		correlator.Take(refused("evil.example", c.first))
		if a := correlator.Alerts()[0]; a.Client.String() != c.first || a.Summary != "evil.example:443 was refused to "+c.first+" in pool build (not-in-allowlist)" {
			t.Errorf("%s: the alert is of %s and says %q", c.first, a.Client, a.Summary)
		}
		for i := range 25 {
			from := c.others
			if strings.Contains(from, "%") {
				from = fmt.Sprintf(from, i+1)
			}
			correlator.Take(refused(fmt.Sprintf("evil%d.example", i), from))
		}
		all := correlator.Alerts()
		if len(all) != 1 || all[0].Key != "denied-egress/build/client "+c.key || all[0].Client.String() != c.first || !strings.Contains(all[0].Summary, " "+c.first+" in pool build") {
			t.Errorf("%s: folded into %s: %+v", c.first, summarise(all), all[0])
		}
	}
}

func TestUnknownClientsOfAPoolFoldTogether(t *testing.T) {
	c := newCorrelator(t, alerting.CorrelatorSetup{})
	for i := range 25 {
		c.Take(connect(fmt.Sprintf("203.0.113.%d", i), 443, func(e *alerting.Event) { e.Client = netip.Addr{} }))
	}
	if got := summarise(c.Alerts()); got != "direct-ip:high:25" {
		t.Fatalf("groups are %q", got)
	}
	if a := c.Alerts()[0]; a.Key != "direct-ip/build/client unknown" || !strings.HasSuffix(a.Summary, "by unknown clients in pool build") {
		t.Errorf("%s says %q", a.Key, a.Summary)
	}
}

// TestWhatFiltersAnswerDoesNotHideRebinding folds the names that an upstream
// blocks, and then has one answered with a private address.
func TestWhatFiltersAnswerDoesNotHideRebinding(t *testing.T) {
	c := newCorrelator(t, alerting.CorrelatorSetup{})
	for i := range 25 {
		c.Take(question(fmt.Sprintf("ads%d.example", i), gave("0.0.0.0")))
	}
	c.Take(question("git.example", gave("10.1.2.3")))
	if got := summarise(c.Alerts()); got != "rebinding:high:1 rebinding:info:25" {
		t.Fatalf("groups are %q", got)
	}
	for i := range 3 { // groups that become high leave those that may fold as info
		c.Take(question(fmt.Sprintf("more%d.example", i), gave("10.1.2.3")))
		c.Take(question(fmt.Sprintf("more%d.example", i), gave("0.0.0.0")))
	}
	if got := summarise(c.Alerts()); got != "rebinding:high:1 rebinding:high:2 rebinding:high:2 rebinding:high:2 rebinding:info:25" {
		t.Errorf("groups are %q", got)
	}
}

func TestAGroupThatBecomesHighFoldsWithTheHighOnes(t *testing.T) {
	c := newCorrelator(t, alerting.CorrelatorSetup{})
	for i := range 5 {
		c.Take(question(fmt.Sprintf("high%d.example", i), gave("10.1.2.3")))
		c.Take(question(fmt.Sprintf("info%d.example", i), gave("0.0.0.0")))
	}
	c.Take(question("info0.example", gave("10.1.2.3")))
	if got := summarise(c.Alerts()); got != "rebinding:high:7 rebinding:info:1 rebinding:info:1 rebinding:info:1 rebinding:info:1" {
		t.Errorf("groups are %q", got)
	}
}

func TestAFoldListsDestinationsHoweverManyOthersHave(t *testing.T) {
	c := newCorrelator(t, alerting.CorrelatorSetup{})
	for i := range 80_000 { // more than all folds together tell apart
		who := client(fmt.Sprintf("10.9.0.%d", i%20))
		c.Take(connect(fmt.Sprintf("8.%d.%d.%d", i>>16, i>>8&255, i&255), 443, who))
	}
	for i := range 12 {
		c.Take(connect(fmt.Sprintf("203.0.113.%d", i), 443))
	}
	sum := 0
	for _, a := range c.Alerts() {
		sum += a.Count
		if a.Client.String() == "10.20.0.7" && (len(a.Destinations) != 10 || a.Destinations[0] != "203.0.113.0" || !a.More) {
			t.Errorf("it lists %v", a.Destinations)
		}
	}
	if sum != 80_012 {
		t.Errorf("counts add up to %d", sum)
	}
}

func TestAnotherClientDoesNotFold(t *testing.T) {
	c := newCorrelator(t, alerting.CorrelatorSetup{})
	for i := range 4 {
		c.Take(question(fmt.Sprintf("one%d.example", i)))
		c.Take(question(fmt.Sprintf("two%d.example", i), client("10.20.0.8")))
	}
	if n := c.OpenGroups(); n != 8 {
		t.Errorf("%d groups, want 8", n)
	}
}

func TestAFullQueueFoldsTheLargestSetOfTheLowestSeverity(t *testing.T) {
	var folded []map[string]any
	c := newCorrelator(t, alerting.CorrelatorSetup{Groups: 100, System: func(event string, details map[string]any) {
		if event == alerting.SystemAlertFolded {
			folded = append(folded, details)
		}
	}})
	total := 0
	take := func(e alerting.Event) { total++; c.Take(e) }
	for i := range 40 { // 40 high, 10 medium of a quiet pool, the rest of a noisy one
		take(connect(fmt.Sprintf("203.0.113.%d", i), 443, client(fmt.Sprintf("10.7.0.%d", i))))
	}
	for i := range 10 {
		take(question(fmt.Sprintf("q%d.example", i), inPool("calm"), client(fmt.Sprintf("10.9.0.%d", i))))
	}
	take(question("evil.example"))
	take(connect("203.0.114.1", 443)) // critical
	for i := range 500 {
		take(question(fmt.Sprintf("n%d.example", i), inPool("noisy"), client(fmt.Sprintf("10.8.%d.%d", i/200, i%200))))
	}
	if n := c.OpenGroups(); n > 101 {
		t.Errorf("%d groups are open, the bound is 100 and the critical one", n)
	}
	if len(folded) != 1 || folded[0]["pool"] != "noisy" || folded[0]["alert"] != alerting.AlertDeniedEgress {
		t.Errorf("folded: %v", folded)
	}
	sum, calm, critical := 0, 0, 0
	for _, a := range c.Alerts() {
		sum += a.Count
		if a.Pool == "calm" {
			calm++
		}
		if a.Severity == alerting.Critical {
			critical++
		}
	}
	if sum != total || calm != 10 || critical != 1 {
		t.Errorf("counts add up to %d of %d; the calm pool has %d groups of 10; %d critical of 1", sum, total, calm, critical)
	}
}

func TestCriticalGroupsStayBoundedAndCritical(t *testing.T) {
	c := newCorrelator(t, alerting.CorrelatorSetup{Groups: 50})
	for i := range 3000 {
		who := client(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		c.Take(question("evil.example", who, quiet))
		c.Take(connect("203.0.113.9", 443, who))
	}
	sum := 0
	for _, a := range c.Alerts() {
		if a.Severity != alerting.Critical {
			t.Fatalf("%s is %s", a.Key, a.Severity)
		}
		sum += a.Count
	}
	if n := c.OpenGroups(); n > 1025 || sum != 3000 {
		t.Errorf("%d groups with %d findings of 3000", n, sum)
	}
}

func TestAGroupKeepsItsFirstAndLatestEvidence(t *testing.T) {
	c := newCorrelator(t, alerting.CorrelatorSetup{})
	var ids []string
	for i := range 100 {
		e := question("evil.example", after(time.Duration(i)*time.Second))
		ids = append(ids, e.ID)
		c.Take(e)
	}
	a := c.Alerts()[0]
	if want := append(slices.Clone(ids[:9]), ids[99]); !slices.Equal(a.Evidence, want) {
		t.Errorf("evidence is %v, want %v", a.Evidence, want)
	}
	if !a.First.Equal(noon) || !a.Last.Equal(noon.Add(99*time.Second)) {
		t.Errorf("from %s to %s", a.First, a.Last)
	}
}

func TestReadingTheLogAgainGivesTheSameGroup(t *testing.T) {
	e := question("evil.example")
	one, two := newCorrelator(t, alerting.CorrelatorSetup{}), newCorrelator(t, alerting.CorrelatorSetup{})
	one.Take(e)
	two.Take(e)
	if a, b := one.Alerts()[0].ID, two.Alerts()[0].ID; a != b {
		t.Errorf("ids are %s and %s", a, b)
	}
}

func TestStateStaysBounded(t *testing.T) {
	t.Parallel()
	c := newCorrelator(t, alerting.CorrelatorSetup{Groups: 256})
	for i := range 20_000 {
		who := client(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		c.Take(question(fmt.Sprintf("n%d.example", i), who))
	}
	if n := c.OpenGroups(); n > 256 {
		t.Errorf("%d groups are open", n)
	}
	if n := c.RefusedClients(); n > alerting.RefusedClients {
		t.Errorf("%d clients are remembered", n)
	}
	if a := c.Alerts(); len(a) > 0 && len(a[0].Destinations) > 10 {
		t.Errorf("%d destinations are listed", len(a[0].Destinations))
	}
}
