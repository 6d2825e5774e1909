package alerting_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// pastAnswer is an answer that gave addresses.
func pastAnswer(name string, at time.Time, addrs ...string) alerting.Event {
	e := question(name)
	e.Verdict, e.Reason, e.Time = allowlists.Allow, allowlists.Allowed, at
	for _, text := range addrs {
		e.Answers = append(e.Answers, netip.MustParseAddr(text))
	}
	return e
}

// TestDirectIPNamesThePastAnswer tells an address that was kept for too long
// from one that nobody was given.
func TestDirectIPNamesThePastAnswer(t *testing.T) {
	for _, c := range []struct {
		what   string
		before []alerting.Event
		want   string
	}{
		{"nobody was given it", nil, "an address that no answer gave pool build"},
		{"long ago", []alerting.Event{pastAnswer("old.example", noon.Add(-3*time.Hour), "203.0.113.9")}, "which pool build was given for old.example 3h0m0s before: that answer is no longer good"},
		{"another pool was", []alerting.Event{func() alerting.Event {
			e := pastAnswer("old.example", noon.Add(-time.Hour), "203.0.113.9")
			e.Pool = "deploy"
			return e
		}()}, "an address that no answer gave pool build"},
		{"the name was refused since", []alerting.Event{question("old.example", func(e *alerting.Event) {
			e.Time, e.Answers = noon.Add(-time.Hour), []netip.Addr{netip.MustParseAddr("203.0.113.9")}
		})}, "an address that no answer gave pool build"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newCorrelator(t, alerting.CorrelatorSetup{Now: func() time.Time { return noon }})
			for _, e := range append(c.before, connect("203.0.113.9", 443)) {
				r.Take(e)
			}
			found := ""
			for _, a := range r.Alerts() {
				if a.Alert == alerting.AlertDirectIP {
					found = a.Summary
				}
			}
			if !strings.Contains(found, c.want) {
				t.Errorf("the summary is %q, want %q", found, c.want)
			}
		})
	}
}

// TestPastAnswersAreBounded gives far more addresses than are remembered.
func TestPastAnswersAreBounded(t *testing.T) {
	var past alerting.PastAnswers
	for i := range 100_000 {
		past.Observe(pastAnswer(fmt.Sprintf("n%d.example", i), noon, fmt.Sprintf("203.%d.%d.%d", i>>16, i>>8&255, i&255)))
	}
	if n := past.Size(); n > 2*alerting.PastMost {
		t.Errorf("%d answers are remembered", n)
	}
	past.Expire(noon.Add(25 * time.Hour))
	past.Expire(noon.Add(50 * time.Hour))
	if n := past.Size(); n != 0 {
		t.Errorf("%d answers are remembered after two days", n)
	}
}

// TestTheLatestRefusedNamesAreRemembered refuses names to a client, which then
// claims one of them at an address, too late to be taken for the last by its time.
func TestTheLatestRefusedNamesAreRemembered(t *testing.T) {
	name := func(i int) string { return fmt.Sprintf("n%d.example", i) }
	for _, refused := range []int{1, 2, 31, 32, 33, 64, 70} {
		for claimed := range refused {
			r := newCorrelator(t, alerting.CorrelatorSetup{})
			for i := range refused {
				r.Take(question(name(i)))
			}
			r.Take(connect(name(claimed), 443, transparent(name(claimed), "203.0.113.9"), after(5*time.Minute)))
			joined := slices.ContainsFunc(r.Alerts(), func(a alerting.Alert) bool {
				return a.Alert == alerting.AlertDeniedThenDirect && strings.HasPrefix(a.Summary, name(claimed)+" ")
			})
			if want := claimed >= refused-32; joined != want {
				t.Errorf("of %d refused names, the claim of number %d joins its refusal: %v, want %v", refused, claimed, joined, want)
			}
		}
	}
}
