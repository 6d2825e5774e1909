package allowlists_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
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
	"half": `name: half
params: [region]
hosts:
  - {host: public.test, source: here, verified: 2026-01-01}
  - {host: "{region}.test", source: here, verified: 2026-01-01}
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

// The sample of the whole schema loads, and every part of it arrives.
func TestWholeSchemaLoads(t *testing.T) {
	text, err := os.ReadFile("testdata/ok/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f := mustLoad(t, string(text))
	var out strings.Builder
	fmt.Fprintf(&out, "%+v\n", f.Settings)
	for _, p := range f.Spec.Pools {
		fmt.Fprintf(&out, "pool %s %s %v %v %v ech=%v\n", p.Name, p.Mode, p.Sources, p.Interfaces, p.Presets, p.ECH)
		for i, rules := range [][]allowlists.Rule{p.Allow, p.Deny, p.Quiet} {
			for _, r := range rules {
				fmt.Fprintf(&out, "  %s %s at %s: ports=%s tls=%d resolves_to=%v dns_types=%v upload=%d writable=%v expires=%v %q %q\n", []string{"allow", "deny", "quiet"}[i],
					r.Text, r.Where(), r.Ports, r.TLS, r.ResolvesTo, r.DNSTypes, r.UploadLimit, r.Writable, r.Expires.Format(time.DateOnly), r.Reason, r.Owner)
			}
		}
	}
	golden(t, "testdata/ok/full.out", out.String())
}

func TestEveryDefaultParses(t *testing.T) {
	if broken := allowlists.CheckDefaults(); broken != nil {
		t.Errorf("these defaults do not parse: %v", broken)
	}
}

// What is printed as the defaults is the embedded configuration in full.
func TestDefaultsArePrintedAsTheyAre(t *testing.T) {
	var out strings.Builder
	if err := allowlists.WriteDefaults(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/ok/defaults.yaml", out.String())
	printed := mustLoad(t, out.String())
	embedded, _ := allowlists.LoadWith(allowlists.Embedded(), testEnv, today, testPresets, nil)
	if !reflect.DeepEqual(printed.Settings, embedded.Settings) {
		t.Errorf("printed %+v\nserved %+v", printed.Settings, embedded.Settings)
	}
	if got, want := ruleTexts(printed), ruleTexts(embedded); !slices.Equal(got, want) || len(got) == 0 {
		t.Errorf("printed rules %v, served %v", got, want)
	}
	if changed := embedded.NeedsRestart(printed); changed != nil {
		t.Errorf("settings differ: %v", changed)
	}
	for _, k := range allowlists.Keys() {
		if name := k.Path[strings.LastIndexByte(k.Path, '.')+1:]; name != "*" && !strings.Contains(out.String(), name+":") {
			t.Errorf("%s is not printed", k.Path)
		}
	}
}

// ruleTexts lists the rules of a file, sorted.
func ruleTexts(f *allowlists.File) []string {
	var texts []string
	for _, p := range f.Spec.Pools {
		for _, rules := range [][]allowlists.Rule{p.Allow, p.Deny, p.Quiet} {
			for _, r := range rules {
				texts = append(texts, fmt.Sprint(p.Name, p.Mode, p.Sources, r.Text, r.Ports, r.ResolvesTo, r.TLS, r.Expires))
			}
		}
	}
	slices.Sort(texts)
	return texts
}

// Nothing and next to nothing load, and admit nobody.
func TestEmptyFailsClosed(t *testing.T) {
	for _, text := range []string{
		"", "\n", "# nothing\n", "---\n", "{}\n", "~\n", "pools: {}\n", "pools: {build: {}}\n",
		"pools:\n  build:\n    sources: []\n    allow: []\n    presets: []\n",
		"pools: {build: {sources: [10.0.0.0/8]}}\n",
		"default_pool: build\npools: {build: {allow: []}}\n",
	} {
		f := mustLoad(t, text)
		_, pool := f.Policy.Subject(netip.MustParseAddr("10.0.0.1"), "", "")
		h, _ := allowlists.ParseHost("example.com")
		if pool.DecideName(h, today).Allowed() || pool.DecideConn(h, 443, today).Allowed() || pool.DecideLiteral(netip.MustParseAddr("192.0.2.1"), 443, today).Allowed() {
			t.Errorf("%q allows something", text)
		}
	}
}

// Variables are expanded in values, once, and never in keys.
func TestVariables(t *testing.T) {
	f := mustLoad(t, `pools:
  build:
    sources: [127.0.0.1]
    allow: ["git.${DOMAIN}:${PORT}", {host: "x.${DOMAIN}", ports: ["${PORT}"], reason: "costs $$5, not $${DOMAIN}"}]
limits: {connections: "${PORT}"}
`)
	rules := f.Spec.Pools[0].Allow
	if rules[0].Text != "git.corp.example:8443" || rules[1].Text != "x.corp.example:8443" || rules[1].Reason != "costs $5, not ${DOMAIN}" || f.Settings.Limits.Connections != 8443 {
		t.Errorf("rules %+v, connections %d", rules, f.Settings.Limits.Connections)
	}
	if f, report := load("pools: {\"${DOMAIN}\": {}}\n"); f != nil || !report.Failed() {
		t.Error("a key was expanded")
	}
}

// Slack is off without its variable, unless the file asks for it.
func TestSlackDefaultsToTheEnvironment(t *testing.T) {
	none := func(string) (string, bool) { return "", false }
	source := func(text string) []allowlists.Source { return []allowlists.Source{{Name: "f", Text: []byte(text)}} }
	if f, _ := allowlists.LoadWith(source("pools: {}\n"), none, today, nil, nil); f == nil || f.Settings.Alerts.Slack.WebhookURL != "" {
		t.Error("an unset variable is not off")
	}
	if f, _ := allowlists.LoadWith(source("pools: {}\n"), testEnv, today, nil, nil); f == nil || f.Settings.Alerts.Slack.WebhookURL == "" {
		t.Error("the variable is not taken")
	}
	if f, _ := allowlists.LoadWith(source("alerts: {slack: {webhook_url: \"\"}}\n"), testEnv, today, nil, nil); f == nil || f.Settings.Alerts.Slack.WebhookURL != "" {
		t.Error("an empty value does not switch Slack off")
	}
	if f, _ := allowlists.LoadWith(source("alerts: {slack: {webhook_url: \"${SLACK_WEBHOOK_URL}\"}}\n"), none, today, nil, nil); f != nil {
		t.Error("an unset variable that the file names is no error")
	}
	bad := func(string) (string, bool) { return "canary", true }
	f, report := allowlists.LoadWith(source("pools: {}\n"), bad, today, nil, nil)
	if f != nil || strings.Contains(report.Err().Error(), "canary") {
		t.Errorf("a webhook that is no URL: %v", report.Err())
	}
}

// Every secret has a file form, with its line end cut off.
func TestSecretsFromFiles(t *testing.T) {
	files := map[string]string{"/s/slack": "https://hooks.slack.example/a\n", "/s/route": "https://hooks.slack.example/b\r\n", "/s/url": "https://sink.example/", "/s/hmac": "secret\n", "/s/empty": "\n", "/s/two": "a\nb\n"}
	text := `alerts:
  slack: {webhook_url_file: /s/slack, routes: [{webhook_url_file: /s/route}]}
  webhook: {url_file: /s/url, hmac_secret_file: /s/hmac}
`
	sources := []allowlists.Source{{Name: "f", Text: []byte(text)}}
	f, report := allowlists.LoadWith(sources, testEnv, today, nil, files)
	if f == nil {
		t.Fatal(report.Err())
	}
	a := f.Settings.Alerts
	if a.Slack.WebhookURL != "https://hooks.slack.example/a" || a.Slack.Routes[0].WebhookURL != "https://hooks.slack.example/b" || a.Webhook.URL != "https://sink.example/" || a.Webhook.HMACSecret != "secret" {
		t.Errorf("%+v", a)
	}
	for _, name := range []string{"empty", "two"} {
		sources[0].Text = []byte("alerts: {webhook: {hmac_secret_file: /s/" + name + "}}\n")
		if f, _ := allowlists.LoadWith(sources, testEnv, today, nil, files); f != nil {
			t.Errorf("%s loads", name)
		}
	}
}

// The files of a directory are one configuration, in any order; a key that two
// of them give is an error.
func TestFilesMerge(t *testing.T) {
	a := allowlists.Source{Name: "a.yaml", Text: []byte("pools:\n  build:\n    sources: [127.0.0.1]\ndns: {max_ttl: 5m}\n")}
	b := allowlists.Source{Name: "b.yaml", Text: []byte("pools:\n  build:\n    allow: [a.test]\n  other: {sources: [127.0.0.2]}\ndns: {stale: 1h}\n")}
	for _, sources := range [][]allowlists.Source{{a, b}, {b, a}} {
		f, report := allowlists.LoadWith(sources, testEnv, today, nil, nil)
		if f == nil {
			t.Fatal(report.Err())
		}
		if p := f.Policy.Pool("build"); p == nil || len(p.Spec().Allow) != 1 || p.Spec().Allow[0].Where() != "b.yaml:3" || len(p.Spec().Sources) != 1 || f.Settings.DNS.Stale != time.Hour {
			t.Errorf("%+v", f.Spec)
		}
	}
	c := allowlists.Source{Name: "c.yaml", Text: []byte("dns: {max_ttl: 9m}\npools: {build: {allow: [b.test]}}\n")}
	for _, sources := range [][]allowlists.Source{{a, b, c}, {c, b, a}} {
		f, report := allowlists.LoadWith(sources, testEnv, today, nil, nil)
		if f != nil || report.Count() != 2 || !strings.Contains(report.Err().Error(), "given at") {
			t.Errorf("%v", report.Errors())
		}
	}
	sole := allowlists.Source{Name: "d.yaml", Text: []byte("pools: [\n")}
	if _, report := allowlists.LoadWith([]allowlists.Source{c, sole, {Name: "e.yaml", Text: []byte("nonsense: 1\n")}}, testEnv, today, nil, nil); report.Count() != 1 {
		t.Errorf("a syntax error does not stand alone: %v", report.Errors())
	}
}

// A warning about a pool that two files make points into the file that gives
// its cause.
func TestWarningsOfMergedFiles(t *testing.T) {
	a := allowlists.Source{Name: "a.yaml", Text: []byte("pools: {a: {allow: [a.test]}}\n")}
	b := allowlists.Source{Name: "b.yaml", Text: []byte("pools: {a: {mode: audit, sources: [10.0.0.0/8, 0.0.0.0/0], interfaces: [br0], resolves_to: [\"::/0\"]}, b: {interfaces: [br0], allow: [b.test]}}\n")}
	_, report := allowlists.LoadWith([]allowlists.Source{a, b}, testEnv, today, nil, nil)
	var at []string
	for _, problem := range report.Warnings() {
		at = append(at, fmt.Sprintf("%s:%d", problem.Pos, problem.Pos.Col))
	}
	if want := []string{"b.yaml:1:19", "b.yaml:1:36", "b.yaml:1:48", "b.yaml:1:93", "b.yaml:1:120"}; !slices.Equal(at, want) {
		t.Errorf("warnings at %v, want %v:\n%v", at, want, report.Warnings())
	}
}

// A reload that changes what only a restart can bring tells which keys.
func TestNeedsRestart(t *testing.T) {
	before := mustLoad(t, "pools: {a: {allow: [a.test]}}\n")
	after := mustLoad(t, "pools: {a: {allow: [b.test], listen: {proxy: 127.0.0.1:1}}}\nlimits: {dials: 7}\nalerts: {slack: {webhook_url: \"https://x.example/\"}}\ndefault_pool: a\n")
	want := []string{"alerts.slack.webhook_url", "limits.dials", "pools.a.listen.proxy"}
	if got := before.NeedsRestart(after); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// A pool that had nothing bound goes, and comes, without one.
	others := mustLoad(t, "pools: {b: {allow: [a.test], sources: [10.0.0.0/8]}}\n")
	if got := before.NeedsRestart(others); got != nil {
		t.Errorf("a pool without listeners needs a restart for %v", got)
	}
	gateway := mustLoad(t, "pools: {b: {allow: [a.test], sources: [10.0.0.0/8], interfaces: [br0]}}\n")
	if got := others.NeedsRestart(gateway); !slices.Equal(got, []string{"pools.b.interfaces"}) {
		t.Errorf("%v", got)
	}
}

// Warnings do not keep a file from loading.
func TestLintReadsAsWritten(t *testing.T) {
	cases, _ := filepath.Glob("testdata/lint/*.yaml")
	for _, path := range cases {
		f, report := loadFile(t, path)
		var out strings.Builder
		report.WriteErrors(&out)
		report.WriteWarnings(&out)
		if f == nil {
			t.Errorf("%s does not load", path)
		}
		if strings.Contains(out.String(), "canary") {
			t.Errorf("%s shows a secret", path)
		}
		golden(t, strings.TrimSuffix(path, ".yaml")+".out", out.String())
	}
}
