package alerting_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// newCorrelator makes a correlator over a store in memory, whose events and
// clock are the test's.
func newCorrelator(t testing.TB, setup alerting.CorrelatorSetup) alerting.Correlator {
	t.Helper()
	if setup.Store == nil {
		setup.Store = &alerting.MemoryStore{}
	}
	c, err := alerting.NewCorrelator(setup)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// question is a refused question of 10.20.0.7.
func question(name string, change ...func(*alerting.Event)) alerting.Event {
	return made(alerting.Event{
		Kind: alerting.KindDNS, By: alerting.ByClient, Name: name + ".", Host: name, Type: "A", Reason: allowlists.NotInAllowlist,
	}, change)
}

// connect is a refused CONNECT of 10.20.0.7.
func connect(host string, port uint16, change ...func(*alerting.Event)) alerting.Event {
	e := alerting.Event{Kind: alerting.KindConn, Via: "connect", Host: host, Port: port, Phase: alerting.PhaseRefused, Reason: allowlists.NotInAllowlist}
	if addr, err := netip.ParseAddr(host); err == nil {
		e.IP, e.Reason = addr, allowlists.AddressLiteral
	}
	return made(e, change)
}

func made(e alerting.Event, change []func(*alerting.Event)) alerting.Event {
	e.Time, e.Pool, e.Client, e.ID = noon, "build", netip.MustParseAddr("10.20.0.7"), allowlists.NewID()
	for _, f := range change {
		f(&e)
	}
	return e
}

func reason(r allowlists.Reason) func(*alerting.Event) {
	return func(e *alerting.Event) { e.Reason = r }
}

func after(d time.Duration) func(*alerting.Event) {
	return func(e *alerting.Event) { e.Time = e.Time.Add(d) }
}

func client(addr string) func(*alerting.Event) {
	return func(e *alerting.Event) { e.Client = netip.MustParseAddr(addr) }
}

func inPool(pool string) func(*alerting.Event) { return func(e *alerting.Event) { e.Pool = pool } }

func quiet(e *alerting.Event)    { e.Quiet = true }
func search(e *alerting.Event)   { e.Search = true }
func answered(e *alerting.Event) { e.Names = []string{"registry.corp.example"} }

// audited makes a refusal one that audit carried.
func audited(e *alerting.Event) {
	e.Verdict, e.Would, e.Reason, e.Phase = allowlists.Allow, e.Reason, allowlists.AllowedByAudit, alerting.PhaseOpen
}

// transparent makes a connection one that came redirected, with a server name.
func transparent(sni, ip string) func(*alerting.Event) {
	return func(e *alerting.Event) { e.Via, e.SNI, e.IP = "tls", sni, netip.MustParseAddr(ip) }
}

// packet is one that the firewall refused.
func packet(via, ip string, port uint16, change ...func(*alerting.Event)) alerting.Event {
	return made(alerting.Event{
		Kind: alerting.KindConn, Via: via, IP: netip.MustParseAddr(ip), Port: port, Phase: alerting.PhaseRefused, Reason: allowlists.ProtocolBlocked,
	}, change)
}

// asking makes a question one that was sent to another resolver.
func asking(resolver string) func(*alerting.Event) {
	return func(e *alerting.Event) { e.Resolver = netip.MustParseAddr(resolver) }
}

func gave(addrs ...string) func(*alerting.Event) {
	return func(e *alerting.Event) {
		e.Verdict, e.Reason = allowlists.Allow, allowlists.Allowed
		for _, addr := range addrs {
			e.Removed = append(e.Removed, netip.MustParseAddr(addr))
		}
	}
}

func TestEachAlertIsRaisedByWhatItNames(t *testing.T) {
	type events = []alerting.Event
	for _, c := range []struct {
		when   string
		events events
		want   string // alert:severity:count, sorted
	}{
		{"a question is refused", events{question("evil.example")}, "denied-egress:medium:1"},
		{"question and connection are one group", events{question("evil.example"), connect("evil.example", 443)}, "denied-egress:medium:2"},
		{"another spelling is the same group", events{question("evil.example"), connect("EVIL.example.", 443)}, "denied-egress:medium:2"},
		{"two hosts are two groups", events{question("evil.example"), question("worse.example")}, "denied-egress:medium:1 denied-egress:medium:1"},
		{"two pools are two groups", events{question("evil.example"), question("evil.example", inPool("deploy"))}, "denied-egress:medium:1 denied-egress:medium:1"},
		{"two clients are one group", events{question("evil.example"), question("evil.example", client("10.20.0.8"))}, "denied-egress:medium:2"},
		{"a quiet name is refused", events{question("evil.example", quiet)}, ""},
		{"a search suffix echoes", events{question("github.com.corp.example", search)}, ""},
		{"a reverse look-up is refused", events{question("7.0.20.10.in-addr.arpa")}, ""},
		{"the port is wrong", events{connect("git.example", 22, reason(allowlists.PortNotAllowed))}, "denied-egress:medium:1"},
		{"no pool admits the client", events{connect("git.example", 443, reason(allowlists.NoPool), inPool(""))}, "denied-egress:medium:1"},
		{"the host is malformed", events{connect("a b", 443, reason(allowlists.BadHost))}, ""},
		{"a limit is over", events{connect("a.example", 443, reason(allowlists.LimitExceeded))}, ""},
		{"audit carries it", events{connect("a.example", 443, audited)}, ""},
		{"a tunnel closes as refused", events{connect("a.example", 443, reason(allowlists.NotTLS), func(e *alerting.Event) { e.Phase = alerting.PhaseClose })}, "denied-egress:medium:1"},

		{"an address that nobody answered", events{connect("203.0.113.9", 443)}, "direct-ip:high:1"},
		{"an address that nobody answered, in audit", events{connect("203.0.113.9", 443, audited)}, "direct-ip:high:1"},
		{"the address of an answer", events{connect("203.0.113.9", 443, answered)}, "denied-egress:medium:1"},
		{"an address that deny names", events{connect("203.0.113.9", 443, reason(allowlists.DeniedByRule))}, "denied-egress:medium:1"},
		{"a private address", events{connect("10.1.2.3", 443, reason(allowlists.SpecialAddress))}, "denied-egress:medium:1"},

		{"an address soon after a refused name", events{question("evil.example"), connect("203.0.113.9", 443, after(29*time.Second))},
			"denied-egress:medium:1 denied-then-direct:critical:1"},
		{"an address long after a refused name", events{question("evil.example"), connect("203.0.113.9", 443, after(31*time.Second))},
			"denied-egress:medium:1 direct-ip:high:1"},
		{"an address after a quiet refused name", events{question("evil.example", quiet), connect("203.0.113.9", 443)}, "denied-then-direct:critical:1"},
		{"an address after a name refused to CONNECT", events{connect("evil.example", 443), connect("203.0.113.9", 443)},
			"denied-egress:medium:1 denied-then-direct:critical:1"},
		{"an address after another client's refused name", events{question("evil.example", client("10.20.0.8")), connect("203.0.113.9", 443)},
			"denied-egress:medium:1 direct-ip:high:1"},
		{"an address after a search echo", events{question("github.com.corp.example", search), connect("203.0.113.9", 443)}, "direct-ip:high:1"},
		{"an answered address after a refused name", events{question("evil.example"), connect("203.0.113.9", 443, answered)},
			"denied-egress:medium:1 denied-egress:medium:1"},
		{"loopback after a refused name", events{question("evil.example"), connect("127.0.0.1", 80, reason(allowlists.SpecialAddress))},
			"denied-egress:medium:1 denied-egress:medium:1"},
		{"a redirected connection that names the refused name", events{question("evil.example"), connect("evil.example", 443, transparent("evil.example", "203.0.113.9"), after(5*time.Minute))},
			"denied-egress:medium:1 denied-then-direct:critical:1"},
		{"the same name again, by name", events{connect("evil.example", 443), connect("evil.example", 443)}, "denied-egress:medium:2"},

		{"a metadata address", events{connect("169.254.169.254", 80, reason(allowlists.SpecialAddress))}, "metadata-access:high:1"},
		{"a metadata address, on two days", events{connect("169.254.169.254", 80, reason(allowlists.SpecialAddress)), connect("169.254.169.254", 80, reason(allowlists.SpecialAddress), after(24*time.Hour))},
			"metadata-access:high:1 metadata-access:high:1"},
		{"a metadata address with a request", events{connect("169.254.169.254", 80, reason(allowlists.SpecialAddress), func(e *alerting.Event) { e.Via, e.Method = "http", "GET" })}, "metadata-access:critical:1"},
		{"a metadata address after a refused name", events{question("evil.example"), connect("169.254.169.254", 80, reason(allowlists.SpecialAddress))},
			"denied-egress:medium:1 metadata-access:critical:1"},
		{"a metadata address that a rule allows", events{connect("169.254.169.254", 80, reason(allowlists.Allowed), func(e *alerting.Event) { e.Verdict, e.Phase = allowlists.Allow, alerting.PhaseOpen })}, ""},

		{"an allowed name answers with a private address", events{question("git.example", gave("10.1.2.3"))}, "rebinding:high:1"},
		{"an allowed name answers with 0.0.0.0", events{question("ads.example", gave("0.0.0.0", "::"))}, "rebinding:info:1"},
		{"and its connection is refused", events{question("git.example", gave("10.1.2.3")), connect("git.example", 443, reason(allowlists.SpecialAddress), func(e *alerting.Event) { e.IP = netip.MustParseAddr("10.1.2.3") })}, "rebinding:high:2"},

		{"TLS names another host", events{connect("git.example", 443, reason(allowlists.SNIMismatch), func(e *alerting.Event) { e.SNI, e.Phase = "evil.example", alerting.PhaseClose })}, "sni-mismatch:high:1"},
		{"TLS names another host, in audit", events{connect("git.example", 443, reason(allowlists.SNIMismatch), audited)}, "sni-mismatch:high:1"},
		{"a name at an address it never had", events{connect("git.example", 443, redialled)}, "address-mismatch:medium:1"},
		{"a name at an address it never had, but has by our own resolution", events{connect("git.example", 443, redialled, func(e *alerting.Event) { e.Original = e.IP })}, ""},
		{"a name at an address it never had, soon after a start without a book", events{started(false), connect("git.example", 443, redialled)}, ""},
		{"a name at an address it never had, soon after a start with its book", events{started(true), connect("git.example", 443, redialled)}, "address-mismatch:medium:1"},
		{"Host names another host", events{connect("git.example", 80, reason(allowlists.HostMismatch))}, "sni-mismatch:high:1"},
		{"a DoH name", events{question("dns.google", reason(allowlists.ResolverBypass))}, "foreign-resolver:high:1"},
		{"a question to a foreign resolver", events{question("git.example", gave(), asking("198.51.100.53"))}, "foreign-resolver:high:1"},
		{"questions to two foreign resolvers", events{question("git.example", gave(), asking("198.51.100.53")), question("git.example", gave(), asking("198.51.100.54")), question("git.example", gave(), asking("198.51.100.53"))},
			"foreign-resolver:high:1 foreign-resolver:high:2"},
		{"a refused question to a foreign resolver", events{question("evil.example", asking("198.51.100.53"))}, "denied-egress:medium:1 foreign-resolver:high:1"},
		{"a question and DNS over QUIC to one foreign resolver", events{question("git.example", gave(), asking("198.51.100.53")), packet("udp", "198.51.100.53", 853, reason(allowlists.ResolverBypass))}, "foreign-resolver:high:2"},
		{"DNS over QUIC in audit", events{packet("udp", "198.51.100.53", 853, reason(allowlists.ResolverBypass), audited)}, "foreign-resolver:high:1"},

		{"QUIC to an address that nobody answered", events{packet("udp", "203.0.113.9", 443)}, "denied-egress:medium:1"},
		{"QUIC to the address of an answer", events{packet("udp", "203.0.113.9", 443, answered)}, "denied-egress:medium:1"},
		{"UDP and a ping to one address", events{packet("udp", "203.0.113.9", 443), packet("icmp", "203.0.113.9", 0)}, "denied-egress:medium:2"},
		{"UDP in audit", events{packet("udp", "203.0.113.9", 443, audited)}, ""},
		{"UDP soon after a refused name", events{question("evil.example"), packet("udp", "203.0.113.9", 443, after(29*time.Second))}, "denied-egress:medium:1 denied-then-direct:critical:1"},
		{"a ping soon after a refused name, in audit", events{question("evil.example"), packet("icmp", "203.0.113.9", 0, audited)}, "denied-egress:medium:1 denied-then-direct:critical:1"},
		{"UDP long after a refused name", events{question("evil.example"), packet("udp", "203.0.113.9", 443, after(31*time.Second))}, "denied-egress:medium:1 denied-egress:medium:1"},
		{"QUIC to the address of an answer after a refused name", events{question("evil.example"), packet("udp", "203.0.113.9", 443, answered)}, "denied-egress:medium:1 denied-egress:medium:1"},
		{"UDP to a metadata address", events{packet("udp", "169.254.169.254", 80, reason(allowlists.SpecialAddress))}, "metadata-access:high:1"},
		{"a ping to a metadata address from no pool", events{packet("icmp", "169.254.169.254", 0, reason(allowlists.NoPool), inPool(""))}, "metadata-access:high:1"},
		{"UDP to a private address", events{packet("udp", "10.1.2.3", 9, reason(allowlists.SpecialAddress))}, "denied-egress:medium:1"},
		{"multicast after a refused name", events{question("evil.example"), packet("udp", "224.0.0.251", 5353, reason(allowlists.SpecialAddress)), packet("other", "ff02::16", 0, reason(allowlists.SpecialAddress))}, "denied-egress:medium:1"},
		{"broadcast", events{packet("udp", "255.255.255.255", 67, reason(allowlists.SpecialAddress))}, ""},

		{"enforcement is gone", events{{Kind: alerting.KindSystem, Event: alerting.SystemEnforcement, Time: noon, Details: map[string]any{"state": "not-in-place", "faults": []string{"a rule is missing"}}}}, "policy:high:1"},
		{"enforcement can no longer be measured", events{{Kind: alerting.KindSystem, Event: alerting.SystemEnforcement, Time: noon, Details: map[string]any{"state": "unknown", "lost": true}}}, "policy:high:1"},
		{"enforcement was never measured", events{{Kind: alerting.KindSystem, Event: alerting.SystemEnforcement, Time: noon, Details: map[string]any{"state": "unknown", "lost": false}}}, ""},
		{"somebody grants a host", events{{Kind: alerting.KindSystem, Event: alerting.SystemGranted, Time: noon, Details: map[string]any{"id": "k3v9x2m4p7qa"}}}, "policy:medium:1"},
		{"a start finds a grant", events{{Kind: alerting.KindSystem, Event: alerting.SystemGranted, Time: noon, Details: map[string]any{"id": "k3v9x2m4p7qa", "recalled": true}}}, ""},
		{"enforcement is there", events{{Kind: alerting.KindSystem, Event: alerting.SystemEnforcement, Time: noon, Details: map[string]any{"state": "in-place"}}}, ""},
		{"a reload did not work", events{{Kind: alerting.KindSystem, Event: alerting.SystemReloadFailed, Time: noon}}, "policy:medium:1"},
		{"the log is degraded", events{{Kind: alerting.KindSystem, Event: alerting.SystemLogDegraded, Time: noon}}, "policy:medium:1"},
		{"the log was deleted", events{{Kind: alerting.KindSystem, Event: alerting.SystemLogDegraded, Time: noon, Details: map[string]any{"state": "missing"}}}, "policy:medium:1"},
		{"the log is well again", events{{Kind: alerting.KindSystem, Event: alerting.SystemLogDegraded, Time: noon, Details: map[string]any{"state": "recovered"}}}, ""},
		{"the book of answers is not kept", events{{Kind: alerting.KindSystem, Event: alerting.SystemBookFailed, Time: noon, Details: map[string]any{"state": "failing"}}}, "policy:medium:1"},
		{"the book of answers is kept again", events{{Kind: alerting.KindSystem, Event: alerting.SystemBookFailed, Time: noon, Details: map[string]any{"state": "recovered"}}}, ""},
		{"work is refused as the log is degraded", events{connect("a.example", 443, reason(allowlists.LogDegraded)), connect("b.example", 443, reason(allowlists.LogDegraded))}, "policy:medium:2"},
		{"a tunnel ends with a policy", events{connect("a.example", 443, reason(allowlists.PolicyChanged), func(e *alerting.Event) { e.Phase = alerting.PhaseClose })}, ""},
	} {
		t.Run(c.when, func(t *testing.T) {
			correlator := newCorrelator(t, alerting.CorrelatorSetup{})
			for _, e := range c.events {
				correlator.Take(e)
			}
			if got := summarise(correlator.Alerts()); got != c.want {
				t.Errorf("alerts are %q, want %q", got, c.want)
			}
		})
	}
}

func summarise(alerts []alerting.Alert) string {
	var all []string
	for _, a := range alerts {
		all = append(all, a.Alert+":"+a.Severity.String()+":"+itoa(a.Count))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestAnAlertLinksItsEvents(t *testing.T) {
	correlator := newCorrelator(t, alerting.CorrelatorSetup{})
	asked, dialled := question("evil.example"), connect("203.0.113.9", 443)
	correlator.Take(asked)
	correlator.Take(dialled)
	a := find(t, correlator, alerting.AlertDeniedThenDirect)
	if !slices.Equal(a.Evidence, []string{asked.ID, dialled.ID}) {
		t.Errorf("evidence is %v, want %v", a.Evidence, []string{asked.ID, dialled.ID})
	}
	if a.Host != "evil.example" || a.IP != dialled.IP {
		t.Errorf("it is about %s and %s", a.Host, a.IP)
	}
}

func TestSuggestIsTheLineThatWouldDo(t *testing.T) {
	for _, c := range []struct {
		when  string
		event alerting.Event
		want  string
	}{
		{"a name on 443", connect("git.example", 443), "- git.example"},
		{"a name on another port", connect("git.example", 22, reason(allowlists.PortNotAllowed)), "- git.example:22"},
		{"a question", question("git.example"), "- git.example"},
		{"an address", connect("203.0.113.9", 5432), "- {cidr: 203.0.113.9/32, ports: [5432]}"},
		{"a deny rule", connect("git.example", 443, reason(allowlists.DeniedByRule)), ""},
		{"metadata", connect("169.254.169.254", 80, reason(allowlists.SpecialAddress)), ""},
	} {
		correlator := newCorrelator(t, alerting.CorrelatorSetup{})
		correlator.Take(c.event)
		if got := correlator.Alerts()[0].Suggest; got != c.want {
			t.Errorf("%s: suggests %q, want %q", c.when, got, c.want)
		}
	}
}

func find(t testing.TB, c alerting.Correlator, alert string) alerting.Alert {
	t.Helper()
	for _, a := range c.Alerts() {
		if a.Alert == alert {
			return a
		}
	}
	t.Fatalf("no %s among %s", alert, summarise(c.Alerts()))
	return alerting.Alert{}
}

// started is the start of a daemon that kept its book of answers, or did not.
func started(kept bool) alerting.Event {
	return alerting.Event{Kind: alerting.KindSystem, Event: alerting.SystemStarted, Time: noon, Details: map[string]any{"book_kept": kept}}
}
