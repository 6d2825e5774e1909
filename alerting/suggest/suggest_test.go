package suggest_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/alerting/suggest"
	"sallyport/allowlists"
)

var update = flag.Bool("update", false, "write the expected output anew")

// TestSuggest: testdata/CASE.yaml and CASE.jsonl give CASE.out, the file as
// amended, and below it what was left out.
func TestSuggest(t *testing.T) {
	logs, err := filepath.Glob("testdata/*.jsonl")
	if err != nil || len(logs) < 3 {
		t.Fatalf("%d logs: %v", len(logs), err)
	}
	for _, path := range logs {
		name := strings.TrimSuffix(filepath.Base(path), ".jsonl")
		t.Run(name, func(t *testing.T) {
			config := strings.TrimSuffix(path, ".jsonl") + ".yaml"
			text, err := os.ReadFile(config)
			if err != nil {
				t.Fatal(err)
			}
			got := suggestion(t, path, string(text))
			golden := strings.TrimSuffix(path, ".jsonl") + ".out"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s\nnot\n%s", got, want)
			}
		})
	}
}

// suggestion is the output of one case.
func suggestion(t *testing.T, path, text string) string {
	t.Helper()
	file := load(t, text)
	source, err := foreignlog.Probe(path, foreignlog.FormatNamed("sallyport"), foreignlog.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	result, err := suggest.Run(context.Background(), suggest.Config{Sources: []*foreignlog.Source{source}, Spec: file.Spec, Search: file.Search})
	if err != nil {
		t.Fatal(err)
	}
	amended, err := allowlists.Amend([]allowlists.Source{{Name: "a.yaml", Text: []byte(text)}}, result.Amendments())
	if err != nil || len(amended) != 1 {
		t.Fatalf("%d files: %v", len(amended), err)
	}
	load(t, string(amended[0].New))
	var b strings.Builder
	b.Write(amended[0].New)
	for _, p := range result.Pools {
		for _, l := range p.Left {
			fmt.Fprintf(&b, "left out: %q: %s: %s\n", l.Target, l.Why, l.Evidence)
		}
	}
	return b.String()
}

// alarm is an alert about a host.
func alarm(kind, host, evidence string) string {
	return `{"v":1,"time":"2026-11-20T12:00:00.000000Z","kind":"alert","id":"a","pool":"build","client":"10.20.0.7","alert":"` + kind + `","severity":"high","summary":"s","key":"` +
		kind + `/build/x","count":1,"first":"2026-11-20T12:00:00Z","last":"2026-11-20T12:00:00Z","evidence":["` + evidence + `"],"host":"` + host + `"}` + "\n"
}

// TestSuggestAlerts: neither many questions nor many alerts make one forgotten.
func TestSuggestAlerts(t *testing.T) {
	t.Parallel()
	file := load(t, "pools: {build: {sources: [10.20.0.0/24]}}\n")
	open := func(id, host string) string {
		return strings.NewReplacer("k3v9x2m4p7qa", id, `"allow","reason":"allowed-by-audit","would":"not-in-allowlist"`, `"deny","reason":"not-in-allowlist"`).Replace(asked(host, "A"))
	}
	later := strings.Repeat(open("other", "second.example"), 100)
	few := open("its-id", "second.example") + later + alarm(alerting.AlertDeniedThenDirect, "first.example", "its-id") + later + open("x", "third.example")
	var many strings.Builder
	for i := range 50001 {
		many.WriteString(alarm(alerting.AlertRebinding, fmt.Sprintf("h%d.example", i), ""))
	}
	for _, c := range []struct {
		name, log           string
		allow, review, left int
	}{{"an alert by its evidence", few, 1, 0, 1}, {"more alerts than are remembered", many.String() + few, 0, 2, 0}} {
		source, err := foreignlog.Probe("-", foreignlog.FormatNamed("sallyport"), foreignlog.Options{}, strings.NewReader(c.log))
		if err != nil {
			t.Fatal(err)
		}
		result, err := suggest.Run(context.Background(), suggest.Config{Sources: []*foreignlog.Source{source}, Spec: file.Spec, MinJobs: 1})
		if err != nil {
			t.Fatal(err)
		}
		if p := result.Pools[0]; len(p.Allow) != c.allow || len(p.Review) != c.review || len(p.Left) != c.left {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}

// asked is a question that audit let pass, of one client on one day.
func asked(name, qtype string) string {
	return `{"v":1,"time":"2026-11-20T12:00:00.000000Z","kind":"dns","id":"k3v9x2m4p7qa","pool":"build","client":"10.20.0.7","by":"client","name":"` + name +
		`","type":"` + qtype + `","verdict":"allow","reason":"allowed-by-audit","would":"not-in-allowlist","rcode":"NOERROR","answers":[],"cached":false,"ms":1.000}` + "\n"
}

// TestSuggestBounds: who asks for names without end fills neither the memory nor
// the file, and is told of.
func TestSuggestBounds(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	for i := range 20050 {
		log.WriteString(asked(fmt.Sprintf("h%d.example", i), "A"))
	}
	for i := range 2060 {
		log.WriteString(asked(fmt.Sprintf("t%d.example", i), "TXT"))
	}
	file := load(t, "pools: {build: {sources: [10.20.0.0/24], mode: audit}}\n")
	source, err := foreignlog.Probe("-", foreignlog.FormatNamed("sallyport"), foreignlog.Options{}, strings.NewReader(log.String()))
	if err != nil {
		t.Fatal(err)
	}
	result, err := suggest.Run(context.Background(), suggest.Config{Sources: []*foreignlog.Source{source}, Spec: file.Spec})
	if err != nil {
		t.Fatal(err)
	}
	p := result.Pools[0]
	if result.Unseen != 50 || len(p.Review) != 100 || len(p.Left) != 2000 || p.More != 60+20000-100 {
		t.Errorf("%d unseen, %d for review, %d left out and %d more", result.Unseen, len(p.Review), len(p.Left), p.More)
	}
}
