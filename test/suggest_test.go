package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// auditLine is a connection that only audit let pass, on a day of November.
func auditLine(day int, host string) string {
	return fmt.Sprintf(`{"v":1,"time":"2026-11-%02dT12:00:00.000000Z","kind":"conn","id":"k3v9x2m4p7qa","pool":"build","client":"10.20.0.7","via":"connect","host":"%s","port":443,"ip":"93.184.216.34","verdict":"allow","reason":"allowed-by-audit","would":"not-in-allowlist","ms":1.000,"phase":"open"}`+"\n", day, host)
}

// suggestFiles are a log of two days, and policies that it asks something of.
var suggestFiles = map[string]string{
	"audit.yaml":  "# ours\npools:\n  build:\n    mode: audit # for now\n    sources: [10.20.0.0/24]\n    allow: [a.example] # kept\n",
	"whole.yaml":  "pools:\n  build:\n    sources: [10.20.0.0/24]\n    allow: [b.example, once.example]\n",
	"flow.yaml":   "pools: {build: {sources: [10.20.0.0/24], allow: [a.example]}}\n",
	"broken.yaml": "pools: {build: {mode: nothing}}\n",
	"events.jsonl": auditLine(20, "b.example") + auditLine(21, "b.example") + auditLine(21, "once.example") +
		auditLine(20, `\u001b[31m\n      - evil.example`) + auditLine(21, `\u001b[31m\n      - evil.example`),
	"odd.log":     "no event at all\n",
	"none.jsonl":  "",
	"idle.jsonl":  `{"v":1,"time":"2026-11-20T12:00:00.000000Z","kind":"system","event":"started","details":{}}` + "\n",
	"others.yaml": "pools:\n  build:\n    sources: [10.99.0.0/24]\n",
	"two.yaml":    "pools:\n  build:\n    sources: [10.20.0.0/24]\n  test:\n    sources: [10.98.0.0/24]\n",
	"local.jsonl": auditLine(20, "localhost") + auditLine(21, "localhost") + auditLine(20, "metadata.google.internal") + auditLine(21, "metadata.google.internal"),
}

// TestSuggestCommand: exit codes and output of sallyport suggest.
func TestSuggestCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range suggestFiles {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const line = "      - b.example  # 2 times in 2 jobs, 2026-11-20 to 2026-11-21\n"
	for _, c := range []struct {
		line           string // after "sallyport suggest"
		code           int
		stdout, stderr string // parts that must be there
	}{
		{"-c audit.yaml events.jsonl", 0, "--- audit.yaml\n+++ audit.yaml\n@@ -3,4 +3,8 @@\n", "1 line, 1 for review, 1 left out"},
		{"-c audit.yaml events.jsonl", 0, "+    allow: # kept\n+      - a.example\n+" + line, "left out: ?[31m?      - evil.example:443: bad-host"},
		{"-c audit.yaml events.jsonl", 0, "+      # review\n+      # - once.example  # seen in a single job: 1 time in 1 job, 2026-11-21\n", ""},
		{"-c audit.yaml --min-jobs 1 events.jsonl", 0, "+      - once.example  # 1 time in 1 job, 2026-11-21\n", ""},
		{"-c audit.yaml --format yaml events.jsonl", 0, "pools:\n  build:\n    allow:\n" + line, ""},
		{"-c flow.yaml --format yaml events.jsonl", 0, line, ""},
		{"-c flow.yaml events.jsonl", 1, "", "--format yaml prints what to add"},
		{"-c audit.yaml --format json events.jsonl", 0, `"rule": "b.example"`, ""},
		{"-c whole.yaml events.jsonl", 0, "", "no presets, no lines, 0 for review, 1 left out"},
		{"-c broken.yaml events.jsonl", 2, "", "broken.yaml:1:"},
		{"-c audit.yaml --pool other events.jsonl", 2, "", `"other" is no pool`},
		{"-c audit.yaml --min-jobs 0 events.jsonl", 2, "", "--min-jobs is 1 or more"},
		{"-c audit.yaml --format table events.jsonl", 2, "", "formats are diff, yaml and json"},
		{"--write events.jsonl", 2, "", "--write needs -c"},
		{"-c audit.yaml", 2, "", "no event log is given"},
		{"-c audit.yaml nothing.jsonl", 1, "", "nothing.jsonl"},
		{"-c audit.yaml odd.log", 1, "", "odd.log holds no event"},
		{"events.jsonl", 1, "", "5 decisions left out, of clients that no pool has (10.20.0.7): give -c"},
		{"-c others.yaml events.jsonl", 1, "", "(10.20.0.7): add their addresses to the sources"},
		{"-c others.yaml events.jsonl", 1, "", "no client of the log is in a pool"},
		{"-c two.yaml --pool test events.jsonl", 1, "", "the log has no decision of pool test"},
		{"-c audit.yaml none.jsonl", 1, "", "the log has no decision"},
		{"-c audit.yaml idle.jsonl", 1, "", "the log has no decision"},
		{"-c audit.yaml local.jsonl", 0, "", "no presets, no lines, 0 for review, 2 left out"},
	} {
		r := command(t, dir, append([]string{"suggest"}, strings.Fields(c.line)...)...)
		if r.code != c.code || !strings.Contains(r.stdout, c.stdout) || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("suggest %s: exit code %d\n%s%s", c.line, r.code, r.stdout, r.stderr)
		}
	}
	if text := readText(t, filepath.Join(dir, "audit.yaml")); text != suggestFiles["audit.yaml"] {
		t.Errorf("written without --write:\n%s", text)
	}
}

// TestSuggestPrintsNothingOdd: what a job, or who names files, chose comes out
// as text that shows as itself, and JSON still has it whole.
func TestSuggestPrintsNothingOdd(t *testing.T) {
	t.Parallel()
	const name, host = "a\u202e\x9b2J\n+b.yaml", "x\u202e\u0085\u2066\x7f\U000e0001y"
	dir := t.TempDir()
	for file, text := range map[string]string{name: suggestFiles["audit.yaml"], "events.jsonl": auditLine(20, "b.example") + auditLine(21, "b.example") + auditLine(21, host)} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	odd := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	for _, args := range [][]string{
		{"suggest", "-c", name, "events.jsonl"}, {"suggest", "-c", name, "--write", "events.jsonl"}, {"suggest", "-c", name, "--format", "json", "events.jsonl"},
		{"replay", "-c", name, "--enforce", "--format", "json", "events.jsonl"}, {"replay", "-c", name, "--enforce", "--format", "table", "events.jsonl"},
		{"suggest", "-c", "no" + name, "events.jsonl"}, {"suggest", "-c", name, "no" + name}, {"check", "-c", "no" + name},
	} {
		r := command(t, dir, args...)
		if strings.ContainsFunc(r.stdout+r.stderr, odd) || strings.Contains(r.stdout+r.stderr, "\n+b.yaml") {
			t.Errorf("%q: %q", args, r.stdout+r.stderr)
		}
		if !slices.Contains(args, "json") {
			continue
		}
		if decoded := any(nil); json.Unmarshal([]byte(r.stdout), &decoded) != nil || !strings.Contains(fmt.Sprint(decoded), host) {
			t.Errorf("%q: the host is another: %s", args, r.stdout)
		}
	}
}

// TestSuggestWrites: --write puts the change into the file, by a link to it, and
// a replay refuses nothing but what was not suggested.
func TestSuggestWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range suggestFiles {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("audit.yaml", filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	if r := command(t, dir, "suggest", "-c", "link.yaml", "--write", "--min-jobs", "1", "events.jsonl"); r.code != 0 || !strings.Contains(r.stderr, "link.yaml is written") {
		t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, "again.yaml"), []byte(suggestFiles["audit.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, said := range []string{"again.yaml is written", "nothing is written"} {
		r := command(t, dir, "suggest", "-c", "again.yaml", "--write", "events.jsonl")
		if text := readText(t, filepath.Join(dir, "again.yaml")); r.code != 0 || !strings.Contains(r.stderr, said) || strings.Count(text, "once.example") != 1 || strings.Count(text, "# review") != 1 {
			t.Errorf("written %d times: exit code %d\n%s%s", i+1, r.code, r.stderr, text)
		}
	}
	const want = "# ours\npools:\n  build:\n    mode: audit # for now\n    sources: [10.20.0.0/24]\n    allow: # kept\n      - a.example\n" +
		"      - b.example  # 2 times in 2 jobs, 2026-11-20 to 2026-11-21\n      - once.example  # 1 time in 1 job, 2026-11-21\n"
	if text := readText(t, filepath.Join(dir, "audit.yaml")); text != want {
		t.Errorf("%s", text)
	}
	if info, err := os.Lstat(filepath.Join(dir, "link.yaml")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "audit.yaml")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode of the file: %v, %v", info.Mode(), err)
	}
	r := command(t, dir, "replay", "-c", "audit.yaml", "--enforce", "events.jsonl")
	var report struct {
		Refused struct {
			Destinations []struct{ Host string }
		} `json:"newly_refused"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	for _, d := range report.Refused.Destinations {
		if !strings.Contains(d.Host, "evil.example") {
			t.Errorf("%s is refused", d.Host)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".sallyport*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
