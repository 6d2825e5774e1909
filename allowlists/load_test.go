package allowlists_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/allowlists/diag"
)

// today is the day of every test here.
var today = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// testPresets stand in for the built-in ones.
var testPresets = map[string]string{
	"github-actions": `name: github-actions
description: What a job needs.
hosts:
  - {host: github.com, source: here, verified: 2026-01-01, writable: true}
  - {host: "*.actions.githubusercontent.com", source: here, verified: 2026-01-01}
quiet:
  - {host: telemetry.example, source: here}
`,
	"npm": `name: npm
description: The npm registry.
hosts:
  - {host: "*.npmjs.org", source: here, verified: 2026-01-01, writable: true}
`,
	"ecr": `name: ecr
description: One registry.
params: [region, account]
hosts:
  - {host: "api.ecr.{region}.amazonaws.com", source: here, verified: 2026-01-01}
  - {host: "{account}.dkr.ecr.{region}.amazonaws.com", source: here, verified: 2026-01-01, writable: true}
`,
}

// testEnv is the environment of every test here.
func testEnv(name string) (string, bool) {
	vars := map[string]string{"SLACK_WEBHOOK_URL": "https://hooks.slack.example/T0/B0/canary", "DOMAIN": "corp.example", "PORT": "8443", "EMPTY": "", "DOLLAR": "${DOMAIN}"}
	text, ok := vars[name]
	return text, ok
}

// load loads one text as sallyport.yaml.
func load(text string) (*allowlists.File, *diag.Report) {
	return allowlists.LoadWith([]allowlists.Source{{Name: "sallyport.yaml", Text: []byte(text)}}, testEnv, today, testPresets, map[string]string{})
}

// mustLoad is load for a text without errors.
func mustLoad(t *testing.T, text string) *allowlists.File {
	t.Helper()
	f, report := load(text)
	if f == nil {
		var out strings.Builder
		report.WriteErrors(&out)
		t.Fatalf("not loaded:\n%s", out.String())
	}
	return f
}

func TestWholeSchemaLoads(t *testing.T) {
	text, err := os.ReadFile("testdata/ok/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f := mustLoad(t, string(text))
	if got := len(f.Policy.Pools()); got != 1 {
		t.Fatalf("%d pools", got)
	}
	t.Logf("%+v", f.Settings)
	t.Logf("%+v", f.Notices)
	for _, r := range f.Spec.Pools[0].Allow {
		t.Log(r.Text, r.Where())
	}
}

func TestEveryDefaultParses(t *testing.T) {
	if broken := allowlists.CheckDefaults(); broken != nil {
		t.Errorf("these defaults do not parse: %v", broken)
	}
}
