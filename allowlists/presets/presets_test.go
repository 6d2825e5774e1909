package presets_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/publicsuffix"
	"gopkg.in/yaml.v3"

	"sallyport/allowlists/presets"
)

var update = flag.Bool("update", false, "write docs/presets.md anew")

type list struct {
	Name, Description string
	Params            []string
	Hosts             []entry
	Quiet             []string
}

type entry struct {
	Host, Source, Verified, TLS, Reason string
	Writable, Anyone                    bool
	DNSTypes                            []string `yaml:"dns_types"`
}

func read(t *testing.T, name string) list {
	t.Helper()
	text, ok := presets.Get(name)
	if !ok {
		t.Fatalf("no preset %s", name)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var l list
	if err := decoder.Decode(&l); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l
}

func TestEveryLineHasASourceAndADate(t *testing.T) {
	for _, name := range presets.Names() {
		l := read(t, name)
		if l.Name != name || !strings.HasSuffix(l.Description, ".") || len(l.Hosts)+len(l.Quiet) == 0 {
			t.Errorf("%s: name %q, description %q", name, l.Name, l.Description)
		}
		seen := make(map[string]bool)
		for _, e := range l.Hosts {
			if seen[e.Host] {
				t.Errorf("%s: %s is there twice", name, e.Host)
			}
			seen[e.Host] = true
			if e.Source == "" {
				t.Errorf("%s: %s has no source", name, e.Host)
			}
			if _, err := time.Parse(time.DateOnly, e.Verified); err != nil && e.Verified != "unverified" {
				t.Errorf("%s: %s is verified %q", name, e.Host, e.Verified)
			}
			host, _, _ := strings.Cut(e.Host, ":")
			if base, wild := strings.CutPrefix(host, "*."); wild && !e.Anyone {
				if suffix, _ := publicsuffix.PublicSuffix("x." + base); suffix == base {
					t.Errorf("%s: %s stands over a public suffix", name, e.Host)
				}
			}
		}
	}
}

// TestFamiliesAreCovered names a preset for each ecosystem that people expect.
func TestFamiliesAreCovered(t *testing.T) {
	for _, name := range strings.Fields(`github-actions github-packages github-ssh github-enterprise gitlab buildkite npm native-addons
		setup-tools pypi conda go maven gradle android crates rubygems nuget composer hex dart swift docker-hub ghcr quay redhat ecr ecr-public
		gcr artifact-registry mcr acr kubernetes debian ubuntu alpine rpm vendor-apt homebrew hashicorp sigstore codecov aws aws-s3 gcp azure
		azure-vault pki quiet-os`) {
		if _, ok := presets.Get(name); !ok {
			t.Errorf("no preset %s", name)
		}
	}
}

func TestDocumentIsCurrent(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Presets\n\nBuilt-in allowlists, each line with its source. `sallyport presets NAME` prints one. `(W)`: anyone can write data there with an account of\n" +
		"their own, so allowing it permits exfiltration; give it an `upload_limit`, or leave it out. `(?)`: general knowledge, not yet held against a\n" +
		"source. Parameters are given where the preset is used: `{preset: ecr, region: eu-west-1, account: \"123456789012\"}`.\n\n" +
		"This page is written by `go test ./allowlists/presets -update`.\n\n| preset | what for | hosts |\n|---|---|---|\n")
	for _, name := range presets.Names() {
		l := read(t, name)
		var hosts []string
		for _, e := range l.Hosts {
			text := "`" + e.Host + "`"
			if e.Writable {
				text += " (W)"
			}
			if e.Verified == "unverified" {
				text += " (?)"
			}
			hosts = append(hosts, text)
		}
		for _, q := range l.Quiet {
			hosts = append(hosts, "quiet: `"+q+"`")
		}
		what := l.Description
		if len(l.Params) > 0 {
			what += " Parameters: `" + strings.Join(l.Params, "`, `") + "`."
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, what, strings.Join(hosts, ", "))
	}
	const path = "../../docs/presets.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || string(have) != b.String() {
		t.Errorf("docs/presets.md is not current (%v); run go test ./allowlists/presets -update", err)
	}
}
