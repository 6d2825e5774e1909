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

// offlineAlerts gives the alerts that events of the past come to, but those of
// the kinds that are not wanted.
func offlineAlerts(t *testing.T, policy *allowlists.Policy, events func(take func(alerting.Event)), without ...string) []alerting.Alert {
	t.Helper()
	var ended []alerting.Alert
	o, err := alerting.NewOffline(alerting.OfflineConfig{Policy: policy, Ended: func(a alerting.Alert) {
		if !slices.Contains(without, a.Alert) {
			ended = append(ended, a)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	events(func(e alerting.Event) {
		if err := o.Take(&e); err != nil {
			t.Fatal(err)
		}
	})
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	return ended
}

// upstreamed is an allowed question that went upstream.
func upstreamed(e *alerting.Event) {
	e.Verdict, e.Reason, e.Upstream, e.RCode = allowlists.Allow, allowlists.Allowed, "10.0.0.2:53", "NOERROR"
}

// datum is the i-th name that carries data.
func datum(i int) string { return fmt.Sprintf("%040x.tunnel.example", i*2654435761) }

func TestDNSTunnelRaises(t *testing.T) {
	for _, tt := range []struct {
		what  string
		names int
		event func(i int) alerting.Event
		want  string // alert, or ""
		says  string
	}{
		{"a hundred refused names", 100, func(i int) alerting.Event { return question(datum(i)) }, "dns-tunnel", "all of it was refused, and nothing left"},
		{"ninety-nine refused names", 99, func(i int) alerting.Event { return question(datum(i)) }, "", ""},
		{"a hundred allowed names", 100, func(i int) alerting.Event { return question(datum(i), upstreamed) }, "dns-tunnel", "100 names and 4.0 KiB have left"},
		{"a hundred names over more than ten minutes", 100, func(i int) alerting.Event {
			return question(datum(i), after(time.Duration(i)*10*time.Second))
		}, "", ""},
		{"cached answers", 300, func(i int) alerting.Event {
			return question(datum(i), upstreamed, func(e *alerting.Event) { e.Cached = true })
		}, "", ""},
		{"one refused name, all day", 100_000, func(i int) alerting.Event {
			return question("telemetry.vendor.example", after(time.Duration(i)*800*time.Millisecond))
		}, "", ""},
		{"search suffixes that echo", 300, func(i int) alerting.Event { return question(datum(i), search) }, "", ""},
		{"addresses looked up in reverse", 3000, func(i int) alerting.Event {
			return question(fmt.Sprintf("%d.%d.0.10.in-addr.arpa", i%250, i/250), func(e *alerting.Event) { e.Type = "PTR" })
		}, "", ""},
		{"addresses as names", 300, func(i int) alerting.Event {
			return question(fmt.Sprintf("10.0.%d.%d", i/250, i%250), reason(allowlists.BadHost), func(e *alerting.Event) { e.Host = "" })
		}, "", ""},
		{"a block list", 3000, func(i int) alerting.Event { return question(fmt.Sprintf("%d.%d.0.10.zen.spamhaus.org", i%250, i/250)) }, "", ""},
		{"bytes that are no letters", 100, func(i int) alerting.Event {
			return question(fmt.Sprintf(`\200%d\255.tunnel.example`, i), reason(allowlists.BadHost), func(e *alerting.Event) { e.Host = "" })
		}, "dns-tunnel", "nothing left"},
		{"one name as dns2tcp writes them", 1, func(i int) alerting.Event {
			return question("AAAAAOiTAA.=auth.tunnel.example", reason(allowlists.BadHost), func(e *alerting.Event) { e.Host = "" })
		}, "dns-tunnel", "as dns2tcp does into names under tunnel.example"},
		{"types that no rule lists", 100, func(i int) alerting.Event {
			return question(datum(i), reason(allowlists.DNSTypeBlocked), func(e *alerting.Event) { e.Type = "NULL" })
		}, "dns-tunnel", "100% TXT"},
		{"answers that were taken out", 100, func(i int) alerting.Event {
			return question(datum(i), upstreamed, reason(allowlists.SpecialAddress), func(e *alerting.Event) { e.Verdict = allowlists.Deny })
		}, "dns-tunnel", "100 names and 4.0 KiB have left"},
		{"many clients of which none asks for much", 1000, func(i int) alerting.Event {
			return question(datum(i), client(fmt.Sprintf("10.20.1.%d", i%20)))
		}, "", ""},
		{"the addresses of one machine", 100, func(i int) alerting.Event {
			return question(datum(i), client(fmt.Sprintf("10.20.1.%d", i%100)), func(e *alerting.Event) { e.Machine = netip.MustParseAddr("10.20.0.7") })
		}, "dns-tunnel", ""},
		{"one name that the resolver refused for it", 1, func(i int) alerting.Event {
			return question(datum(i), reason(allowlists.LimitExceeded), func(e *alerting.Event) { e.Limit = "alerts.thresholds.dns_tunnel_names" })
		}, "dns-tunnel", "before this one was refused"},
		{"names of which the resolver refuses the last before the detector would", 50, func(i int) alerting.Event {
			if i < 49 {
				return question(datum(i), upstreamed)
			}
			return question(datum(i), reason(allowlists.LimitExceeded), func(e *alerting.Event) { e.Limit = "alerts.thresholds.dns_tunnel_bytes" })
		}, "dns-tunnel", "labels of 40 bytes"},
		{"many refused for the rate", 300, func(i int) alerting.Event {
			return question(datum(i), reason(allowlists.LimitExceeded), func(e *alerting.Event) { e.Limit = "limits.dns_per_client" })
		}, "", ""},
		{"types of one name", 300, func(i int) alerting.Event {
			return question(datum(0), upstreamed, func(e *alerting.Event) { e.Type = []string{"A", "AAAA", "HTTPS"}[i%3] })
		}, "", ""},
		{"a thousand unlike domains", 1000, func(i int) alerting.Event { return question(fmt.Sprintf("a.d%d.example", i)) }, "", ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			got := offlineAlerts(t, nil, func(take func(alerting.Event)) {
				for i := range tt.names {
					take(tt.event(i))
				}
			}, alerting.AlertDeniedEgress, alerting.AlertRebinding)
			if tt.want == "" && len(got) == 0 {
				return
			}
			if len(got) != 1 || got[0].Alert != tt.want || got[0].Severity != alerting.High || !strings.Contains(got[0].Summary, tt.says) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestDNSTunnelIsOneGroup looks at the alert itself: one for the client and the
// domain, which takes the place of denied-egress from where it is known.
func TestDNSTunnelIsOneGroup(t *testing.T) {
	var ids []string
	got := offlineAlerts(t, nil, func(take func(alerting.Event)) {
		for i := range 400 {
			e := question(datum(i), after(time.Duration(i)*100*time.Millisecond))
			ids = append(ids, e.ID)
			take(e)
		}
	})
	var tunnel, denied []alerting.Alert
	for _, a := range got {
		if a.Alert == alerting.AlertDNSTunnel {
			tunnel = append(tunnel, a)
		} else {
			denied = append(denied, a)
		}
	}
	if len(tunnel) != 1 || tunnel[0].Key != "dns-tunnel/build/tunnel.example 10.20.0.7" || tunnel[0].Host != "tunnel.example" || tunnel[0].Count != 301 {
		t.Fatalf("%+v", tunnel)
	}
	if want := append(slices.Clone(ids[:9]), ids[399]); !slices.Equal(tunnel[0].Evidence, want) {
		t.Errorf("the evidence is %v, not %v", tunnel[0].Evidence, want)
	}
	count := 0
	for _, a := range denied {
		count += a.Count
	}
	if count != 99 {
		t.Errorf("%d findings of denied-egress beside it", count)
	}
}

// TestManyTunnelsFold makes one client tunnel under many domains.
func TestManyTunnelsFold(t *testing.T) {
	got := offlineAlerts(t, nil, func(take func(alerting.Event)) {
		for i := range 2000 {
			take(question(fmt.Sprintf("%024x.d%d.example", i*2654435761, i%20), after(time.Duration(i)*time.Millisecond)))
		}
	}, alerting.AlertDeniedEgress)
	if len(got) != 1 || got[0].DestinationCount != 20 || !strings.Contains(got[0].Summary, "20 domains had data written into their names by 10.20.0.7") {
		t.Errorf("%+v", got)
	}
}

// TestNamesOfRulesAreNoTunnel asks for many hosts that rules name exactly, and
// for as many below a wildcard.
func TestNamesOfRulesAreNoTunnel(t *testing.T) {
	var rules strings.Builder
	for i := range 300 {
		fmt.Fprintf(&rules, "      - %040x.corp.example\n", i*2654435761)
	}
	text := "pools:\n  build:\n    sources: [10.20.0.0/24]\n    allow:\n      - \"*.wild.example\"\n" + rules.String()
	file, report := allowlists.Load([]allowlists.Source{{Name: "a.yaml", Text: []byte(text)}}, func(string) (string, bool) { return "", false }, noon)
	if file == nil {
		t.Fatal(report)
	}
	for domain, want := range map[string]int{"corp.example": 0, "wild.example": 1} {
		got := offlineAlerts(t, file.Policy, func(take func(alerting.Event)) {
			for i := range 300 {
				take(question(fmt.Sprintf("%040x.%s", i*2654435761, domain), upstreamed))
			}
		})
		if len(got) != want {
			t.Errorf("%s: %+v", domain, got)
		}
	}
}
