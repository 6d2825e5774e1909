package alerting_test

import (
	"net/netip"
	"testing"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// TestRebindingSaysWhatWasAllowedAndForwarded reads the summaries of names that
// a rule allows, and of those that only audit lets pass.
func TestRebindingSaysWhatWasAllowedAndForwarded(t *testing.T) {
	ruled := func(e *alerting.Event) { e.Rule = "sallyport.yaml:14" }
	at := func(ip string) func(*alerting.Event) {
		return func(e *alerting.Event) { e.IP = netip.MustParseAddr(ip) }
	}
	special := reason(allowlists.SpecialAddress)
	for _, c := range []struct {
		when  string
		event alerting.Event
		want  string
	}{
		{"an allowed question", question("git.example", gave("10.1.2.3"), ruled), "the allowed name git.example was answered with 10.1.2.3 (private-use) in pool build"},
		{"an allowed connection, refused", connect("git.example", 443, special, at("10.1.2.3"), ruled), "the allowed name git.example was answered with 10.1.2.3 (private-use) in pool build"},
		{"an allowed connection, in audit", connect("git.example", 443, special, audited, at("10.1.2.3"), ruled),
			"the allowed name git.example was answered with 10.1.2.3 (private-use) in pool build, and audit forwarded the connection"},
		{"a name that no rule allows, in audit", connect("new.example", 443, special, audited, at("10.1.2.3")),
			"the name new.example was answered with 10.1.2.3 (private-use) in pool build, and audit forwarded the connection"},
		{"the same, to an address that audit refuses", connect("new.example", 443, special, at("127.0.0.1")), "the name new.example was answered with 127.0.0.1 (loopback) in pool build"},
	} {
		correlator := newCorrelator(t, alerting.CorrelatorSetup{})
		correlator.Take(c.event)
		if got := find(t, correlator, alerting.AlertRebinding).Summary; got != c.want {
			t.Errorf("%s: %q, want %q", c.when, got, c.want)
		}
	}
}
