package test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReportCommand: exit codes and output of sallyport report.
func TestReportCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{
		"old.yaml":    replayFiles["old.yaml"],
		"broken.yaml": replayFiles["broken.yaml"],
		"odd.log":     replayFiles["odd.log"],
		"empty.jsonl": "",
		// The connection to c.example is refused with an id that explain would take.
		"events.jsonl": replayFiles["events.jsonl"],
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		line           string // after "sallyport report"
		code           int
		stdout, stderr string // parts that must be there
	}{
		{"events.jsonl", 0, "2 of 4 connections and 0 of 0 DNS questions were refused; no alerts.\n", ""},
		{"events.jsonl", 0, "| `c.example:443` | not-in-allowlist | 1 | 2026-11-23 12:00:00 | `- c.example` | `sallyport explain k3v9x2m4p7qa` |\n", ""},
		{"events.jsonl", 0, "`c\ufffd[31m.example:443`", ""},
		{"-c old.yaml events.jsonl", 0, "Rules that nothing here used, of pool `build`\n\nOf its 2 own rules each was used.\n", ""},
		{"--format html events.jsonl", 0, "<!DOCTYPE html>\n<html lang=\"en\">", ""},
		{"--format json events.jsonl", 0, `"host": "c\u001b[31m.example"`, ""},
		{"--format json --job 10.20.0.7 --pool build events.jsonl", 0, `"connections": 4`, ""},
		{"--format json --job 10.20.0.8 events.jsonl", 0, `"connections": 0`, "no decision of what was asked for"},
		{"--format json --since 2026-11-23 --until 2026-11-23T12:00:01Z events.jsonl", 0, `"connections": 4`, ""},
		{"--format json --until 2026-11-23T12:00:00Z events.jsonl", 0, `"connections": 0`, "no decision of what was asked for"},
		{"empty.jsonl", 0, "The log has no event at all.", "no decision of what was asked for"},
		{"--format table events.jsonl", 2, "", "formats are md, html and json"},
		{"--since yesterday events.jsonl", 2, "", `--since "yesterday" is no time; write one such as`},
		{"--since -1h events.jsonl", 2, "", `--since "-1h" is no time`},
		{"--since 1h --until 2h events.jsonl", 2, "", "--since is not before --until"},
		{"-c broken.yaml events.jsonl", 2, "", "broken.yaml:1:"},
		{"-c old.yaml --pool other events.jsonl", 2, "", `"other" is no pool`},
		{"", 2, "", "no event log is given"},
		{"nothing.jsonl", 1, "", "nothing.jsonl"},
		{"odd.log", 1, "", "odd.log holds no event"},
	} {
		r := command(t, dir, append([]string{"report"}, strings.Fields(c.line)...)...)
		if r.code != c.code || !strings.Contains(r.stdout, c.stdout) || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("report %s: exit code %d\n%s%s\nwant %q, %q", c.line, r.code, r.stdout, r.stderr, c.stdout, c.stderr)
		}
	}
}

// TestReportOfADaemon: what a client did is in the report of the daemon's log,
// and nothing of what it lacks.
func TestReportOfADaemon(t *testing.T) {
	t.Parallel()
	z := newZone(t, "a.example. 60 A 127.0.0.1")
	d := start(t, config{upstream: z.addr, pools: "  build: {sources: [127.0.0.0/8], allow: [{host: a.example, ports: [1], tls: off, resolves_to: [127.0.0.0/8]}, unused.example]}\n"})
	id := connect(t, d.proxy, "evil.example:443").header.Get("Sallyport-Id")
	connect(t, d.proxy, "a.example:1")
	d.stop()
	r := command(t, d.dir, "report", "-c", "sallyport.yaml", "--since", "1h", "--format", "json", "events.jsonl")
	var got struct {
		Totals   struct{ Connections, Refused int }
		Refusals []struct{ Host, ID, Reason, Explain string }
		System   []struct{ Event string }
		Unused   []struct{ Rules []struct{ Rule string } }
		Lacks    []struct{ Text string }
		Scope    struct{ First time.Time }
	}
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != 0 {
		t.Fatalf("exit code %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	if got.Totals.Connections != 2 || got.Totals.Refused != 1 || len(got.Lacks) > 0 || time.Since(got.Scope.First) > time.Hour {
		t.Errorf("%+v", got)
	}
	if len(got.Refusals) != 1 || got.Refusals[0].ID != id || got.Refusals[0].Explain != "sallyport explain "+id {
		t.Errorf("refused: %+v, want %s", got.Refusals, id)
	}
	if len(got.System) == 0 || got.System[0].Event != "started" {
		t.Errorf("system events: %+v", got.System)
	}
	if len(got.Unused) != 1 || len(got.Unused[0].Rules) != 1 || got.Unused[0].Rules[0].Rule != "unused.example" {
		t.Errorf("unused: %+v", got.Unused)
	}
}

// TestExplainTellsTheStory: of an id in a log the whole story is told: question
// and answer, connection, verdict, rule, alert, and what would allow it.
func TestExplainTellsTheStory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := []byte(readText(t, "../alerting/report/testdata/story.jsonl"))
	if err := os.WriteFile(filepath.Join(dir, "events.jsonl"), log, 0o644); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(log)
	_ = w.Close()
	if err := os.WriteFile(filepath.Join(dir, "events.jsonl.1.gz"), packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id, what string
		code     int
		parts    []string // in this order
		none     string   // must not be there
	}{
		{"k3v9x2m4p7ac", "a connection", 0, []string{
			"event     dns k3v9x2m4p7ab\n", "name      registry.corp.example A\n", "cnames    edge.corp.example\n", "answers   93.184.216.7\n",
			"event     conn open k3v9x2m4p7ac\n", "job       corp/app ci.yml 4711 build\n", "rule      sallyport.yaml:6\n", "question  k3v9x2m4p7ab\n",
			"event     conn close k3v9x2m4p7ac\n", "bytes     2210 sent, 81532 received\n"}, "k3v9x2m4p7ad"},
		{"k3v9x2m4p7ab", "a question", 0, []string{"event     dns k3v9x2m4p7ab\n", "event     conn open k3v9x2m4p7ac\n"}, "k3v9x2m4p7ad"},
		{"k3v9x2m4p7ai", "a refusal", 3, []string{
			"event     conn refused k3v9x2m4p7ai\n", "verdict   deny (not-in-allowlist)\n", "alert     denied-egress medium\n",
			"summary   evil.example:443 was refused", "count     3\n", "\nallow by  - evil.example\n"}, "k3v9x2m4p7am"},
		{"k3v9x2m4p7ak", "one with a grave alert", 3, []string{
			"event     conn refused k3v9x2m4p7ak\n", "alert     denied-then-direct critical\n", "\nallow by  no line is offered, as the alert denied-then-direct is about it\n"}, "cidr"},
		{"k3v9x2m4p7am", "an alert", 0, []string{"event     dns k3v9x2m4p7ag\n", "event     conn refused k3v9x2m4p7ak\n", "event     alert k3v9x2m4p7am\n"}, "k3v9x2m4p7ad"},
		{"k3v9x2m4p7aq", "a deny rule", 3, []string{"verdict   deny (denied-by-rule)\n", "rule      sallyport.yaml:11\n"}, "allow by"},
	} {
		for _, path := range []string{"events.jsonl", "events.jsonl.1.gz"} {
			r := command(t, dir, "explain", "--events", path, c.id)
			rest := r.stdout
			for _, part := range c.parts {
				_, after, found := strings.Cut(rest, part)
				if !found {
					t.Errorf("%s in %s: %q is missing, or not there in order:\n%s%s", c.what, path, part, r.stdout, r.stderr)
					break
				}
				rest = after
			}
			if r.code != c.code || strings.Contains(r.stdout, c.none) || r.stderr != "" {
				t.Errorf("%s in %s: exit code %d, or %q is there:\n%s%s", c.what, path, r.code, c.none, r.stdout, r.stderr)
			}
		}
	}
	piped := commandIn(t, dir, nil, "sh", "-c", "cat events.jsonl | "+binary+" explain --format json --events /dev/stdin k3v9x2m4p7ac")
	var found struct {
		Verdict string
		Events  []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(piped.stdout), &found); err != nil || found.Verdict != "allow" || len(found.Events) != 3 || found.Events[0].ID != "k3v9x2m4p7ab" {
		t.Errorf("from a pipe: %v, %+v\n%s", err, found, piped.stderr)
	}
}
