package importers_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/allowlists/importers"
)

// policyOf loads what came of an import, by the loader of the daemon.
func policyOf(t testing.TB, result *importers.Result) *allowlists.Policy {
	t.Helper()
	file, report := allowlists.Load([]allowlists.Source{{Name: "import.yaml", Text: []byte(result.YAML)}}, os.LookupEnv, time.Now())
	if report.Failed() {
		var out strings.Builder
		report.WriteErrors(&out)
		t.Fatalf("%s\n%s", out.String(), result.YAML)
	}
	return file.Policy
}

// allows asks a policy about "HOST:PORT".
func allows(t testing.TB, policy *allowlists.Policy, pool, target string) bool {
	t.Helper()
	p := policy.Pool(pool)
	if p == nil {
		t.Fatalf("there is no pool %q", pool)
	}
	to, err := allowlists.ParseTarget(target, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := p.DecideConn(to.Host, to.Port, time.Now())
	if to.Addr.IsValid() {
		d = p.DecideLiteral(to.Addr, to.Port, time.Now())
	}
	return d.Verdict == allowlists.Allow && d.Reason == allowlists.Allowed
}

// A fixture is an example of a format, and what is to come of it.
type fixture struct {
	format, file string
	options      importers.Options
	yes, no      string   // "POOL: TARGET TARGET", a line each
	notes        []string // "LINE EFFECT ABOUT", each of some rule; 0 is a pool
	left         int
}

var fixtures = []fixture{
	{
		format: "harden-runner", file: "harden-runner/workflow.yml",
		yes: `build: github.com:443 api.github.com:443 deb.example:80 x.pkg.example:443 x.y.pkg.example:443 frsnac1.blob.example:443
			lint: registry.example:8443`,
		no: `build: github.com:80 pkg.example:443 x.pkg.example:80 frsnac.blob.example:443 frsnac1.x.blob.example:443 deb.example:443 registry.example:8443 192.0.2.1:443
			lint: github.com:443 registry.example:443`,
		notes: []string{"0 narrower implied", "14 narrower wildcard", "14 left out address", "14 left out name", "14 left out ports", "14 left out expression"},
		left:  4,
	},
	{
		format: "harden-runner", file: "harden-runner/endpoints.txt",
		yes: "imported: a.example:443 b.example:22 x.c.example:443 y.x.c.example:443",
		no:  "imported: a.example:80 b.example:443 c.example:443 x.c.example:80 z.example:443",
	},
	{
		format: "smokescreen", file: "smokescreen/acl.yaml",
		yes: `enforced: api.example:443 api.example:8080 x.pay.example:22 y.x.pay.example:443 everyone.example:443 bad.example:443 8.8.8.8:443
			reported: only.example:443
			opened: some.example:443
			default: fallback.example:443`,
		no: `enforced: x.api.example:443 pay.example:443 worse.example:443 only.example:443 x.everyone.example:443 8.8.4.4:443
			reported: other.example:443 worse.example:443 bad.example:443
			opened: other.example:443
			default: api.example:443 bad.example:443`,
		notes: []string{"0 same ports", "0 narrower mode", "15 left out wildcard", "0 left out setting", "35 same order"},
		left:  2,
	},
	{
		format: "smokescreen", file: "smokescreen/acl.yaml", options: importers.Options{Ports: "443"},
		yes: "enforced: api.example:443", no: "enforced: api.example:8080",
		notes: []string{"0 narrower ports"}, left: 2,
	},
	{
		format: "cargowall", file: "cargowall/config.json",
		yes: `imported: a.example:443 x.a.example:443 y.x.a.example:443 b.example:80 b.example:443 free.example:9 x.free.example:9 x.deep.example:443 y.x.deep.example:443
			93.184.216.10:5432 exact.closed.example:443 x.exact.closed.example:443`,
		no: `imported: a.example:80 b.example:22 deep.example:443 x.one.example:443 bad.free.example:443 x.bad.free.example:443 93.184.216.10:80 8.8.8.8:53
			q.closed.example:443 never.listed.example:443 93.184.216.99:5432`,
		notes: []string{"0 left out setting", "0 same setting", "18 left out wildcard", "22 left out wildcard", "26 left out protocol", "12 narrower protocol", "30 narrower address"},
		left:  4,
	},
	{
		format: "cargowall", file: "cargowall/config.json", options: importers.Options{Wider: true},
		yes:   "imported: x.one.example:443 y.x.one.example:443",
		no:    "imported: one.example:443",
		notes: []string{"18 wider wildcard"}, left: 3,
	},
	{
		format: "cargowall", file: "cargowall/action.yml",
		yes: "imported: a.example:443 x.a.example:22 b.example:443 b.example:80 x.s.example:443",
		no:  "imported: b.example:22 s.example:443 c.example:443", notes: []string{"0 narrower implied", "0 left out setting"}, left: 1,
	},
	{
		// There the more special rule alone decides: b.a.example has 443 only.
		format: "cargowall", file: "cargowall/nested.json",
		yes:   "imported: b.a.example:443 a.example:22 x.b.a.example:443",
		no:    "imported: b.a.example:22 x.b.a.example:22 c.a.example:22",
		notes: []string{"2 left out ports"}, left: 1,
	},
	{
		format: "squid", file: "squid/squid.conf",
		yes: `imported: tree.example:443 x.tree.example:80 y.x.tree.example:443 exact.example:443 rx.example:443 x.rx.example:443 93.184.216.34:443`,
		no: `imported: x.exact.example:443 bad.tree.example:443 tree.example:8080 tree.example:22 foo1.re.example:443 93.184.216.35:443 late.example:443
			time.example:443 other.example:443`,
		notes: []string{"0 narrower ports", "0 left out setting", "25 left out condition", "26 left out everything", "9 same apex", "24 narrower address", "0 same order"},
		left:  4,
	},
	{
		// "deny !sites" leaves the sites, whatever allow line follows.
		format: "squid", file: "squid/whitelist.conf",
		yes: "imported: a.example:443 x.b.example:22 b.example:80", no: "imported: x.a.example:443 c.example:443",
	},
	{
		// A deny line that cannot be said keeps what is allowed after it out.
		format: "squid", file: "squid/hours.conf",
		yes: "imported: early.example:443", no: "imported: a.example:443",
		notes: []string{"6 left out condition", "2 left out condition"}, left: 2,
	},
	{
		// "deny !clients" says whose the rest is; an acl with the name of one of
		// Squid's own is what the file makes it.
		format: "squid", file: "squid/others.conf",
		yes: "imported: a.example:443", no: "imported: b.example:443 c.example:443", notes: []string{"0 same clients"},
	},
	{
		// Two sets of clients are two pools.
		format: "squid", file: "squid/clients.conf", options: importers.Options{Pool: "ci"},
		yes: `ci-build: a.example:443
			ci-deploy: b.example:443`,
		no: `ci-build: b.example:443 c.example:443
			ci-deploy: a.example:443 c.example:443`,
	},
	{
		format: "gh-aw", file: "gh-aw/workflow.md",
		yes: `imported: api.example:443 x.api.example:80 x.wild.example:443 y.x.wild.example:443 tls.example:443 old.example:80 registry.npmjs.org:443 pypi.org:443
			api-v1.part.example:443`,
		no: `imported: api.example:22 wild.example:443 tls.example:80 old.example:443 cdn.api.example:443 x.cdn.api.example:80 api-.part.example:443 api-1.x.part.example:443
			unlisted.example:443 download.pytorch.org:443`,
		notes: []string{"8 narrower ecosystem", "9 left out ecosystem", "10 left out ecosystem", "16 narrower wildcard", "17 left out address", "18 left out wildcard", "22 left out ecosystem", "0 left out request"},
		left:  6,
	},
	{
		format: "gh-aw", file: "gh-aw/domains.txt",
		yes: "imported: github.com:443 api.github.com:80 a.example:443 b.example:443 x.c.example:443", no: "imported: c.example:443 d.example:443 a.example:8080",
	},
	{
		format: "iron-proxy", file: "iron-proxy/proxy.yaml",
		yes: "imported: api.example:443 x.tree.example:443 y.x.tree.example:8443 tree.example:443 10.1.2.3:5432 v1-a.part.example:443 whole.example:443",
		no:  "imported: x.api.example:443 some.example:443 v1-a.b.part.example:443 v1-.part.example:443 10.9.0.1:443 put.example:443 q.example:443",
		notes: []string{"0 left out setting", "12 narrower wildcard", "13 left out wildcard", "14 left out wildcard",
			"20 left out condition", "22 left out condition", "11 same apex", "15 left out condition"},
		left: 7,
	},
	{
		format: "iron-proxy", file: "iron-proxy/proxy.yaml", options: importers.Options{Wider: true, Pool: "agents"},
		yes: "agents: some.example:443 put.example:443", no: "agents: q.example:443",
		notes: []string{"20 wider condition"}, left: 4,
	},
	{
		format: "iron-proxy", file: "iron-proxy/rules.yaml", yes: "imported: a.example:443", no: "imported: b.example:443",
	},
}

// TestFixtures asks the policy that came of each example, and looks for what is
// to be told.
func TestFixtures(t *testing.T) {
	for _, f := range fixtures {
		t.Run(f.file+fmt.Sprint(f.options), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", f.file))
			if err != nil {
				t.Fatal(err)
			}
			result, err := importers.Import(f.format, f.file, text, f.options)
			if err != nil {
				t.Fatal(err)
			}
			policy := policyOf(t, result)
			for want, rows := range map[bool]string{true: f.yes, false: f.no} {
				pool := ""
				for _, word := range strings.Fields(rows) {
					if name, found := strings.CutSuffix(word, ":"); found {
						pool = name
					} else if allows(t, policy, pool, word) != want {
						t.Errorf("pool %s: %s allowed: %v", pool, word, !want)
					}
				}
			}
			told := tell(result)
			for _, note := range f.notes {
				if !slices.Contains(told, note) {
					t.Errorf("%q is not told", note)
				}
			}
			if result.LeftOut != f.left {
				t.Errorf("%d left out, not %d", result.LeftOut, f.left)
			}
			if t.Failed() {
				t.Log(strings.Join(told, "\n") + "\n" + result.YAML)
			}
		})
	}
}

// tell lists the notes of a result as fixtures have them.
func tell(result *importers.Result) []string {
	var told []string
	for _, p := range result.Pools {
		for _, n := range p.Notes {
			told = append(told, fmt.Sprintf("0 %s %s", n.Effect, n.About))
		}
		for _, e := range slices.Concat(p.Presets, p.Allow, p.Deny) {
			for _, n := range e.Notes {
				told = append(told, fmt.Sprintf("%d %s %s", e.Line, n.Effect, n.About))
			}
		}
	}
	return told
}

// TestModes: a source that only watches becomes a pool that does.
func TestModes(t *testing.T) {
	for _, c := range []struct{ format, text, pool, mode string }{
		{"harden-runner", "jobs: {a: {steps: [{uses: step-security/harden-runner@v2, with: {egress-policy: audit}}]}}", "imported", "audit"},
		{"harden-runner", "with: {egress-policy: block, allowed-endpoints: a.example}", "imported", "enforce"},
		{"harden-runner", "allowed-endpoints: a.example", "imported", "enforce"},
		{"harden-runner", "- uses: actions/checkout@v4\n- uses: step-security/harden-runner@v2\n  with: {egress-policy: audit, allowed-endpoints: a.example}\n", "imported", "audit"},
		{"smokescreen", "{version: v1, services: [{name: x, action: report}]}", "x", "audit"},
		{"smokescreen", "{version: v1, services: [{name: x, action: odd}]}", "x", "enforce"},
		{"cargowall", "with: {mode: audit, allowed-hosts: a.example}", "imported", "audit"},
		{"cargowall", `{"defaultAction": "allow", "rules": []}`, "imported", "enforce"},
		{"iron-proxy", "{domains: [a.example], warn: true}", "imported", "audit"},
		{"gh-aw", "network: {}", "imported", "enforce"},
		{"gh-aw", "network: defaults", "imported", "enforce"},
		{"squid", "http_access deny all", "imported", "enforce"},
	} {
		result, err := importers.Import(c.format, "f", []byte(c.text), importers.Options{})
		if err != nil || len(result.Pools) != 1 || result.Pools[0].Name != c.pool || result.Pools[0].Mode != c.mode {
			t.Errorf("%s %s: %+v, %v", c.format, c.text, result, err)
		}
	}
}

// TestFaultySources: what is not of the format is an error, and none is empty.
func TestFaultySources(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 5000)
	for _, c := range []struct{ format, text, want string }{
		{"none", "", `no format "none"`},
		{"harden-runner", "jobs: {}\n", "no step that uses step-security/harden-runner"},
		{"harden-runner", "a: &x [1]\nallowed-endpoints: *x\n", "anchor"},
		{"smokescreen", "version: v2\nservices: []\n", "no egress ACL of Smokescreen"},
		{"smokescreen", "version: v1\nservices: [x]\n", "a service is text"},
		{"smokescreen", "version: v1\n\tservices: []\n", "a tab stands"},
		{"cargowall", `{"rules": [}`, "this is no JSON"},
		{"cargowall", `{"rules": []} {}`, "something follows"},
		{"cargowall", `{"rules": [], "rules": []}`, "there twice"},
		{"cargowall", deep, "nests too deep"},
		{"cargowall", `{"rules": [1]}`, "a rule is a number"},
		{"cargowall", "jobs: {}\n", "there are no rules"},
		{"squid", "acl a dstdomain x.example\n", "no http_access line"},
		{"squid", "if ${process_number} = 1\nhttp_access allow all\nendif\n", "for some processes only"},
		{"gh-aw", "---\non: push\n---\n", "no key network"},
		{"gh-aw", "network: [a]\n", "network is a list"},
		{"iron-proxy", "proxy: {}\n", "there is no allowlist"},
		{"iron-proxy", "transforms: [{name: allowlist, config: {}}, {name: allowlist, config: {}}]\n", "2 allowlists"},
		{"iron-proxy", "transforms: [{name: allowlist}]\n", "no config"},
		{"harden-runner", strings.Repeat("a.example ", 100_001), "too large"},
		{"squid", strings.Repeat(" ", importers.MaxBytes+1), "too large"},
		{"iron-proxy", "domains: [" + strings.Repeat("a,", 2<<20) + "]\n", "too large"},
		{"cargowall", "{" + strings.Repeat(" ", 1<<20) + "}", "too large"},
		{"smokescreen", "version: v1\nservices:\n" + strings.Repeat("- {name: x, action: enforce}\n", 1001), "too large"},
		{"smokescreen", "version: v1\nservices:\n" + strings.Repeat("- {name: x, action: enforce}\n", 500) + "global_allow_list: [" + strings.Repeat("a.example, ", 500) + "]\n", "too large"},
		{"squid", "acl a dstdomain" + strings.Repeat(" a.example", 100_000) + "\n" + strings.Repeat("http_access allow a\n", 100_000), "too large"},
	} {
		result, err := importers.Import(c.format, "f", []byte(c.text), importers.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %.60q: %+v, %v; want %q", c.format, c.text, result, err, c.want)
		}
	}
	for _, options := range []importers.Options{{Pool: "a b"}, {Pool: "-x"}, {Ports: "0"}, {Ports: "80,"}, {Ports: "99999"}} {
		if _, err := importers.Import("harden-runner", "f", []byte("a.example"), options); err == nil {
			t.Errorf("%+v is taken", options)
		}
	}
}
