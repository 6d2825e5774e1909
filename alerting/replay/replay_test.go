package replay_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"sallyport/alerting/foreignlog"
	"sallyport/alerting/replay"
	"sallyport/allowlists"
)

// load reads a configuration.
func load(t *testing.T, text string) *allowlists.File {
	t.Helper()
	file, report := allowlists.Load([]allowlists.Source{{Name: "new.yaml", Text: []byte(text)}}, os.LookupEnv, time.Now())
	if file == nil {
		var b strings.Builder
		_ = report.WriteErrors(&b)
		t.Fatal(b.String())
	}
	return file
}

// build is a configuration of one pool with these lines.
func build(lines ...string) string {
	return "pools:\n  build:\n    sources: [10.20.0.0/24]\n    " + strings.Join(lines, "\n    ") + "\n"
}

// line is an event of the client 10.20.0.7 in the pool build.
func line(kind, fields string) string {
	return `{"v":1,"time":"2026-11-23T12:00:00.000000Z","kind":"` + kind + `","id":"k3v9x2m4p7qa","pool":"build","client":"10.20.0.7","policy":3,` + fields + `}` + "\n"
}

// run replays a log.
func run(t *testing.T, r io.Reader, now, old *replay.Judge) *replay.Report {
	t.Helper()
	source, err := foreignlog.Probe("-", foreignlog.FormatNamed("sallyport"), foreignlog.Options{}, r)
	if err != nil {
		t.Fatal(err)
	}
	report, err := replay.Run(context.Background(), replay.Config{Sources: []*foreignlog.Source{source}, New: now, Old: old})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// said sums a report up: "refused a.example:443 not-in-allowlist".
func said(r *replay.Report) string {
	var texts []string
	add := func(word string, changes replay.Changes) {
		for _, c := range changes.Destinations {
			text := word + " " + c.Kind + " " + c.Host
			if c.IP.IsValid() {
				text += c.IP.String()
			}
			text += " " + c.Reason
			if c.Rule != "" {
				text += " " + c.Rule
			}
			texts = append(texts, text)
		}
	}
	add("refused", r.Refused)
	add("allowed", r.Allowed)
	if r.Decisions == 0 {
		return "undecided"
	}
	if len(texts) == 0 {
		return "same"
	}
	return strings.Join(texts, "; ")
}

const (
	open    = `"via":"connect","host":"%s","port":443,"ip":"%s","verdict":"allow","reason":"allowed","rule":"old.yaml:9","ms":1.000,"phase":"open"`
	refused = `"via":"connect","host":"%s","port":443,"verdict":"deny","reason":"%s","ms":1.000,"phase":"refused"`
	asked   = `"by":"client","name":"%s","type":"%s","verdict":"allow","reason":"allowed","rule":"old.yaml:9","rcode":"NOERROR","answers":[%s],"cached":false,"ms":1.000`
)

func TestReplay(t *testing.T) {
	allow := build("allow: [a.example]")
	audit := build("mode: audit", "allow: [a.example]")
	off := build("allow: [{host: a.example, tls: off}]")
	for _, c := range []struct{ name, policy, lines, want string }{
		{"what was allowed and is allowed", allow, line("conn", fmt.Sprintf(open, "a.example", "93.184.216.34")), "same"},
		{"a name without a rule", allow, line("conn", fmt.Sprintf(open, "b.example", "93.184.216.34")), "refused conn b.example not-in-allowlist"},
		{"a name that a rule denies", build("allow: [b.example]", "deny: [b.example]"), line("conn", fmt.Sprintf(open, "b.example", "93.184.216.34")), "refused conn b.example denied-by-rule new.yaml:5"},
		{"a name that has a rule now", allow, line("conn", fmt.Sprintf(refused, "a.example", "not-in-allowlist")), "allowed conn a.example allowed new.yaml:4"},
		{"a name that still has none", allow, line("conn", fmt.Sprintf(refused, "b.example", "not-in-allowlist")), "same"},
		{"the address is judged, too", allow, line("conn", fmt.Sprintf(open, "a.example", "10.0.0.1")), "refused conn a.example special-address new.yaml:4"},
		{"and passes where the rule says so", build("allow: [{host: a.example, resolves_to: [10.0.0.0/8]}]"), line("conn", fmt.Sprintf(open, "a.example", "10.0.0.1")), "same"},
		{"audit lets pass", audit, line("conn", fmt.Sprintf(refused, "b.example", "not-in-allowlist")), "allowed conn b.example allowed-by-audit"},
		{"what audit let pass is refused by enforce", allow, line("conn", `"via":"connect","host":"b.example","port":443,"verdict":"allow","reason":"allowed-by-audit","would":"not-in-allowlist","ms":1.000,"phase":"open"`), "refused conn b.example not-in-allowlist"},
		{"a limit is no matter of the policy", allow, line("conn", fmt.Sprintf(refused, "b.example", "limit-exceeded")), "undecided"},
		{"neither is a malformed request", allow, line("conn", fmt.Sprintf(refused, "b example", "bad-host")), "undecided"},
		{"nor a line of progress", allow, line("conn", strings.Replace(fmt.Sprintf(open, "b.example", "93.184.216.34"), `"open"`, `"progress"`, 1)), "undecided"},
		{"an address asked for", allow, line("conn", fmt.Sprintf(open, "93.184.216.34", "93.184.216.34")), "refused conn 93.184.216.34 address-literal"},
		{"an address with a cidr rule", build("allow: [{cidr: 93.184.216.0/24}]"), line("conn", fmt.Sprintf(refused, "93.184.216.34", "address-literal")), "allowed conn 93.184.216.34 allowed new.yaml:4"},
		{"the end of what was open is no decision", allow, line("conn", strings.Replace(fmt.Sprintf(open, "b.example", "93.184.216.34"), `"open"`, `"close"`, 1)), "undecided"},
		{"a claim that was refused stays so", allow, line("conn", `"via":"connect","host":"a.example","port":443,"sni":"b.example","verdict":"deny","reason":"sni-mismatch","ms":1.000,"phase":"close"`), "undecided"},
		{"unless nothing is read any more", off, line("conn", `"via":"connect","host":"a.example","port":443,"sni":"b.example","verdict":"deny","reason":"sni-mismatch","ms":1.000,"phase":"close"`), "allowed conn a.example allowed new.yaml:4"},
		{"a hidden hello where ech is denied", build("ech: deny", "allow: [a.example]"), line("conn", `"via":"connect","host":"a.example","port":443,"sni":"a.example","ech":true,"verdict":"allow","reason":"allowed","ms":1.000,"phase":"close"`), "refused conn a.example ech-not-allowed new.yaml:5"},
		{"more sent than a limit that is new", build("allow: [{host: a.example, upload_limit: 1MB}]"), line("conn", `"via":"connect","host":"a.example","port":443,"verdict":"allow","reason":"allowed","sent":1000001,"ms":1.000,"phase":"close"`), "refused conn a.example upload-limit new.yaml:4"},
		{"a limit that is gone", allow, line("conn", `"via":"connect","host":"a.example","port":443,"verdict":"deny","reason":"upload-limit","sent":1000001,"ms":1.000,"phase":"close"`), "allowed conn a.example allowed new.yaml:4"},
		{"a Host of another name stays refused", build("allow: ['a.example:80']"), line("conn", `"via":"http","host":"a.example","port":80,"verdict":"deny","reason":"host-mismatch","ms":1.000,"phase":"refused"`), "same"},
		{"redirected, by its server name", allow, line("conn", `"via":"tls","host":"b.example","port":443,"ip":"93.184.216.34","sni":"b.example","verdict":"allow","reason":"allowed","ms":1.000,"phase":"open"`), "refused conn b.example not-in-allowlist"},
		{"redirected, by the answers of then", build("allow: ['a.example:22']"), line("conn", `"via":"tcp","host":"b.example","port":22,"ip":"93.184.216.34","names":["b.example","a.example"],"verdict":"deny","reason":"not-in-allowlist","ms":1.000,"phase":"refused"`), "allowed conn b.example allowed new.yaml:4"},
		{"but not by one whose answer would have lacked the address", build("allow: ['b.example:22', {host: a.example, ports: [22], resolves_to: [10.0.0.0/8]}]"), line("conn", `"via":"tcp","host":"a.example","port":22,"ip":"10.0.0.1","names":["b.example","a.example"],"verdict":"allow","reason":"allowed","ms":1.000,"phase":"open"`), "same"},
		{"redirected, without a name", build("allow: [{cidr: 93.184.216.0/24}]"), line("conn", `"via":"tcp","port":443,"ip":"93.184.216.34","verdict":"deny","reason":"address-mismatch","ms":1.000,"phase":"refused"`), "allowed conn 93.184.216.34 allowed new.yaml:4"},
		{"and still without one", allow, line("conn", `"via":"tcp","port":443,"ip":"93.184.216.34","verdict":"deny","reason":"address-mismatch","ms":1.000,"phase":"refused"`), "same"},
		{"a cidr rule does not carry a denied name", build("allow: [{cidr: 93.184.216.0/24}]", "deny: [b.example]"), line("conn", `"via":"tcp","port":443,"ip":"93.184.216.34","sni":"b.example","verdict":"allow","reason":"allowed","ms":1.000,"phase":"open"`), "refused conn 93.184.216.34 denied-by-rule new.yaml:5"},
		{"packets stay refused", build("allow: [{cidr: 93.184.216.0/24}]"), line("conn", `"via":"udp","port":443,"ip":"93.184.216.34","verdict":"deny","reason":"protocol-blocked","ms":0.000,"phase":"refused"`), "same"},
		{"and pass in audit", audit, line("conn", `"via":"udp","port":443,"ip":"93.184.216.34","verdict":"deny","reason":"protocol-blocked","ms":0.000,"phase":"refused"`), "allowed conn 93.184.216.34 allowed-by-audit"},
		{"but never to credentials", audit, line("conn", `"via":"udp","port":443,"ip":"169.254.169.254","verdict":"deny","reason":"special-address","ms":0.000,"phase":"refused"`), "same"},
		{"a question", allow, line("dns", fmt.Sprintf(asked, "b.example", "A", `"93.184.216.34"`)), "refused dns b.example not-in-allowlist"},
		{"a question of the proxy's is no decision", allow, strings.Replace(line("dns", fmt.Sprintf(asked, "b.example", "A", "")), `"client","name"`, `"proxy","name"`, 1), "undecided"},
		{"a question for the name of an address is none", allow, line("dns", fmt.Sprintf(asked, "4.3.2.1.in-addr.arpa", "PTR", "")), "undecided"},
		{"a type that no rule lists", allow, line("dns", fmt.Sprintf(asked, "a.example", "TXT", "")), "refused dns a.example dns-type-blocked new.yaml:4"},
		{"the target of a service follows it", build("allow: [{host: a.example, dns_types: [SRV]}]"), line("dns", fmt.Sprintf(asked, "_http._tcp.a.example", "SRV", "")) + line("dns", fmt.Sprintf(asked, "b.example", "A", "")), "same"},
		{"but not without the service", allow, line("dns", fmt.Sprintf(asked, "_http._tcp.a.example", "SRV", "")) + line("dns", fmt.Sprintf(asked, "b.example", "A", "")), "refused dns _http._tcp.a.example dns-type-blocked new.yaml:4; refused dns b.example not-in-allowlist"},
		{"a client that no pool has any more", "pools: {build: {sources: [10.30.0.0/24], allow: [a.example]}}\n", line("conn", fmt.Sprintf(open, "a.example", "93.184.216.34")), "refused conn a.example no-pool"},
		{"a client of another pool now", "pools: {build: {sources: [10.30.0.0/24], allow: [a.example]}, other: {sources: [10.20.0.0/16], allow: [b.example]}}\n", line("conn", fmt.Sprintf(open, "a.example", "93.184.216.34")), "refused conn a.example not-in-allowlist"},
		{"a pool with a listener of its own is known by it", "pools: {build: {listen: {proxy: 127.0.0.1:3129}, allow: [a.example]}}\n", line("conn", fmt.Sprintf(open, "a.example", "93.184.216.34")), "same"},
		{"but its source comes first", "pools: {build: {listen: {proxy: 127.0.0.1:3129}, allow: [b.example]}, other: {sources: [10.20.0.0/16], allow: [a.example]}}\n", line("conn", fmt.Sprintf(open, "a.example", "93.184.216.34")), "same"},
		{"a rule counts until it expired", build("allow: [{host: a.example, expires: 2026-11-24}]"), line("conn", fmt.Sprintf(open, "a.example", "93.184.216.34")), "same"},
		{"and not afterwards", build("allow: [{host: a.example, expires: 2026-11-23}]"), line("conn", fmt.Sprintf(open, "a.example", "93.184.216.34")), "refused conn a.example expired-rule new.yaml:4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := load(t, c.policy)
			if got := said(run(t, strings.NewReader(c.lines), replay.NewJudge(file.Policy, file.Search), nil)); got != c.want {
				t.Errorf("%s\nnot %s", got, c.want)
			}
		})
	}
}

// TestReplayTwoPolicies: with an old policy, what was done does not count.
func TestReplayTwoPolicies(t *testing.T) {
	judge := func(text string) *replay.Judge {
		file := load(t, text)
		policy, err := replay.Enforced(file.Spec)
		if err != nil {
			t.Fatal(err)
		}
		return replay.NewJudge(policy, file.Search)
	}
	log := line("conn", fmt.Sprintf(open, "a.example", "93.184.216.34")) + line("conn", fmt.Sprintf(open, "b.example", "93.184.216.34"))
	old, now := judge(build("mode: audit", "allow: [a.example]")), judge(build("mode: audit", "allow: [b.example]"))
	if got, want := said(run(t, strings.NewReader(log), now, old)), "refused conn a.example not-in-allowlist; allowed conn b.example allowed new.yaml:5"; got != want {
		t.Errorf("%s\nnot %s", got, want)
	}
}

// TestReplayFolds: what finds no room in the table is counted all the same.
func TestReplayFolds(t *testing.T) {
	file := load(t, build("allow: [a.example]"))
	var log bytes.Buffer
	const more = 7
	for i := range replay.MaxDestinations + more {
		log.WriteString(line("conn", fmt.Sprintf(open, fmt.Sprintf("h%d.example", i), "93.184.216.34")))
	}
	r := run(t, &log, replay.NewJudge(file.Policy, nil), nil)
	last := r.Refused.Destinations[len(r.Refused.Destinations)-1]
	if r.Refused.Decisions != replay.MaxDestinations+more || len(r.Refused.Destinations) != replay.MaxDestinations+1 || !r.Refused.Folded || !last.Others || last.Count != more {
		t.Errorf("%d decisions in %d rows, the last %+v", r.Refused.Decisions, len(r.Refused.Destinations), last)
	}
}

// endless repeats lines up to a size.
type endless struct {
	lines []byte
	at    int
	left  int64
}

func (r *endless) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), r.left)], r.lines[r.at:])
	r.at = (r.at + n) % len(r.lines)
	r.left -= int64(n)
	return n, nil
}

// TestReplayMemory: what is held does not depend on the size of a log.
func TestReplayMemory(t *testing.T) {
	file := load(t, build("allow: [a.example]"))
	var lines bytes.Buffer
	for i := range 500 {
		lines.WriteString(line("conn", fmt.Sprintf(open, fmt.Sprintf("h%d.example", i), "93.184.216.34")))
		lines.WriteString(line("dns", fmt.Sprintf(asked, "a.example", "A", `"93.184.216.34"`)))
	}
	held := func(size int64) int64 {
		var before, after runtime.MemStats
		judge := replay.NewJudge(file.Policy, nil)
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := run(t, &endless{lines: lines.Bytes(), left: size}, judge, nil)
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(r)
		runtime.KeepAlive(judge)
		return int64(after.HeapAlloc) - int64(before.HeapAlloc)
	}
	small, large := held(1<<20), held(16<<20)
	if large > small+1<<20 {
		t.Errorf("1 MiB leaves %d bytes, 16 MiB %d", small, large)
	}
}

// TestReplayFiles: packed and plain files, and one that is no log.
func TestReplayFiles(t *testing.T) {
	dir := t.TempDir()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = io.WriteString(w, line("conn", fmt.Sprintf(open, "b.example", "93.184.216.34")))
	_ = w.Close()
	for name, text := range map[string][]byte{"a.gz": packed.Bytes(), "none.log": []byte("nothing\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := load(t, build("allow: [a.example]"))
	open := func(name string) []*foreignlog.Source {
		source, err := foreignlog.Probe(filepath.Join(dir, name), foreignlog.FormatNamed("sallyport"), foreignlog.Options{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return []*foreignlog.Source{source}
	}
	config := replay.Config{Sources: open("a.gz"), New: replay.NewJudge(file.Policy, nil)}
	if r, err := replay.Run(context.Background(), config); err != nil || r.Refused.Decisions != 1 {
		t.Errorf("a packed log: %v, %+v", err, r)
	}
	config.Sources = open("none.log")
	if _, err := replay.Run(context.Background(), config); err == nil || !strings.Contains(err.Error(), "no event of Sallyport's") {
		t.Errorf("a file without events: %v", err)
	}
}
