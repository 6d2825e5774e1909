package importers

import (
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"sallyport/allowlists/presets"
)

// theirs are hosts of gh-aw's ecosystems, as its documents list them: those that
// presets of ours are within. A name without a * is every name below it, too.
var theirs = map[string]string{
	"containers":    "quay.io mcr.microsoft.com",
	"dart":          "pub.dev",
	"defaults":      "crl3.digicert.com crl4.digicert.com ocsp.digicert.com ocsp.sectigo.com crl.sectigo.com ocsp.globalsign.com crl.globalsign.com ocsp.identrust.com crl.identrust.com",
	"dotnet":        "nuget.org pkgs.dev.azure.com builds.dotnet.microsoft.com dotnet.microsoft.com oneocsp.microsoft.com",
	"elixir":        "hex.pm",
	"go":            "go.dev golang.org storage.googleapis.com",
	"java":          "repo.maven.apache.org maven.apache.org repo1.maven.org maven-central.storage-download.googleapis.com",
	"linux-distros": "dl-cdn.alpinelinux.org",
	"node":          "npmjs.org nodejs.org yarnpkg.com get.pnpm.io bun.sh npm.pkg.github.com",
	"php":           "packagist.org getcomposer.org",
	"python":        "pypi.org files.pythonhosted.org bootstrap.pypa.io",
	"python-native": "pypi.org files.pythonhosted.org bootstrap.pypa.io",
	"ruby":          "rubygems.org cache.ruby-lang.org",
	"rust":          "crates.io static.rust-lang.org sh.rustup.rs",
	"swift":         "download.swift.org cdn.cocoapods.org",
}

// TestEcosystems: a preset that stands for an ecosystem has no host, and no
// port, that the ecosystem has not.
func TestEcosystems(t *testing.T) {
	for name, e := range ecosystems {
		for _, preset := range e.like {
			if _, ok := presets.Get(preset); !ok {
				t.Errorf("%s: no preset %s", name, preset)
			}
		}
		for _, preset := range e.within {
			text, ok := presets.Get(preset)
			if !ok {
				t.Errorf("%s: no preset %s", name, preset)
			}
			var list struct{ Hosts []struct{ Host string } }
			if err := yaml.Unmarshal(text, &list); err != nil || len(list.Hosts) == 0 {
				t.Fatal(preset, err)
			}
			for _, h := range list.Hosts {
				host, ports, _ := strings.Cut(h.Host, ":")
				covered := slices.ContainsFunc(strings.Fields(theirs[name]), func(domain string) bool {
					return host == domain || strings.HasSuffix(host, "."+domain)
				})
				if !covered || !slices.Contains([]string{"", "80", "443", "80,443"}, ports) {
					t.Errorf("%s: preset %s has %s", name, preset, h.Host)
				}
			}
		}
	}
}
