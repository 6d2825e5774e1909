package alerting_test

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/alerting"
	"sallyport/allowlists"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC)

// lineOf encodes an event as the log does, without the newline.
func lineOf(t testing.TB, e alerting.Event) []byte {
	t.Helper()
	line, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func aConn() alerting.Event {
	return alerting.Event{
		Time: noon, Kind: alerting.KindConn, ID: "k3v9x2m4p7qa", Pool: "build", Policy: 3,
		Client: netip.MustParseAddr("10.20.0.7"), Via: "connect", Host: "registry.corp.example", Port: 443,
		IP: netip.MustParseAddr("198.51.100.7"), ClientPort: 50123, SNI: "registry.corp.example", ALPN: "h2",
		Verdict: allowlists.Allow, Reason: allowlists.Allowed, Rule: "sallyport.yaml:14",
		DNSID: "aaaabbbbcccc", Names: []string{"registry.corp.example"}, Took: 12345 * time.Microsecond,
		Phase: alerting.PhaseOpen,
	}
}

func TestLineHasItsFieldsInOrder(t *testing.T) {
	const want = `{"v":1,"time":"2026-11-23T12:00:00.123456Z","kind":"conn","id":"k3v9x2m4p7qa","pool":"build","client":"10.20.0.7",` +
		`"policy":3,"via":"connect","host":"registry.corp.example","port":443,"ip":"198.51.100.7","client_port":50123,` +
		`"sni":"registry.corp.example","alpn":"h2","verdict":"allow","reason":"allowed","rule":"sallyport.yaml:14",` +
		`"dns_id":"aaaabbbbcccc","names":["registry.corp.example"],"ms":12.345,"phase":"open"}`
	if got := string(lineOf(t, aConn())); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTimeIsUTCWithSixDecimals(t *testing.T) {
	e := aConn()
	e.Time = time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600))
	if line := lineOf(t, e); !bytes.Contains(line, []byte(`"time":"2026-01-02T03:04:05.000000Z"`)) {
		t.Errorf("line is %s", line)
	}
}

func TestWhatAJobNamesIsEscaped(t *testing.T) {
	for _, c := range []struct{ what, name, want string }{
		{"a terminal's escape", "\x1b[31mred", `"\u001b[31mred"`},
		{"the one-byte escape of C1", "\u009b31m", `"\u009b31m"`},
		{"a line end", "a\r\nb", `"a\u000d\u000ab"`},
		{"a forged line", "x\"}\n{\"v\":1", `"x\"}\u000a{\"v\":1"`},
		{"a backslash", `a\u0041`, `"a\\u0041"`},
		{"separators of JavaScript", "a\u2028b\u2029c", `"a\u2028b\u2029c"`},
		{"bidirectional overrides", "moc.\u202eelpmaxe\u2066\u200f", `"moc.\u202eelpmaxe\u2066\u200f"`},
		{"zero width", "git\u200bhub\ufeff.com", `"git\u200bhub\ufeff.com"`},
		{"invisible tags", "a\U000e0041b", `"a\udb40\udc41b"`},
		{"NUL and DEL", "a\x00b\x7f", `"a\u0000b\u007f"`},
		{"bytes that are not UTF-8", "a\xff\xfeb\xc0\xafc\xed\xa0\x80", "\"a\ufffd\ufffdb\ufffd\ufffdc\ufffd\ufffd\ufffd\""},
		{"a space that is none", "a\u00a0b", `"a\u00a0b"`},
		{"letters of other scripts stay", "bücher.例え", `"bücher.例え"`},
		{"tags of a page stay, for the page to escape", "<b>&", `"<b>&"`},
	} {
		for _, field := range []string{"host", "name", "names", "job", "error"} {
			e := aConn()
			switch field {
			case "host":
				e.Host = c.name
			case "name":
				e = alerting.Event{Time: noon, Kind: alerting.KindDNS, Name: c.name}
			case "names":
				e.Names = []string{c.name}
			case "job":
				e.Job = &allowlists.Job{Repo: c.name}
			case "error":
				e.Error = c.name
			}
			if line := lineOf(t, e); !bytes.Contains(line, []byte(c.want)) {
				t.Errorf("%s in %s: %s lacks %s", c.what, field, line, c.want)
			}
		}
	}
}

func TestLongValuesAreCutAndEveryLineIsBounded(t *testing.T) {
	e := aConn()
	e.Host = strings.Repeat("a", 5000)
	if got := parsed(t, lineOf(t, e)).Host; got != strings.Repeat("a", 1024)+"…" {
		t.Errorf("a long host becomes %d bytes: %s", len(got), got)
	}
	worst := strings.Repeat("\x00", 70000)
	many := make([]string, 1000)
	for i := range many {
		many[i] = worst
	}
	details := map[string]any{}
	for i := range 100 {
		details[worst[:i]] = many
	}
	for _, e := range []alerting.Event{
		{Kind: alerting.KindDNS, ID: worst, Name: worst, CNAMEs: many, Rule: worst, Upstream: worst, Error: worst, Type: worst, RCode: worst, By: worst, Pool: worst, Iface: worst, Answers: make([]netip.Addr, 1000), Removed: make([]netip.Addr, 1000)},
		{Kind: alerting.KindConn, ID: worst, Host: worst, SNI: worst, ALPN: worst, Method: worst, Names: many, Error: worst, Rule: worst, DNSID: worst, Pool: worst, Iface: worst, Phase: worst, Via: worst, Job: &allowlists.Job{Repo: worst, Workflow: worst, RunID: worst, Job: worst, Ref: worst}},
		{Kind: alerting.KindAlert, ID: worst, Alert: worst, Severity: worst, Summary: worst, Key: worst, Evidence: many, Host: worst, Suggest: worst, Pool: worst},
		{Kind: alerting.KindSystem, Event: worst, Details: details, Pool: worst, Iface: worst},
	} {
		line := lineOf(t, e)
		if len(line)+1 > 16<<10 || !json.Valid(line) {
			t.Errorf("kind %s: %d bytes, valid %v", e.Kind, len(line), json.Valid(line))
		}
	}
}

func TestDetailsKeepTheirTypes(t *testing.T) {
	e := alerting.Event{Time: noon, Kind: alerting.KindSystem, Event: "started", Details: map[string]any{
		"proxy": []string{"127.0.0.1:3128"}, "enforced": false, "pools": 2, "version": "1.0", "wait": 2 * time.Second, "nan": 0.5,
	}}
	want := map[string]any{"proxy": []string{"127.0.0.1:3128"}, "enforced": false, "pools": 2.0, "version": "1.0", "wait": "2s", "nan": 0.5}
	if got := parsed(t, lineOf(t, e)).Details; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLinesThatAreNoEventsAreErrors(t *testing.T) {
	for _, line := range []string{
		``, `{`, `[]`, `null`, `{}`, `{"v":2,"kind":"dns"}`, `{"v":1,"kind":"other"}`, `{"level":"info","message":"x"}`,
		`{"v":1,"kind":"conn","verdict":"perhaps","reason":"allowed"}`, `{"v":1,"kind":"conn","verdict":"deny","reason":"none"}`,
		`{"v":1,"kind":"conn","verdict":"deny","reason":"no-pool","ip":"nowhere"}`, `{"v":1,"kind":"dns","verdict":"allow","reason":"allowed-by-audit"}`,
	} {
		if e, err := alerting.ParseEvent([]byte(line)); err == nil {
			t.Errorf("%s is taken for %+v", line, e)
		}
	}
}

func parsed(t testing.TB, line []byte) alerting.Event {
	t.Helper()
	e, err := alerting.ParseEvent(line)
	if err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return e
}

// cleaned is what a value is after its way through a line.
func cleaned(text string, limit int) string {
	var whole strings.Builder
	for _, r := range text { // a byte that is not UTF-8 is a U+FFFD
		whole.WriteRune(r)
	}
	text = whole.String()
	cut := len(text) > limit
	if cut {
		end := limit
		for end > limit-4 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	if cut {
		text += "…"
	}
	return text
}

// FuzzEncode holds any event against: one line, nothing in it that a terminal
// or a page acts on, bounded, and read back the same.
func FuzzEncode(f *testing.F) {
	f.Add("github.com", "github.com", "", []byte{1, 2, 3, 4}, uint16(443), int64(17))
	f.Add("x\"}\n{\"v\":1,\"kind\":\"system\"}", "\x1b]0;t\a", "a\u2028b", []byte{}, uint16(0), int64(-1))
	f.Add("\xff\xfe\xed\xa0\x80", "\u202e", `\u0000\`, []byte(strings.Repeat("a", 16)), uint16(65535), int64(1)<<62)
	f.Add(strings.Repeat("\x00", 3000), strings.Repeat("é", 700), strings.Repeat("\U000e0041", 300), []byte{10, 0, 0, 1}, uint16(53), int64(5))
	f.Fuzz(func(t *testing.T, name, claimed, free string, address []byte, port uint16, n int64) {
		ip, _ := netip.AddrFromSlice(address)
		took := time.Duration(n%(1<<50)) / 1000 * 1000
		events := []alerting.Event{
			{Kind: alerting.KindDNS, ID: "a", By: "client", Name: name, Type: "A", RCode: "NOERROR", CNAMEs: []string{claimed, free}, Upstream: free, Took: took, Reason: allowlists.AllowedByAudit, Would: allowlists.NoPool, Verdict: allowlists.Allow},
			{Kind: alerting.KindConn, ID: "b", Host: name, SNI: claimed, Method: free, Error: free, IP: ip, Port: port, Names: []string{name}, Phase: "close", Via: "tcp", Sent: n, Received: n, Took: took, Reason: allowlists.NoPool, Job: &allowlists.Job{Ref: free}},
			{Kind: alerting.KindAlert, ID: "c", Alert: "scan", Summary: free, Host: name, IP: ip, Port: port, Evidence: []string{name, claimed}, First: noon, Last: noon, Suggest: claimed, Key: free},
			{Kind: alerting.KindSystem, Event: free, Details: map[string]any{"a": name, "b": []string{claimed}}},
		}
		for _, e := range events {
			e.Time = noon
			line := lineOf(t, e)
			if len(line) >= 16<<10 || !json.Valid(line) || !utf8.Valid(line) || bytes.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("not one clean line of bounded length: %q", line)
			}
			got := parsed(t, line)
			if len(name)+len(claimed)+len(free) > 400 {
				continue // values may be cut, and a tight line cuts further
			}
			again := lineOf(t, got)
			if !bytes.Equal(line, again) {
				t.Fatalf("read back, it becomes another line:\n%s\n%s", line, again)
			}
			if e.Kind == alerting.KindConn && (got.Host != cleaned(name, 1024) || got.SNI != cleaned(claimed, 1024) || got.Error != cleaned(free, 1024) || got.Sent != n || got.IP != ip || got.Port != port || got.Took != took || got.Job.Ref != cleaned(free, 256)) {
				t.Fatalf("%+v\nbecame %+v", e, got)
			}
			if e.Kind == alerting.KindDNS && (got.Name != cleaned(name, 1024) || got.CNAMEs[1] != cleaned(free, 1024) || got.Would != e.Would) {
				t.Fatalf("%+v\nbecame %+v", e, got)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e := aConn()
	b.ReportAllocs()
	for b.Loop() {
		alerting.EncodeForBench(&e)
	}
}
