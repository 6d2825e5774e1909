package alerting_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// resolved is a question of 10.20.0.7 that was answered with addresses.
func resolved(name string, change ...func(*alerting.Event)) alerting.Event {
	return question(name, append([]func(*alerting.Event){func(e *alerting.Event) {
		e.Verdict, e.Reason, e.Answers = allowlists.Allow, allowlists.Allowed, []netip.Addr{netip.MustParseAddr("203.0.113.80"), netip.MustParseAddr("203.0.113.81")}
	}}, change...)...)
}

// went is a connection that was allowed, in a phase.
func went(host, ip, phase string, change ...func(*alerting.Event)) alerting.Event {
	return connect(host, 443, append([]func(*alerting.Event){func(e *alerting.Event) {
		e.Verdict, e.Reason, e.Phase = allowlists.Allow, allowlists.Allowed, phase
		if ip != "" {
			e.IP = netip.MustParseAddr(ip)
		}
	}}, change...)...)
}

func TestANameIsUnusedIfNoConnectionCame(t *testing.T) {
	type events = []alerting.Event
	minutes := func(n int) func(*alerting.Event) { return after(time.Duration(n) * time.Minute) }
	const unused = "resolved-unused:info:1"
	for _, c := range []struct {
		when   string
		events events
		want   string
	}{
		{"a name that nobody used", events{resolved("a.example")}, unused},
		{"A and AAAA of it", events{resolved("a.example"), resolved("a.example", func(e *alerting.Event) { e.Type = "AAAA" })}, unused},
		{"asked again from the cache", events{resolved("a.example"), resolved("a.example", minutes(5), func(e *alerting.Event) { e.Cached = true })}, unused},
		{"another name was used", events{resolved("a.example"), went("b.example", "203.0.113.99", alerting.PhaseOpen)}, unused},
		{"used in another pool", events{resolved("a.example"), went("a.example", "203.0.113.80", alerting.PhaseOpen, inPool("deploy"))}, unused},
		{"used too late", events{resolved("a.example"), went("a.example", "", alerting.PhaseOpen, minutes(30))}, unused},
		{"used long before", events{went("a.example", "", alerting.PhaseClose), resolved("a.example", minutes(15))}, unused},

		{"used by name", events{resolved("a.example"), went("a.example", "203.0.113.99", alerting.PhaseOpen, minutes(9))}, ""},
		{"used by name in another spelling", events{resolved("a.example"), went("A.example.", "", alerting.PhaseOpen)}, ""},
		{"used before it was asked for again", events{went("a.example", "", alerting.PhaseOpen), resolved("a.example", minutes(5))}, ""},
		{"still used by a tunnel", events{went("a.example", "", alerting.PhaseOpen), went("a.example", "", alerting.PhaseProgress, minutes(14)), resolved("a.example", minutes(15))}, ""},
		{"used by an address of it", events{resolved("a.example"), went("203.0.113.81", "203.0.113.81", alerting.PhaseOpen)}, ""},
		{"used by a connection to another name there", events{resolved("a.example"), went("b.example", "203.0.113.80", alerting.PhaseOpen)}, ""},
		{"used by the name in TLS", events{resolved("a.example"), went("203.0.113.99", "203.0.113.99", alerting.PhaseOpen, func(e *alerting.Event) { e.SNI = "a.example" })}, ""},
		{"used as one of the address's names", events{resolved("a.example"), went("b.example", "203.0.113.99", alerting.PhaseOpen, func(e *alerting.Event) { e.Names = []string{"b.example", "a.example"} })}, ""},
		{"used where it was redirected from", events{resolved("a.example"), went("b.example", "203.0.113.99", alerting.PhaseOpen, func(e *alerting.Event) { e.Original = netip.MustParseAddr("203.0.113.80") })}, ""},
		{"used by another client of the pool", events{resolved("a.example"), went("a.example", "", alerting.PhaseOpen, client("10.20.0.8"))}, ""},
		{"tried in vain", events{resolved("a.example"), connect("a.example", 22, reason(allowlists.PortNotAllowed))}, "denied-egress:medium:1"},
		{"asked by the proxy", events{resolved("a.example", func(e *alerting.Event) { e.By = alerting.ByProxy })}, ""},
		{"without addresses", events{resolved("a.example", func(e *alerting.Event) { e.Answers = nil })}, ""},
		{"of another type", events{resolved("a.example", func(e *alerting.Event) { e.Type = "HTTPS" })}, ""},
		{"refused", events{question("a.example", quiet)}, ""},
	} {
		if got := unusedAfter(t, c.events, 45*time.Minute); got != c.want {
			t.Errorf("%s: raises %q, want %q", c.when, got, c.want)
		}
	}
	if got := unusedAfter(t, events{resolved("a.example")}, 9*time.Minute); got != "" {
		t.Errorf("before its time: raises %q", got)
	}
}

// unusedAfter takes the events as of the past and then one of later, and gives
// every alert that was raised.
func unusedAfter(t *testing.T, events []alerting.Event, later time.Duration) string {
	t.Helper()
	var ended []alerting.Alert
	o, err := alerting.NewOffline(alerting.OfflineConfig{Ended: func(a alerting.Alert) { ended = append(ended, a) }})
	if err != nil {
		t.Fatal(err)
	}
	begun := events[0].Time
	take := func(e alerting.Event) {
		if err := o.Take(&e); err != nil {
			t.Fatal(err)
		}
	}
	for minute := time.Duration(0); minute <= later; minute += time.Minute {
		for len(events) > 0 && !events[0].Time.After(begun.Add(minute)) {
			take(events[0])
			events = events[1:]
		}
		take(alerting.Event{Kind: alerting.KindSystem, Event: alerting.SystemStarted, Time: begun.Add(minute), Details: map[string]any{"book_kept": true}})
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	return summarise(ended)
}

// TestUnusedNamesAreALineOfTheLogAlone has a webhook and Slack that take
// everything, and names of two pools.
func TestUnusedNamesAreALineOfTheLogAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := map[string]alerting.Event{}
		alerts := toWebhook()
		alerts.Slack = allowlists.Slack{WebhookURL: "https://hooks.example/services/x", MinSeverity: "info"}
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: alerts, Emit: func(e alerting.Event) { lines[e.Pool] = e }}, nil)
		r.Take(now(resolved("other.example", inPool("deploy"))))
		for i := range 30 {
			r.Take(now(resolved(fmt.Sprintf("n%02d.example", i))))
		}
		time.Sleep(20 * time.Minute)
		r.stop()
		if at, _ := r.got(); len(at) != 0 {
			t.Errorf("%d messages were sent", len(at))
		}
		if len(lines) != 2 || lines["build"].Count != 30 || lines["build"].Severity != "info" ||
			!strings.HasPrefix(lines["build"].Summary, "30 names were asked for and never connected to by 10.20.0.7 in pool build, n00.example first") {
			t.Errorf("the lines are %+v", lines)
		}
	})
}

// TestUnusedNamesAreBounded asks for more names than are looked at, and uses
// more than are remembered.
func TestUnusedNamesAreBounded(t *testing.T) {
	asking := func(n int) (events []alerting.Event) {
		for i := range n {
			events = append(events, resolved(fmt.Sprintf("n%d.example", i), client(fmt.Sprintf("10.20.1.%d", i%200))))
		}
		return events
	}
	if got, want := unusedAfter(t, asking(5000), 15*time.Minute), "resolved-unused:info:4096"; got != want {
		t.Errorf("5,000 names raise %q, want %q", got, want)
	}
	events := asking(10)
	for i := range 17000 {
		events = append(events, went(fmt.Sprintf("u%d.example", i), "", alerting.PhaseOpen))
	}
	if got := unusedAfter(t, events, 15*time.Minute); got != "" {
		t.Errorf("names beside 17,000 uses raise %q", got)
	}
}
