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

// redirected is a connection to an address, by a firewall, that was refused.
func redirected(ip string, port uint16, change ...func(*alerting.Event)) alerting.Event {
	return made(alerting.Event{
		Kind: alerting.KindConn, Via: "tcp", IP: netip.MustParseAddr(ip), Port: port, Phase: alerting.PhaseRefused, Reason: allowlists.AddressMismatch,
	}, change)
}

// each makes n events, a second apart or as close as every says.
func each(n int, every time.Duration, one func(i int) alerting.Event) (events []alerting.Event) {
	for i := range n {
		e := one(i)
		e.Time = e.Time.Add(time.Duration(i) * every)
		events = append(events, e)
	}
	return events
}

func TestAScanIsManyDestinationsOfOneClient(t *testing.T) {
	port := func(i int) uint16 { return uint16(1000 + i) }
	host := func(i int) string { return fmt.Sprintf("203.0.113.%d", 1+i) }
	for _, c := range []struct {
		when   string
		events []alerting.Event
		want   string // how many scans, and what else is open
	}{
		{"20 ports of one address", each(20, time.Second, func(i int) alerting.Event { return redirected("203.0.113.9", port(i)) }), "scan direct-ip"},
		{"19 ports of one address", each(19, time.Second, func(i int) alerting.Event { return redirected("203.0.113.9", port(i)) }), "direct-ip"},
		{"20 addresses", each(20, time.Second, func(i int) alerting.Event { return redirected(host(i), 22) }), "scan direct-ip"},
		{"20 private addresses", each(20, time.Second, func(i int) alerting.Event {
			return redirected(fmt.Sprintf("10.9.0.%d", 1+i), 22, reason(allowlists.SpecialAddress))
		}), "scan denied-egress"},
		{"20 addresses by CONNECT", each(20, time.Second, func(i int) alerting.Event { return connect(host(i), 443) }), "scan direct-ip"},
		{"20 ports by UDP", each(20, time.Second, func(i int) alerting.Event { return packet("udp", "203.0.113.9", port(i)) }), "scan denied-egress"},
		{"20 pings", each(20, time.Second, func(i int) alerting.Event { return packet("icmp", host(i), 0) }), "scan denied-egress"},
		{"TCP and UDP are two destinations", each(20, time.Second, func(i int) alerting.Event {
			if i%2 == 0 {
				return packet("udp", host(i), 53)
			}
			return redirected(host(i-1), 53)
		}), "scan denied-egress direct-ip"},
		{"20 ports of an address that was answered", each(20, time.Second, func(i int) alerting.Event { return connect("203.0.113.9", port(i), answered) }), "scan denied-egress"},
		{"20 addresses that TLS gives one name", each(20, time.Second, func(i int) alerting.Event {
			return connect("evil.example", 443, transparent("evil.example", host(i)))
		}), "scan denied-egress"},
		{"20 addresses, in audit", each(20, time.Second, func(i int) alerting.Event { return redirected(host(i), 22, audited) }), "scan direct-ip"},
		{"20 ports of one name", each(20, time.Second, func(i int) alerting.Event {
			return connect("git.example", port(i), reason(allowlists.PortNotAllowed))
		}), "scan denied-egress"},
		{"20 addresses, by nobody's pool", each(20, time.Second, func(i int) alerting.Event {
			return redirected(host(i), 22, reason(allowlists.NoPool), inPool(""))
		}), "scan denied-egress"},

		{"20 addresses in more than a minute", each(20, 3200*time.Millisecond, func(i int) alerting.Event { return redirected(host(i), 22) }), "direct-ip"},
		{"20 addresses of two clients", each(20, time.Second, func(i int) alerting.Event {
			return redirected(host(i), 22, client(fmt.Sprintf("10.20.0.%d", 7+i%2)))
		}), "direct-ip direct-ip"},
		{"10 addresses, twice", each(20, time.Second, func(i int) alerting.Event { return redirected(host(i%10), 22) }), "direct-ip"},
		{"20 refused names by DNS", each(20, time.Second, func(i int) alerting.Event { return question(fmt.Sprintf("n%d.example", i)) }), "denied-egress"},
		{"20 refused names by CONNECT", each(20, time.Second, func(i int) alerting.Event { return connect(fmt.Sprintf("n%d.example", i), 443) }), "denied-egress"},
		{"a storm of retries", each(500, 50*time.Millisecond, func(i int) alerting.Event { return connect(fmt.Sprintf("n%d.example", i%3), 443) }), "denied-egress denied-egress denied-egress"},
		{"20 names refused in TLS, at addresses that were answered", each(20, time.Second, func(i int) alerting.Event {
			return connect(fmt.Sprintf("n%d.example", i), 443, transparent(fmt.Sprintf("n%d.example", i), host(i)), answered)
		}), "denied-egress"},
		{"20 quiet addresses", each(20, time.Second, func(i int) alerting.Event { return redirected(host(i), 22, reason(allowlists.DeniedByRule), quiet) }), ""},
		{"20 multicast groups", each(20, time.Second, func(i int) alerting.Event { return packet("udp", fmt.Sprintf("224.0.0.%d", i), 5353) }), ""},
		{"20 neighbours on the link", each(20, time.Second, func(i int) alerting.Event { return packet("udp", fmt.Sprintf("fe80::%d", i+1), 5355) }), "denied-egress"},
		{"a browser that tries QUIC first", each(20, time.Second, func(i int) alerting.Event { return packet("udp", host(i), 443, answered) }), "denied-egress"},
		{"20 allowed addresses", each(20, time.Second, func(i int) alerting.Event {
			return redirected(host(i), 22, reason(allowlists.Allowed), func(e *alerting.Event) { e.Verdict, e.Phase = allowlists.Allow, alerting.PhaseOpen })
		}), ""},
		{"20 connections over a limit", each(20, time.Second, func(i int) alerting.Event { return redirected(host(i), 22, reason(allowlists.LimitExceeded)) }), ""},
	} {
		correlator := newCorrelator(t, alerting.CorrelatorSetup{})
		for _, e := range c.events {
			correlator.Take(e)
		}
		if got := raised(correlator.Alerts()); got != c.want {
			t.Errorf("%s: raises %q, want %q", c.when, got, c.want)
		}
	}
}

// raised lists the alerts, scans first.
func raised(alerts []alerting.Alert) string {
	var names []string
	for _, a := range alerts {
		names = append(names, a.Alert)
	}
	slices.SortFunc(names, func(a, b string) int {
		if (a == alerting.AlertScan) != (b == alerting.AlertScan) {
			if a == alerting.AlertScan {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return strings.Join(names, " ")
}

// TestAScanIsOneAlertThatGrows probes 1,000 ports and checks what is told, and
// what is not: nothing else after the scan was seen.
func TestAScanIsOneAlertThatGrows(t *testing.T) {
	correlator := newCorrelator(t, alerting.CorrelatorSetup{})
	for _, e := range each(1000, 10*time.Millisecond, func(i int) alerting.Event { return redirected("203.0.113.9", uint16(1+i)) }) {
		correlator.Take(e)
	}
	scan := find(t, correlator, alerting.AlertScan)
	if scan.DestinationCount != 1000 || scan.Count != 981 || len(scan.Destinations) != 10 || scan.Destinations[0] != "203.0.113.9:1" {
		t.Errorf("the scan has %d destinations in %d findings, and lists %v", scan.DestinationCount, scan.Count, scan.Destinations)
	}
	if want := "1000 destinations that are not allowed were tried, as a scan does, by 10.20.0.7 in pool build, 203.0.113.9:1 first"; scan.Summary != want {
		t.Errorf("it says %q", scan.Summary)
	}
	if scan.Severity != alerting.High || len(scan.Evidence) != 10 {
		t.Errorf("it is %s, with %d ids", scan.Severity, len(scan.Evidence))
	}
	if direct := find(t, correlator, alerting.AlertDirectIP); direct.Count != 19 {
		t.Errorf("direct-ip counts %d, not the 19 before the scan was seen", direct.Count)
	}
}

// TestAScanHidesNothingElse scans and then does worse.
func TestAScanHidesNothingElse(t *testing.T) {
	scanning := each(25, time.Second, func(i int) alerting.Event { return redirected("203.0.113.9", uint16(1+i)) })
	during := after(26 * time.Second)
	for _, c := range []struct {
		when  string
		event alerting.Event
		want  string // besides scan and direct-ip
	}{
		{"a metadata address", redirected("169.254.169.254", 80, reason(allowlists.SpecialAddress), during), "metadata-access"},
		{"a metadata address that is no link-local one", redirected("168.63.129.16", 80, reason(allowlists.SpecialAddress), during), "metadata-access"},
		{"a refused name", question("evil.example", during), "denied-egress"},
		{"a name refused to CONNECT", connect("evil.example", 443, during), "denied-egress"},
		{"DNS over TLS to another resolver", redirected("203.0.113.9", 853, reason(allowlists.ResolverBypass), during), "foreign-resolver"},
		{"another client's address", redirected("203.0.113.77", 22, client("10.20.0.8"), during), "direct-ip"},
		{"an address when the scan is long over", redirected("203.0.113.77", 22, after(90*time.Second)), "direct-ip"},
		{"an address of the scan", redirected("203.0.113.77", 22, during), ""},
		{"a private address of the scan", redirected("10.9.0.1", 22, reason(allowlists.SpecialAddress), during), ""},
	} {
		correlator := newCorrelator(t, alerting.CorrelatorSetup{})
		for _, e := range scanning {
			correlator.Take(e)
		}
		correlator.Take(c.event)
		if got, want := raised(correlator.Alerts()), strings.TrimSpace(strings.Join(sorted("direct-ip", c.want), " ")); got != "scan "+want {
			t.Errorf("%s: raises %q, want %q", c.when, got, "scan "+want)
		}
	}
}

func sorted(names ...string) []string {
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	slices.Sort(names)
	return names
}

// TestAScanAfterARefusedNameIsBoth keeps denied-then-direct critical.
func TestAScanAfterARefusedNameIsBoth(t *testing.T) {
	correlator := newCorrelator(t, alerting.CorrelatorSetup{})
	correlator.Take(question("evil.example"))
	for _, e := range each(25, time.Second, func(i int) alerting.Event { return redirected("203.0.113.9", uint16(1+i)) }) {
		correlator.Take(e)
	}
	if got, want := summarise(correlator.Alerts()), "denied-egress:medium:1 denied-then-direct:critical:25 scan:high:6"; got != want {
		t.Errorf("raises %q, want %q", got, want)
	}
}

// TestScanClientsAreBounded fills the room with clients that come back.
func TestScanClientsAreBounded(t *testing.T) {
	for _, clients := range []int{4000, 33000} {
		held := alerting.ScanRoomUsed(100000, clients)
		if held.Most > held.Room || held.Used != held.Counted {
			t.Errorf("%d clients: at most %d of %d were held; %d at the end, of which %d are counted", clients, held.Most, held.Room, held.Counted, held.Used)
		}
		if held.Expired != 0 {
			t.Errorf("%d clients: %d are held when all is old", clients, held.Expired)
		}
	}
}

// TestACrowdDoesNotHideAScanner lets 80,000 other clients, of its own pool or
// of another, speak between the probes of one; and while its scan is on.
func TestACrowdDoesNotHideAScanner(t *testing.T) {
	for _, pool := range []string{"build", "deploy"} {
		correlator := newCorrelator(t, alerting.CorrelatorSetup{Groups: 64})
		crowd := 0
		for i := range 60 {
			at := after(time.Duration(i) * time.Second / 2)
			correlator.Take(redirected("203.0.113.9", uint16(1+i), at))
			for range 80000 / 60 {
				crowd++
				correlator.Take(redirected("203.0.113.9", 22, at, inPool(pool), client(netip.AddrFrom4([4]byte{10, 30 + byte(crowd>>16), byte(crowd >> 8), byte(crowd)}).String())))
			}
		}
		if scan := find(t, correlator, alerting.AlertScan); scan.DestinationCount != 60 || scan.Count != 41 {
			t.Errorf("beside a crowd in pool %s the scan has %d destinations in %d findings", pool, scan.DestinationCount, scan.Count)
		}
	}
}

// TestALaterCrowdDoesNotHideAScanner lets more clients than there is room for
// speak after a client's latest probe: once before its scan is seen, once after.
func TestALaterCrowdDoesNotHideAScanner(t *testing.T) {
	correlator := newCorrelator(t, alerting.CorrelatorSetup{Groups: 64})
	for i := range 25 {
		correlator.Take(redirected("203.0.113.9", uint16(1+i), after(time.Duration(i)*time.Second)))
		if i != 14 && i != 23 {
			continue
		}
		for n := range 40000 {
			correlator.Take(redirected("203.0.113.9", 22, after(time.Duration(i)*time.Second+time.Millisecond), client(fmt.Sprintf("10.%d.%d.%d", 30+i, n>>8, n&255))))
		}
	}
	if scan := find(t, correlator, alerting.AlertScan); scan.DestinationCount != 25 || scan.Count != 6 {
		t.Errorf("the scan has %d destinations in %d findings", scan.DestinationCount, scan.Count)
	}
}
