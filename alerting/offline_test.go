package alerting_test

import (
	"net/netip"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// TestOfflineGoesByTheEvents joins a refusal and a connection of long ago, and
// again an hour later: two groups, as the first has closed.
func TestOfflineGoesByTheEvents(t *testing.T) {
	var ended []alerting.Alert
	o, err := alerting.NewOffline(alerting.OfflineConfig{Ended: func(a alerting.Alert) { ended = append(ended, a) }})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, later := range []time.Duration{0, time.Hour} {
		for _, e := range []alerting.Event{
			{Kind: alerting.KindDNS, ID: "q", Host: "evil.example", Name: "evil.example.", Reason: allowlists.NotInAllowlist},
			{Kind: alerting.KindConn, ID: "c", Phase: alerting.PhaseRefused, Via: "tcp", IP: netip.MustParseAddr("203.0.113.9"), Port: 443, Reason: allowlists.AddressMismatch},
		} {
			e.Time, e.Pool, e.Client = begun.Add(later), "build", netip.MustParseAddr("10.20.0.7")
			if err := o.Take(&e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(ended); n != 2 {
		t.Errorf("%d groups of the first time ended before the end, not 2", n)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, a := range ended {
		counts[a.Alert]++
		if since := a.First.Sub(begun); since != 0 && since != time.Hour {
			t.Errorf("%s was first seen %s after the beginning", a.Alert, since)
		}
	}
	if len(ended) != 4 || counts[alerting.AlertDeniedThenDirect] != 2 || counts[alerting.AlertDeniedEgress] != 2 {
		t.Errorf("the alerts are %v", counts)
	}
}

// TestOfflineWithoutEvents ends without any.
func TestOfflineWithoutEvents(t *testing.T) {
	o, err := alerting.NewOffline(alerting.OfflineConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}
