package allowlists_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"sallyport/allowlists"
)

// keysTable is the table of docs/configuration.md.
func keysTable() string {
	var out strings.Builder
	out.WriteString("| key | type | unit | default | effect | what it is |\n|---|---|---|---|---|---|\n")
	for _, k := range allowlists.Keys() {
		when, mark, value := "reload", "", ""
		if k.Restart {
			when = "restart"
		}
		if k.Later {
			mark = " †"
		}
		if k.Default != "" {
			value = "`" + k.Default + "`"
		}
		fmt.Fprintf(&out, "| `%s`%s | %s | %s | %s | %s | %s |\n", k.Path, mark, k.Type, k.Unit, value, when, strings.ReplaceAll(k.Doc, "|", `\|`))
	}
	return out.String()
}

// The document has the keys that the program has; -update writes them.
func TestConfigurationIsDocumented(t *testing.T) {
	const path, begin, end = "../docs/configuration.md", "<!-- keys: begin -->\n", "<!-- keys: end -->"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(text), begin)
	_, tail, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s lacks its marks", path)
	}
	golden(t, path, head+begin+keysTable()+end+tail)
}

// Each row of the schema says what it is about.
func TestSchemaIsWhole(t *testing.T) {
	seen := make(map[string]bool)
	for _, k := range allowlists.Keys() {
		if k.Doc == "" || k.Type == "" || strings.HasSuffix(k.Doc, ".") || seen[k.Path] {
			t.Errorf("%+v", k)
		}
		seen[k.Path] = true
	}
}

// Keys that have no effect yet are named when a file sets them, and only then.
func TestNotices(t *testing.T) {
	quiet := mustLoad(t, "listen: {transparent: \"\"}\npools: {a: {interfaces: [], listen: {transparent: []}}}\nalerts: {thresholds: {}}\n")
	if len(quiet.Notices) != 0 {
		t.Errorf("%q", quiet.Notices)
	}
	text := `listen: {transparent: auto}
pools:
  a:
    interfaces: [br0]
    listen: {transparent: 127.0.0.1:3129}
    allow: [{host: a.test, upload_limit: 1MB}]
alerts:
  thresholds: {upload_factor: 3, fold_groups: 7}
  slack: {webhook_url: "https://hooks.slack.example/x", daily: "09:00"}
`
	want := []string{"alerts.slack.daily"}
	got := mustLoad(t, text).Notices
	if len(got) != len(want) {
		t.Errorf("%d notices, want %d: %q", len(got), len(want), got)
	}
	for _, key := range want {
		if !strings.Contains(strings.Join(got, "\n"), " "+key+" is accepted, but has no effect yet") {
			t.Errorf("no notice of %s", key)
		}
	}
}

// Nobody is told to set a key that has no effect.
func TestNoAdviceWithoutEffect(t *testing.T) {
	_, report := allowlists.Load([]allowlists.Source{{Name: "a.yaml", Text: []byte(`
pools: {a: {sources: [127.0.0.0/8], presets: [github-actions], allow: ["*.npmjs.org"]}}`)}}, testEnv, today)
	if len(report.Warnings()) < 2 {
		t.Fatalf("nothing is advised: %v", report.Warnings())
	}
	for _, k := range allowlists.Keys() {
		for _, problem := range report.Warnings() {
			if name := k.Path[strings.LastIndexByte(k.Path, '.')+1:]; k.Later && strings.Contains(problem.Text, name) {
				t.Errorf("%s has no effect, and is advised: %s", k.Path, problem.Text)
			}
		}
	}
}
