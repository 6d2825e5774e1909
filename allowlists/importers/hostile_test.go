package importers_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/allowlists/importers"
)

// hostile are texts that try to get out of a comment, a quote or a list.
var hostile = []string{
	"a.example\n      - evil.invalid", "a.example\r- evil.invalid", "\"]\n- evil.invalid", "${HOME}.example", "$$.example", "a.example #x",
	"*.com", "*.co.uk", "*.github.io", "*", "*.*", "**", "xn--.example", "exa\x00mple.com", "\x1b[31m.example", "\u2028- evil.invalid", "\u0085- evil.invalid",
	"'\"", "a.example:443 - evil.invalid", "!!str x.example", "&a x.example", "- - -", "{}", "[]", "0x7f.1", "127.0.0.1", "::1", "true", "null", "1e3.e5", "~",
	strings.Repeat("a", 5000), strings.Repeat("a.", 200) + "example", "*x*.example", "a*.com", "http://x.example/path", "https://*.example", "{{ .Env }}", "%YAML 1.2",
}

// shapes put a text into a source of each format.
var shapes = map[string][]func(text string) string{
	"harden-runner": {func(s string) string { return "allowed-endpoints: " + quote(s) }, func(s string) string { return s },
		func(s string) string {
			return "jobs: {" + quote(s) + ": {steps: [{uses: step-security/harden-runner@v2, with: {allowed-endpoints: a.example}}]}, b: {steps: [{uses: step-security/harden-runner@v2}]}}"
		}},
	"smokescreen": {func(s string) string {
		return "version: v1\nservices: [{name: " + quote(s) + ", action: " + quote(s) + ", allowed_domains: [" + quote(s) + "]}]\nglobal_deny_list: [" + quote(s) + "]\n"
	}},
	"cargowall": {func(s string) string {
		return `{"defaultAction": ` + quote(s) + `, "rules": [{"type": "hostname", "value": ` + quote(s) + `, "action": "allow"}, {"type": "hostname", "value": ` + quote(s) + `, "action": "deny"}, {"type": "cidr", "value": ` + quote(s) + `, "action": "allow"}]}`
	}, func(s string) string { return s }},
	"squid": {func(s string) string { return "acl a dstdomain " + s + "\nhttp_access allow a\nhttp_access deny all\n" },
		func(s string) string { return "acl " + s + " src 10.0.0.0/8\nhttp_access allow " + s + "\n" }},
	"gh-aw": {func(s string) string { return "network: {allowed: [" + quote(s) + "], blocked: [" + quote(s) + "]}" }, func(s string) string { return s }},
	"iron-proxy": {func(s string) string {
		return "domains: [" + quote(s) + "]\ncidrs: [" + quote(s) + "]\nrules: [{host: " + quote(s) + ", paths: [" + quote(s) + "]}]\n"
	}},
}

func quote(text string) string {
	out, _ := json.Marshal(text)
	return string(out)
}

// TestHostileText: whatever a source says, what comes of it loads, names no
// host that is not there, and is printable ASCII.
func TestHostileText(t *testing.T) {
	for format, list := range shapes {
		for _, shape := range list {
			for _, text := range hostile {
				for _, wider := range []bool{false, true} {
					holdSafe(t, format, shape(text), importers.Options{Wider: wider})
				}
			}
		}
	}
}

// holdSafe imports a text, if it is of the format, and checks the result.
func holdSafe(t *testing.T, format, text string, options importers.Options) {
	t.Helper()
	result, err := importers.Import(format, "f\n- evil.invalid", []byte(text), options)
	if err != nil {
		if strings.Contains(err.Error(), "fault of the importer") {
			t.Fatalf("%s %q: %v", format, text, err)
		}
		return
	}
	for i := 0; i < len(result.YAML); i++ {
		if c := result.YAML[i]; c != '\n' && (c < ' ' || c > '~') {
			t.Fatalf("%s %q: byte %#x in\n%s", format, text, c, result.YAML)
		}
	}
	policy := policyOf(t, result)
	if len(policy.Pools()) != len(result.Pools) {
		t.Fatalf("%s %q: %d pools of %d\n%s", format, text, len(policy.Pools()), len(result.Pools), result.YAML)
	}
	for _, p := range result.Pools {
		if !hasName(text, "evil.invalid") && allows(t, policy, p.Name, "evil.invalid:443") {
			t.Fatalf("%s %q: pool %s\n%s", format, text, p.Name, result.YAML)
		}
	}
}

// hasName reports whether a text names a host as a word of its own, or as an
// item that its format would have.
func hasName(text, host string) bool {
	return slices.Contains(strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" \t\r\n,\"[]{}:", c) }), host)
}

// fuzzFormat holds that what is imported is safe, whatever the text.
func fuzzFormat(f *testing.F, format string) {
	paths, _ := filepath.Glob(filepath.Join("testdata", format, "*"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, false)
		f.Add(text, true)
	}
	for _, shape := range shapes[format] {
		f.Add([]byte(shape("*.a.example")), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, wider bool) {
		result, err := importers.Import(format, "f", text, importers.Options{Wider: wider})
		if err != nil {
			if strings.Contains(err.Error(), "fault of the importer") {
				t.Fatal(err)
			}
			return
		}
		if policy := policyOf(t, result); len(policy.Pools()) != len(result.Pools) || !printable(result.YAML) {
			t.Fatalf("%q", result.YAML)
		}
	})
}

func printable(text string) bool {
	return !bytes.ContainsFunc([]byte(text), func(c rune) bool { return c != '\n' && (c < ' ' || c > '~') })
}

func FuzzImportHardenRunner(f *testing.F) { fuzzFormat(f, "harden-runner") }
func FuzzImportSmokescreen(f *testing.F)  { fuzzFormat(f, "smokescreen") }
func FuzzImportCargowall(f *testing.F)    { fuzzFormat(f, "cargowall") }
func FuzzImportSquid(f *testing.F)        { fuzzFormat(f, "squid") }
func FuzzImportGhAw(f *testing.F)         { fuzzFormat(f, "gh-aw") }
func FuzzImportIronProxy(f *testing.F)    { fuzzFormat(f, "iron-proxy") }
