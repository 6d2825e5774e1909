package alerting_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/eventtest"
	"sallyport/allowlists"
)

var update = flag.Bool("update", false, "write docs/events.md and docs/events.schema.json")

// fullEvents have every field that a line of their kind can have.
func fullEvents() []alerting.Event {
	head := alerting.Event{
		Time: noon, ID: "k3v9x2m4p7qa", Pool: "build", Client: netip.MustParseAddr("10.20.0.7"), Iface: "br-build", Policy: 3,
		Job:     &allowlists.Job{Repo: "corp/app", Workflow: "ci.yml", RunID: "4711", Job: "test", Ref: "refs/heads/main"},
		Verdict: allowlists.Allow, Reason: allowlists.AllowedByAudit, Would: allowlists.NotInAllowlist,
		Rule: "sallyport.yaml:14", Quiet: true, Took: 1234 * time.Microsecond, Error: "connection reset by peer",
	}
	dns, conn, alert := head, head, head
	dns.Kind, dns.By, dns.Name, dns.Type, dns.RCode = alerting.KindDNS, alerting.ByClient, "registry.corp.example", "A", "NOERROR"
	dns.Answers = []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")}
	dns.Removed = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	dns.CNAMEs, dns.Cached, dns.Upstream, dns.Search = []string{"edge.corp.example"}, true, "10.0.0.2:53", true
	dns.Resolver, dns.Payload, dns.Limit = netip.MustParseAddr("198.51.100.53"), 120, "limits.dns_per_client"
	conn.Kind, conn.Phase, conn.Via, conn.Method = alerting.KindConn, alerting.PhaseClose, "http", "GET"
	conn.Host, conn.Port, conn.IP, conn.ClientPort = "registry.corp.example", 443, netip.MustParseAddr("198.51.100.7"), 50123
	conn.SNI, conn.ALPN, conn.ECH, conn.DNSID, conn.Names = "registry.corp.example", "h2,http/1.1", true, "a2b3c4d5e6f7", []string{"registry.corp.example"}
	conn.Original = netip.MustParseAddr("203.0.113.5")
	conn.Redialled, conn.Ambiguous, conn.Sent, conn.Received = true, true, 1024, 65536
	alert.Kind, alert.Alert, alert.Severity, alert.Summary = alerting.KindAlert, "denied-egress", "medium", "build tried evil.example, which its allowlist does not name"
	alert.Key, alert.Count, alert.First, alert.Last, alert.Evidence = "denied-egress/build/evil.example", 3, noon, noon, []string{"k3v9x2m4p7qa"}
	alert.Host, alert.Port, alert.IP, alert.Suggest = "evil.example", 443, conn.IP, "- evil.example"
	alert.Closed = "allowed since policy generation 4"
	system := alerting.Event{
		Time: noon, Kind: alerting.KindSystem, Pool: "build", Client: head.Client, Iface: "br-build", Policy: 3, Job: head.Job,
		Event: "started", Details: map[string]any{"version": "1.0.0", "pools": 2, "enforced": false, "proxy": []string{"127.0.0.1:3128"}},
	}
	return []alerting.Event{dns, conn, alert, system}
}

// keysOf lists the keys of a JSON object in their order.
func keysOf(t *testing.T, line []byte) (keys []string) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.Token()
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key.(string))
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

func TestEveryFieldOfTheTableIsInTheLineAndNoOther(t *testing.T) {
	for _, e := range fullEvents() {
		var want []string
		for _, field := range alerting.EventFields(e.Kind) {
			want = append(want, field.Name)
		}
		if got := keysOf(t, lineOf(t, e)); !slices.Equal(got, want) {
			t.Errorf("%s has\n%v, want\n%v", e.Kind, got, want)
		}
	}
}

func TestTheLeastOfEachKindIsValid(t *testing.T) {
	client := netip.MustParseAddr("::1")
	for _, e := range append(fullEvents(),
		alerting.Event{Time: noon, Kind: alerting.KindDNS, ID: "a", Client: client, By: "client", Type: "TYPE0", Reason: allowlists.DNSMalformed},
		alerting.Event{Time: noon, Kind: alerting.KindConn, ID: "a", Client: client, Via: "tcp", Phase: alerting.PhaseRefused},
		alerting.Event{Time: noon, Kind: alerting.KindConn, ID: "a", Client: client, Via: "tcp", Phase: alerting.PhaseProgress},
		alerting.Event{Time: noon, Kind: alerting.KindAlert, ID: "a", Alert: "policy", Severity: "high"},
		alerting.Event{Time: noon, Kind: alerting.KindSystem, Event: "stopping"},
		alerting.Event{Time: noon, Kind: alerting.KindConn, ID: "a", Client: client, Via: "tcp", Phase: alerting.PhaseRefused, Host: strings.Repeat("\u202e", 3000)},
	) {
		eventtest.ValidateLines(t, bytes.NewReader(append(lineOf(t, e), '\n')))
	}
	for _, reason := range allowlists.Reasons() {
		e := aConn()
		e.Phase, e.Reason, e.Verdict = alerting.PhaseRefused, reason, allowlists.Deny
		if reason == allowlists.AllowedByAudit {
			e.Verdict = allowlists.Allow
		}
		eventtest.ValidateLines(t, bytes.NewReader(append(lineOf(t, e), '\n')))
	}
}

func TestTheSchemaIsStrict(t *testing.T) {
	good := string(lineOf(t, aConn()))
	for _, c := range []struct{ what, old, new string }{
		{"an unknown field", `"phase"`, `"extra":1,"phase"`},
		{"an unknown reason", `"reason":"allowed"`, `"reason":"fine"`},
		{"an unknown kind", `"kind":"conn"`, `"kind":"tcp"`},
		{"an unknown phase", `"phase":"open"`, `"phase":"opened"`},
		{"an unknown way", `"via":"connect"`, `"via":"socks"`},
		{"another version", `"v":1`, `"v":2`},
		{"a time without microseconds", `.123456Z`, `Z`},
		{"a time with a zone", `.123456Z`, `.123456+01:00`},
		{"no client", `"client":"10.20.0.7",`, ``},
		{"a client that is no address", `"client":"10.20.0.7"`, `"client":"runner"`},
		{"no verdict", `"verdict":"allow",`, ``},
		{"audit without would", `"reason":"allowed"`, `"reason":"allowed-by-audit"`},
		{"would without audit", `"reason":"allowed"`, `"reason":"allowed","would":"no-pool"`},
		{"open although refused", `"verdict":"allow"`, `"verdict":"deny"`},
		{"closed without counts", `"phase":"open"`, `"phase":"close"`},
		{"counts at the verdict", `"phase":"open"`, `"sent":0,"received":0,"phase":"open"`},
		{"a port out of range", `"port":443`, `"port":65536`},
		{"ms as text", `"ms":12.345`, `"ms":"12"`},
		{"a field of another kind", `"phase"`, `"rcode":"NOERROR","phase"`},
	} {
		line := strings.Replace(good, c.old, c.new, 1)
		if line == good {
			t.Fatalf("%s: nothing replaced", c.what)
		}
		if eventtest.ValidateLine([]byte(line)) == nil {
			t.Errorf("%s passes: %s", c.what, line)
		}
	}
	if err := eventtest.ValidateLine([]byte(good)); err != nil {
		t.Error(err)
	}
}

// sameFile holds a file of docs against what it should be.
func sameFile(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says; go test ./alerting -update writes it", path)
	}
}

func TestTheSchemaFileIsThatOfTheCode(t *testing.T) {
	sameFile(t, "../docs/events.schema.json", alerting.SchemaJSON())
}

func TestTheDocumentIsThatOfTheCode(t *testing.T) {
	var b strings.Builder
	b.WriteString(documentHead)
	for _, kind := range []struct{ name, what string }{
		{alerting.KindDNS, "One line for each question, also for those that the proxy asks for a client."},
		{alerting.KindConn, "The lines of a connection, or of one plain HTTP request."},
		{alerting.KindAlert, "Something that people should know. The same goes to the sinks, grouped."},
		{alerting.KindSystem, "Something that happened to the daemon itself."},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| field | in every line | value | meaning |\n|---|---|---|---|\n", kind.name, kind.what)
		for _, f := range alerting.EventFields(kind.name) {
			always := ""
			if f.Required {
				always = "yes"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, always, f.Shape, f.Meaning)
		}
		b.WriteString("\n")
		for _, example := range documentExamples() {
			if example.event.Kind == kind.name {
				line := lineOf(t, example.event)
				if err := eventtest.ValidateLine(line); err != nil {
					t.Errorf("%s: %v", example.what, err)
				}
				fmt.Fprintf(&b, "%s:\n\n```json\n%s\n```\n\n", example.what, line)
			}
		}
	}
	b.WriteString("### The events of kind system\n\n| event | when | details |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(systemEvents)) {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, systemEvents[name][0], systemEvents[name][1])
	}
	b.WriteString(documentTail)
	sameFile(t, "../docs/events.md", []byte(b.String()))
}
