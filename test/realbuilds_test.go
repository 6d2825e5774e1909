package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRealBuildsAreSilent lets a job fetch the modules of this very project, and
// a package index with twenty packages, under the list that it needs: no alert
// above info comes of it.
func TestRealBuildsAreSilent(t *testing.T) {
	t.Parallel()
	needProgram(t, "go", "apt-get", "dpkg-deb")
	j, told := newJobSpace(t), newSlack(t)
	goproxy, goHost := moduleSource(t)
	rules, suites := packageSources(t)
	d := j.startAt("  build:\n    sources: ["+j.client+"/32]\n    allow:\n"+goHost.rule("443")+rules, "system", told)

	if modules := j.fetchModules(goproxy); modules < 50 {
		t.Errorf("only %d modules came", modules)
	}
	if packages := j.fetchPackages(suites, smallPackages...); packages < 20 {
		t.Errorf("only %d packages came", packages)
	}
	d.wait("the tunnel's close with its bytes", func(e event) bool {
		return e.text("phase") == "close" && e.text("host") == goHost.name && e.number("received") > 1_000_000
	})
	d.wait("packages by HTTP", func(e event) bool {
		return e.text("via") == "http" && e.text("phase") == "close" && e.number("received") > 100_000
	})
	checkSilence(t, d, told, func(host string) {
		if out, err := j.run(nil, "curl", "-sS", "https://"+host+"/"); err == nil {
			t.Errorf("the last request was not refused: %s", out)
		}
	})
}

// moduleSource is where go fetches modules, and its host.
func moduleSource(t *testing.T) (goproxy string, host realHost) {
	t.Helper()
	out, err := exec.Command("go", "env", "GOPROXY").Output()
	if err != nil {
		t.Fatal(err)
	}
	goproxy = strings.FieldsFunc(strings.TrimSpace(string(out)), func(r rune) bool { return r == ',' || r == '|' })[0]
	return goproxy, newRealHost(t, goproxy)
}

// moduleEnv has go fetch modules from goproxy into cache.
func moduleEnv(goproxy, cache string) []string {
	env := []string{"GOPROXY=" + goproxy, "GOMODCACHE=" + cache, "GOFLAGS=-modcacherw", "GONOSUMDB=*", "GOTOOLCHAIN=local"}
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		env = append(env, "SSL_CERT_FILE="+file)
	}
	return env
}

// packageHosts are the hosts of apt's sources over HTTP.
func packageHosts(t *testing.T) (hosts []realHost) {
	t.Helper()
	for _, site := range packageSites(t) {
		host := newRealHost(t, site)
		if !slices.ContainsFunc(hosts, func(h realHost) bool { return h.name == host.name }) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// packageSites are the URLs of apt's sources over HTTP.
func packageSites(t *testing.T) (sites []string) {
	t.Helper()
	uris, err := exec.Command("apt-get", "indextargets", "--format", "$(SITE)").Output()
	need(t, err == nil && len(uris) > 0, "apt sources")
	for _, site := range strings.Fields(string(uris)) {
		if strings.HasPrefix(site, "http://") && !slices.Contains(sites, site) {
			sites = append(sites, site)
		}
	}
	need(t, len(sites) > 0, "an apt source over http")
	return sites
}

// packageSources are the rules for the hosts of apt's sources, and those
// sources as lines.
func packageSources(t *testing.T) (rules, lines string) {
	t.Helper()
	for _, host := range packageHosts(t) {
		rules += host.rule("80")
	}
	for _, site := range packageSites(t) {
		lines += aptSuite(t, site)
	}
	return rules, lines
}

// fetchModules downloads every module of this project into a fresh cache, and
// says how many came.
func (j *jobSpace) fetchModules(goproxy string) int {
	j.t.Helper()
	dir, cache := j.t.TempDir(), j.t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join("..", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil {
			j.t.Fatal(err)
		}
	}
	if out, err := j.run(moduleEnv(goproxy, cache), "sh", "-c", "cd "+dir+" && exec go mod download"); err != nil {
		j.t.Fatalf("%v\n%s", err, out)
	}
	zips := 0
	_ = filepath.WalkDir(filepath.Join(cache, "cache/download"), func(path string, _ os.DirEntry, _ error) error {
		if strings.HasSuffix(path, ".zip") {
			zips++
		}
		return nil
	})
	return zips
}

// smallPackages are packages that are small and need little.
var smallPackages = strings.Fields(`hello tree sl cowsay figlet toilet bc dc time moreutils pv rename jq ncal lsb-release
	bsdextrautils dos2unix unzip zip whois xxd`)

// fetchPackages updates the index and downloads packages, as install does, and
// unpacks each; it says how many came.
func (j *jobSpace) fetchPackages(suites string, names ...string) int {
	j.t.Helper()
	dir := j.t.TempDir()
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			j.t.Fatal(err)
		}
	}
	list := filepath.Join(dir, "sources.list")
	if err := os.WriteFile(list, []byte(suites), 0o644); err != nil {
		j.t.Fatal(err)
	}
	apt := []string{
		"apt-get", "-o", "APT::Sandbox::User=root", "-o", "Dir::State=" + dir + "/state", "-o", "Dir::State::status=/var/lib/dpkg/status",
		"-o", "Dir::Cache=" + dir + "/cache", "-o", "Dir::Etc::SourceList=" + list, "-o", "Dir::Etc::SourceParts=/nonexistent",
		"-o", "Debug::NoLocking=true", // everything that is written is ours, and another job does the same
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--download-only", "--reinstall", "--no-install-recommends"}, names...)} {
		if out, err := j.run(nil, append(apt[:len(apt):len(apt)], args...)...); err != nil {
			j.t.Fatalf("%v\n%s", err, out)
		}
	}
	debs, _ := filepath.Glob(filepath.Join(dir, "cache/archives/*.deb"))
	for _, deb := range debs {
		if out, err := exec.Command("dpkg-deb", "-x", deb, filepath.Join(dir, "root")).CombinedOutput(); err != nil {
			j.t.Errorf("%s: %v\n%s", deb, err, out)
		}
	}
	return len(debs)
}
