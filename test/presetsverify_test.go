package test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPresetsVerify looks at the hosts of a preset in a world of our own: one is
// well, one led elsewhere before, one is not there, one has another's
// certificate, one redirects away.
func TestPresetsVerify(t *testing.T) {
	needRoot(t) // the hosts are on port 443
	ca := newCA(t)
	d := prepare(t, config{}) // for its addresses
	serve := func(last int, names ...string) *origin {
		cert := ca.issue(names...)
		return httpOrigin(t, d.neighbour(last)+":443", &cert)
	}
	well := serve(2, "index.crates.io", "static.crates.io")
	forged := serve(3, "other.example")
	away := serve(4, "sh.rustup.rs")
	away.mu.Lock()
	away.files = http.RedirectHandler("https://elsewhere.example/", http.StatusFound)
	away.mu.Unlock()
	z := newZone(t,
		"index.crates.io. 60 IN A "+well.ip,
		"static.crates.io. 60 IN CNAME crates.cdn.example.", "crates.cdn.example. 60 IN A "+well.ip,
		"static.rust-lang.org. 60 IN A "+forged.ip,
		"sh.rustup.rs. 60 IN A "+away.ip, "elsewhere.example. 60 IN A "+well.ip)
	verify := func(args ...string) ran {
		return commandIn(t, d.dir, []string{"SSL_CERT_FILE=" + ca.file}, binary, append([]string{"presets", "verify", "crates", "--resolver", z.addr}, args...)...)
	}
	lists := filepath.Join(d.dir, "lists")
	if err := os.Mkdir(lists, 0o755); err != nil {
		t.Fatal(err)
	}
	const text = `# a comment that stays
hosts:
  - host: "index.crates.io" # and this
    source: x
    verified: 2020-01-01
  - host: "static.rust-lang.org"
    verified: 2020-01-01
  - host: "nonsuch.example"
    verified: 2020-01-01
`
	if err := os.WriteFile(filepath.Join(lists, "crates.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r := verify("--format", "json", "--write", lists)
	var hosts []struct{ Host, State, Detail, CNAME string }
	if err := json.Unmarshal([]byte(r.stdout), &hosts); err != nil || r.code != 1 {
		t.Fatalf("%v %+v", err, r)
	}
	want := map[string]string{
		"index.crates.io": "ok", "static.crates.io": "ok", "static.rust-lang.org": "certificate", "sh.rustup.rs": "redirected",
	}
	for _, h := range hosts {
		if h.State != want[h.Host] {
			t.Errorf("%s is %s (%s), want %s", h.Host, h.State, h.Detail, want[h.Host])
		}
		if h.Host == "static.crates.io" && h.CNAME != "cdn.example" {
			t.Errorf("%s leads to %q", h.Host, h.CNAME)
		}
		delete(want, h.Host)
	}
	if len(want) != 0 {
		t.Errorf("not looked at: %v", want)
	}
	dated := readText(t, filepath.Join(lists, "crates.yaml"))
	if strings.Count(dated, "2020-01-01") != 2 || !strings.HasPrefix(dated, "# a comment that stays\nhosts:\n  - host: \"index.crates.io\" # and this\n    source: x\n    verified: 2") {
		t.Errorf("the file is now\n%s", dated)
	}

	// The name leads elsewhere than at the time of another run.
	earlier := strings.ReplaceAll(r.stdout, "cdn.example", "old.example")
	if err := os.WriteFile(d.path("earlier.json"), []byte(earlier), 0o644); err != nil {
		t.Fatal(err)
	}
	r = verify("--against", "earlier.json")
	for _, part := range []string{
		"static.crates.io      moved        leads to cdn.example, and led to old.example",
		"static.rust-lang.org  certificate", "sh.rustup.rs          redirected   / leads to elsewhere.example, which the preset does not have",
		"4 hosts looked at, 3 not well",
	} {
		if !strings.Contains(r.stdout, part) {
			t.Errorf("no %q in\n%s%s", part, r.stdout, r.stderr)
		}
	}

	gone := newZone(t)
	before := readText(t, filepath.Join(lists, "crates.yaml"))
	r = commandIn(t, d.dir, nil, binary, "presets", "verify", "--resolver", gone.addr, "--write", lists)
	if r.code != 1 || !strings.Contains(r.stderr, "this machine is offline") || r.stdout != "" {
		t.Errorf("offline: %+v", r)
	}
	if after := readText(t, filepath.Join(lists, "crates.yaml")); after != before {
		t.Errorf("offline, the file became\n%s", after)
	}
}

// TestPresetsVerifyDead: a host that is not there is dead, whichever others are.
func TestPresetsVerifyDead(t *testing.T) {
	d := prepare(t, config{})
	z := newZone(t, "pub.dev. 60 IN A "+d.neighbour(9))
	r := command(t, d.dir, "presets", "verify", "dart", "alpine", "debian", "ecr", "--resolver", z.addr, "--timeout", "5s")
	if r.code != 1 || !strings.Contains(r.stdout, "dart    pub.dev                 dead  port 443: ") || !strings.Contains(r.stdout, "there is no such name") ||
		!strings.Contains(r.stdout, "2 hosts looked at, 2 not well; 2 patterns and presets cannot be looked at") {
		t.Errorf("%+v", r)
	}
}
