package hindsight_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/alerting/hindsight"
	"sallyport/allowlists"
)

// begun is when the stories begin.
var begun = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The lines of the stories, as Zeek and Squid write them. at is in seconds
// after begun; the client is 10.20.0.N.
const (
	dnsHead  = "#separator \\x09\n#path\tdns\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tquery\tqclass\tqtype_name\trcode_name\tanswers\tTTLs\n"
	sslHead  = "#separator \\x09\n#path\tssl\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tserver_name\n"
	httpHead = "#separator \\x09\n#path\thttp\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tmethod\thost\turi\n"
	connHead = "#separator \\x09\n#path\tconn\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\thistory\n"
)

func zeek(at float64, uid string, client int, server string, port int, rest ...any) string {
	line := fmt.Sprintf("%.6f\t%s\t10.20.0.%d\t40000\t%s\t%d", float64(begun.Unix())+at, uid, client, server, port)
	for _, field := range rest {
		line += fmt.Sprintf("\t%v", field)
	}
	return line + "\n"
}

func question(at float64, client int, name, answer string, ttl int) string {
	return zeek(at, "-", client, "10.20.0.53", 53, "udp", name, 1, "A", "NOERROR", answer, fmt.Sprintf("%d.000000", ttl))
}

func hello(at float64, uid string, client int, server, sni string) string {
	return zeek(at, uid, client, server, 443, sni)
}

func flow(at float64, uid string, client int, server string, port int, duration float64) string {
	return zeek(at, uid, client, server, port, "tcp", "-", duration, 900, 9000, "ShADadFf")
}

func squid(at float64, client int, result, method, url, peer string) string {
	return fmt.Sprintf("%.3f      0 10.20.0.%d %s 5000 %s %s - HIER_DIRECT/%s -\n", float64(begun.Unix())+at, client, result, method, url, peer)
}

// policy compiles pools.
func policy(t *testing.T, pools string) *allowlists.Policy {
	t.Helper()
	file, report := allowlists.Load([]allowlists.Source{{Name: "test.yaml", Text: []byte("pools:\n" + pools)}}, os.LookupEnv, begun)
	if report.Failed() {
		t.Fatal(report.Errors())
	}
	return file.Policy
}

const buildPool = `
  build:
    sources: [10.20.0.0/24]
    allow: [good.example, other.example, {host: plain.example, ports: [80, 8080]}, {host: db.example, ports: [5432], tls: off}, {cidr: 93.184.50.0/24, ports: [22]}]
    deny: [bad.example]
`

// found runs over logs, each the text of a file, and gives what was found, each
// as "alert host-or-address client", sorted.
func found(t *testing.T, config hindsight.Config, logs ...string) ([]string, hindsight.Summary) {
	t.Helper()
	dir := t.TempDir()
	for i, text := range logs {
		name := filepath.Join(dir, fmt.Sprintf("%d.log", i))
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		source, err := foreignlog.Probe(name, nil, foreignlog.Options{Latest: begun.Add(time.Hour)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		config.Sources = append(config.Sources, source)
	}
	var all []string
	config.Found = func(a alerting.Alert) {
		if a.Severity == alerting.Info {
			return
		}
		where := a.Host
		if where == "" {
			where = a.IP.String()
		}
		all = append(all, strings.Join([]string{a.Alert, where, a.Client.String()}, " "))
	}
	if config.Skew == 0 {
		config.Skew = 2 * time.Second
	}
	config.TTL, config.Grace = time.Hour, time.Minute
	summary, err := hindsight.Run(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all, summary
}

// TestConnectionsAreHeldAgainstAnswers: an address counts from shortly before
// its answer until its TTL and the grace are over.
func TestConnectionsAreHeldAgainstAnswers(t *testing.T) {
	first, last := question(-60, 9, "good.example", "93.184.216.1", 60), question(200, 9, "good.example", "93.184.216.1", 60) // the log shows answers in between
	for _, c := range []struct {
		name string
		at   float64 // of the connection; the answer is at 0, for 60 s and 60 s of grace
		want string
	}{
		{"right after the answer", 0.1, ""},
		{"just within TTL and grace", 119, ""},
		{"after TTL and grace", 121, "direct-ip"},
		{"before the answer, within the skew of 2 s", -1.9, ""},
		{"before the answer, beyond the skew", -2.1, "direct-ip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dns := dnsHead + first + question(0, 7, "good.example", "93.184.216.34", 60) + last
			got, _ := found(t, hindsight.Config{}, dns, squid(c.at, 7, "TCP_TUNNEL/200", "CONNECT", "93.184.216.34:8443", "93.184.216.34"))
			if len(got) > 0 != (c.want != "") || len(got) > 0 && !strings.HasPrefix(got[0], c.want+" ") {
				t.Errorf("found %v, not %q", got, c.want)
			}
		})
	}
}

// TestRedirectedConnections judges what clients connected to themselves, seen by
// Zeek, as the transparent path does.
func TestRedirectedConnections(t *testing.T) {
	answers := dnsHead + question(-700, 9, "start.example", "93.184.216.1", 60) + question(0, 7, "good.example", "93.184.216.34", 60) +
		question(0, 7, "db.example", "93.184.216.54", 60)
	for _, c := range []struct {
		name string
		logs []string
		want string
	}{
		{"the name in TLS, at its address", []string{sslHead + hello(1, "C1", 7, "93.184.216.34", "good.example")}, ""},
		{"the name in TLS, in conn.log too", []string{connHead + flow(1, "C1", 7, "93.184.216.34", 443, 5), sslHead + hello(1.1, "C1", 7, "93.184.216.34", "good.example")}, ""},
		{"an allowed name at an address of another", []string{sslHead + hello(1, "C1", 7, "93.184.99.1", "good.example")}, "address-mismatch good.example"},
		{"a refused name", []string{sslHead + hello(1, "C1", 7, "93.184.99.1", "evil.example")}, "denied-egress evil.example"},
		{"no name, and no answer", []string{connHead + flow(1, "C1", 7, "93.184.99.1", 443, 5)}, "direct-ip 93.184.99.1"},
		{"no name, and an answer for it", []string{connHead + flow(1, "C1", 7, "93.184.216.54", 5432, 5)}, ""},
		{"no name, an answer, another port", []string{connHead + flow(1, "C1", 7, "93.184.216.54", 22, 5)}, "denied-egress db.example"},
		{"an address that a cidr rule allows", []string{connHead + flow(1, "C1", 7, "93.184.50.9", 22, 5)}, ""},
		{"metadata", []string{connHead + flow(1, "C1", 7, "169.254.169.254", 80, 5)}, "metadata-access 169.254.169.254"},
		{"an allowed name there", []string{sslHead + hello(1, "C1", 7, "169.254.169.254", "good.example")}, "metadata-access 169.254.169.254"},
		{"DNS over TLS", []string{connHead + flow(1, "C1", 7, "9.9.9.9", 853, 5)}, "foreign-resolver 9.9.9.9"},
		{"QUIC", []string{connHead + zeek(1, "C1", 7, "93.184.99.1", 443, "udp", "quic", 1, 9, 9, "Dd")}, "denied-egress 93.184.99.1"},
		{"plain HTTP by its Host", []string{httpHead + zeek(1, "C1", 7, "93.184.99.1", 80, "GET", "evil.example", "/")}, "denied-egress evil.example"},
		{"DNS itself", []string{connHead + zeek(1, "C1", 7, "10.20.0.53", 53, "udp", "dns", 1, 9, 9, "Dd")}, ""},
		{"one inside of a tunnel that was seen", []string{sslHead + hello(1, "C1", 7, "93.184.216.34", "good.example"), connHead + flow(0.9, "C1", 7, "93.184.216.34", 443, 7200)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _ := found(t, hindsight.Config{Policy: policy(t, buildPool)}, append([]string{answers}, c.logs...)...)
			got = slices.DeleteFunc(got, func(text string) bool { return strings.Contains(text, "start.example") })
			want := []string{}
			if c.want != "" {
				want = append(want, c.want+" 10.20.0.7")
			}
			if !slices.Equal(got, want) && len(got)+len(want) > 0 {
				t.Errorf("found %q, not %q", got, want)
			}
		})
	}
}

// TestRotatedFiles: files may come in any order and overlap; each line counts once.
func TestRotatedFiles(t *testing.T) {
	old := squid(1, 7, "TCP_DENIED/403", "CONNECT", "evil.example:443", "-") + squid(2, 7, "TCP_DENIED/403", "CONNECT", "evil.example:443", "-")
	last := squid(2, 7, "TCP_DENIED/403", "CONNECT", "evil.example:443", "-") + squid(3, 7, "TCP_DENIED/403", "CONNECT", "evil.example:443", "-")
	for _, logs := range [][]string{{old, last}, {last, old}} {
		got, summary := found(t, hindsight.Config{}, logs...)
		if want := []string{"denied-egress evil.example 10.20.0.7"}; !slices.Equal(got, want) || summary.Copies != 1 || summary.Connections != 3 {
			t.Errorf("found %q, %+v", got, summary)
		}
	}
}

// TestFilesOfADay are read in the order of their times, whatever that of their names.
func TestFilesOfADay(t *testing.T) {
	var logs []string
	for i := range 5 {
		logs = append(logs, squid(float64(7200*(i*2%5)), 7, "TCP_DENIED/403", "CONNECT", "evil.example:443", "-"))
	}
	got, summary := found(t, hindsight.Config{}, logs...)
	if len(got) != 5 || summary.Late != 0 {
		t.Errorf("found %q, %+v", got, summary)
	}
}

// TestAskersAskForAll: what a proxy was answered counts for the clients, and its
// questions are nobody's doing.
func TestAskersAskForAll(t *testing.T) {
	dns := dnsHead + question(0, 1, "good.example", "93.184.216.34", 60) + question(0, 1, "evil.example", "93.184.99.1", 60)
	literals := squid(1, 7, "TCP_TUNNEL/200", "CONNECT", "93.184.216.34:8443", "93.184.216.34") + squid(1, 8, "TCP_TUNNEL/200", "CONNECT", "93.184.99.1:443", "93.184.99.1")
	asker := netip.MustParseAddr("10.20.0.1")
	for _, c := range []struct {
		name   string
		config hindsight.Config
		want   []string
	}{
		{
			"the proxy is named", hindsight.Config{Askers: []netip.Addr{asker}},
			[]string{"denied-egress 93.184.216.34 10.20.0.7", "direct-ip 93.184.99.1 10.20.0.8"}, // nobody may be given evil.example
		},
		{
			"it is not: it counts as a client", hindsight.Config{},
			[]string{"denied-egress 93.184.216.34 10.20.0.7", "denied-egress evil.example 10.20.0.1", "direct-ip 93.184.99.1 10.20.0.8"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Policy = policy(t, buildPool)
			if got, _ := found(t, c.config, dns, literals); !slices.Equal(got, c.want) {
				t.Errorf("found %q, not %q", got, c.want)
			}
		})
	}
}

// TestClientsOfNoPool are left out and counted, or put where --pool says.
func TestClientsOfNoPool(t *testing.T) {
	log := strings.ReplaceAll(squid(1, 7, "TCP_TUNNEL/200", "CONNECT", "evil.example:443", "93.184.99.1"), "10.20.0.7", "10.99.0.7")
	got, summary := found(t, hindsight.Config{Policy: policy(t, buildPool)}, log)
	if len(got) > 0 || summary.NoPool != 1 || !slices.Equal(summary.NoPoolClients, []netip.Addr{netip.MustParseAddr("10.99.0.7")}) {
		t.Errorf("found %q, %+v", got, summary)
	}
	got, _ = found(t, hindsight.Config{Policy: policy(t, buildPool), Pool: "build"}, log)
	if want := []string{"denied-egress evil.example 10.99.0.7"}; !slices.Equal(got, want) {
		t.Errorf("found %q, not %q", got, want)
	}
	withInterface := strings.Replace(buildPool, "sources", "interfaces: [br-build]\n    sources", 1)
	log = squid(1, 7, "TCP_TUNNEL/200", "CONNECT", "evil.example:443", "93.184.99.1")
	if got, _ = found(t, hindsight.Config{Policy: policy(t, withInterface)}, log); len(got) != 1 {
		t.Errorf("a pool with an interface has found %q", got)
	}
}

// TestWithoutAnswers nothing can be said of addresses: a refused one is
// denied-egress, and without a policy it is nothing.
func TestWithoutAnswers(t *testing.T) {
	unbound := fmt.Sprintf("[%d] unbound[7:0] info: 10.20.0.7 good.example. A IN NOERROR 0.000259 0 57\n", begun.Unix())
	literal := squid(1, 7, "TCP_TUNNEL/200", "CONNECT", "93.184.99.1:443", "93.184.99.1")
	got, summary := found(t, hindsight.Config{Policy: policy(t, buildPool)}, unbound, literal)
	if want := []string{"denied-egress 93.184.99.1 10.20.0.7"}; !slices.Equal(got, want) || summary.Uncovered != 1 {
		t.Errorf("found %q, not %q; %+v", got, want, summary)
	}
	if got, _ = found(t, hindsight.Config{}, unbound, literal); len(got) > 0 {
		t.Errorf("without a policy %q was found", got)
	}
}

// TestTheLogsOwnVerdicts: without a policy what the logs refused is found, but
// for what operating systems ask for by themselves.
func TestTheLogsOwnVerdicts(t *testing.T) {
	dnsmasq := ""
	for _, name := range []string{"evil.example", "esm.ubuntu.com"} {
		dnsmasq += strings.ReplaceAll("Mar  1 12:00:00 dnsmasq[7]: query[A] NAME from 10.20.0.7\nMar  1 12:00:00 dnsmasq[7]: config NAME is NXDOMAIN\n", "NAME", name)
	}
	log := squid(1, 8, "TCP_DENIED/403", "CONNECT", "worse.example:443", "-") + squid(1, 8, "TCP_TUNNEL/200", "CONNECT", "fine.example:443", "10.1.2.3") +
		squid(1, 7, "TCP_TUNNEL/200", "CONNECT", "10.1.2.3:443", "10.1.2.3") + squid(1, 9, "TCP_DENIED/407", "CONNECT", "fine.example:443", "-")
	got, _ := found(t, hindsight.Config{}, dnsmasq, log)
	if want := []string{"denied-egress evil.example 10.20.0.7", "denied-egress worse.example 10.20.0.8"}; !slices.Equal(got, want) {
		t.Errorf("found %q, not %q", got, want)
	}
}

// TestFirstSeen speaks with a baseline only.
func TestFirstSeen(t *testing.T) {
	baseline := filepath.Join(t.TempDir(), "baseline.jsonl")
	if err := os.WriteFile(baseline, []byte(`{"pool":"build","destination":"good.example:443"}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	log := squid(1, 7, "TCP_TUNNEL/200", "CONNECT", "good.example:443", "93.184.216.34") + squid(2, 7, "TCP_TUNNEL/200", "CONNECT", "other.example:443", "93.184.216.35")
	config := hindsight.Config{Policy: policy(t, buildPool)}
	if got, _ := found(t, config, log); len(got) > 0 {
		t.Errorf("without a baseline %q was found", got)
	}
	config.Store, config.Alerts.Baseline.File = &alerting.MemoryStore{}, baseline
	if got, _ := found(t, config, log); !slices.Equal(got, []string{"first-seen other.example 10.20.0.7"}) {
		t.Errorf("found %q", got)
	}
}

// TestClocksThatDiffer are noticed.
func TestClocksThatDiffer(t *testing.T) {
	dns, log := dnsHead, ""
	for i := range 50 {
		addr := fmt.Sprintf("93.184.216.%d", i+1)
		dns += question(float64(i), 7, "good.example", addr, 60)
		log += squid(float64(i)-1.5, 7, "TCP_TUNNEL/200", "CONNECT", "good.example:443", addr)
	}
	_, summary := found(t, hindsight.Config{}, dns, log)
	if off := summary.Offset + 1500*time.Millisecond; summary.Offsets < 40 || off.Abs() > 100*time.Millisecond {
		t.Errorf("the offset is %s of %d", summary.Offset, summary.Offsets)
	}
}

// TestOwnEventsCountAsTheyAre without a policy; with one they are judged again.
func TestOwnEventsCountAsTheyAre(t *testing.T) {
	line := `{"v":1,"time":"2026-03-01T12:00:00.000000Z","kind":"conn","id":"p7qak3v9x2m4","pool":"old","client":"10.20.0.7","via":"connect","host":"good.example","port":443,"verdict":"deny","reason":"not-in-allowlist","ms":0.1,"phase":"refused"}` + "\n"
	if got, _ := found(t, hindsight.Config{}, line); !slices.Equal(got, []string{"denied-egress good.example 10.20.0.7"}) {
		t.Errorf("found %q", got)
	}
	if got, _ := found(t, hindsight.Config{Policy: policy(t, buildPool)}, line); len(got) > 0 {
		t.Errorf("judged again, %q was found", got)
	}
}

// TestTwiceTheSame: one input gives one output, alert by alert.
func TestTwiceTheSame(t *testing.T) {
	dns, log := dnsHead, ""
	for i := range 300 {
		dns += question(float64(i%7), i%5+2, fmt.Sprintf("host%d.example", i), fmt.Sprintf("93.184.%d.%d", i>>6, i), 60)
		log += squid(float64(i%11), i%5+2, "TCP_TUNNEL/200", "CONNECT", fmt.Sprintf("93.185.%d.%d:443", i>>6, i), "-")
	}
	var first []string
	for range 5 {
		got, _ := found(t, hindsight.Config{Policy: policy(t, buildPool)}, dns, log)
		if first == nil {
			first = got
		}
		if !slices.Equal(got, first) {
			t.Fatalf("found %q, then %q", first, got)
		}
	}
}
