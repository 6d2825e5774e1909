package test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/allowlists"
)

// A verified is one row of presets verify as JSON.
type verified struct{ Host, Download, State, Detail, CNAME string }

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
	var hosts []verified
	if err := json.Unmarshal([]byte(r.stdout), &hosts); err != nil || r.code != 1 {
		t.Fatalf("%v %+v", err, r)
	}
	want := map[string]string{
		"index.crates.io": "ok", "static.crates.io": "ok", "static.rust-lang.org": "certificate", "sh.rustup.rs": "redirected",
	}
	for _, h := range hosts {
		if h.Download != "" {
			if h.State != "certificate" {
				t.Errorf("%s is %s (%s)", h.Download, h.State, h.Detail)
			}
			continue
		}
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
		"static.crates.io moved leads to cdn.example, and led to old.example",
		"static.rust-lang.org certificate", `sh.rustup.rs redirected / leads to elsewhere.example, which the preset does not have; it takes the line - host: "elsewhere.example"`,
		"5 hosts and downloads looked at, 4 not well",
	} {
		if !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), part) {
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
		!strings.Contains(r.stdout, "2 hosts and downloads looked at, 2 not well; 2 patterns and presets cannot be looked at") {
		t.Errorf("%+v", r)
	}
}

// TestPresetsVerifyDownloads: a download is well if its first byte comes by
// hosts of its preset alone. The hosts and the download are those of a preset
// whose download is redirected twice.
func TestPresetsVerifyDownloads(t *testing.T) {
	needRoot(t) // the hosts are on ports 443 and 80
	ca, d := newCA(t), prepare(t, config{})
	lists := allowlists.PresetLists()
	list := lists[slices.IndexFunc(lists, func(l allowlists.PresetList) bool { return l.Name == "gradle" })]
	start, forged, gone := list.Downloads[0], list.Allow[2].Host.String(), list.Allow[3].Host.String()
	names, records := []string{start.Host}, []string{}
	for _, r := range list.Allow {
		switch name := r.Host.String(); name {
		case start.Host, gone:
		case forged:
			records = append(records, name+". 60 IN A "+d.neighbour(3))
		default:
			names = append(names, name)
		}
	}
	for _, name := range names {
		records = append(records, name+". 60 IN A "+d.neighbour(2))
	}
	cert, other := ca.issue(names...), ca.issue("elsewhere.example", d.neighbour(3))
	well, stranger := httpOrigin(t, d.neighbour(2)+":443", &cert), httpOrigin(t, d.neighbour(3)+":443", &other)
	plain, other80 := httpOrigin(t, d.neighbour(2)+":80", nil), httpOrigin(t, d.neighbour(2)+":8443", &cert)
	z := newZone(t, append(records, "elsewhere.example. 60 IN A "+stranger.ip)...)

	const store = "https://release-assets.githubusercontent.com/file"
	var sent atomic.Int64
	to := func(place string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", place)
			w.WriteHeader(http.StatusFound)
		}
	}
	body := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	hang := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(text))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}
	const huge = 256 << 20
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for chunk := make([]byte, 64<<10); sent.Load() < huge; {
			n, err := w.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name   string
		first  http.HandlerFunc // at the download's own host
		then   http.HandlerFunc // at github.com, nil for none
		state  string
		detail string
	}{
		{"two redirects", to("https://github.com/x"), to(store + "?sig=secret"), "ok", ""},
		{"no redirect", body("x"), nil, "ok", ""},
		{"a range", func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.Header.Get("Range") != "bytes=0-0" || r.Header.Get("Referer") != "" {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("x"))
		}, nil, "ok", ""},
		{"a relative redirect", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == start.Path {
				to("/moved")(w, r)
				return
			}
			body("x")(w, r)
		}, nil, "ok", ""},
		{"an endless body", endless, nil, "ok", ""},
		{"a slow body", hang("x"), nil, "ok", ""},
		{"a body that does not come", hang(""), nil, "dead", "it did not answer in time"},
		{"a header that does not come", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, nil, "dead", "it did not answer in time"},
		{"no body", body(""), nil, "dead", "sends nothing"},
		{"a huge header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, nil, "dead", "headers exceeded 65536 bytes"},
		{"gone", to("https://github.com/x"), http.NotFound, "dead", "github.com: answers 404 Not Found"},
		{"elsewhere", to("https://github.com/x"), to("https://elsewhere.example/y?sig=secret"), "redirected",
			`it leads to elsewhere.example, which the preset does not have; it takes the line - host: "elsewhere.example"`},
		{"another port", to("https://github.com:8443/x"), nil, "redirected", `github.com:8443"`},
		{"plain HTTP", to("http://github.com/x"), nil, "redirected", "it leads to plain HTTP at github.com"},
		{"an address", to("https://" + d.neighbour(3) + "/"), nil, "redirected", "it leads to the address " + d.neighbour(3) + " instead of a name"},
		{"an address in disguise", to("https://0x7f.1/"), nil, "redirected", "0x7f.1, which is no host name"},
		{"another scheme", to("ftp://github.com/x"), nil, "redirected", "it leads to ftp, which is not HTTP"},
		{"nowhere", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusFound) }, nil, "dead", "a redirect to nowhere (302)"},
		{"a circle", to("https://github.com/x"), to(start.String()), "dead", "more than 10 redirects"},
		{"a name that is gone", to("https://" + gone + "/x"), nil, "dead", gone + ": there is no such name"},
		{"another's certificate", to("https://" + forged + "/x"), nil, "certificate", forged + ": tls: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			sent.Store(0)
			well.mu.Lock()
			well.files = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodHead:
				case r.Host == start.Host:
					c.first(w, r)
				case r.Host == "github.com" && c.then != nil:
					c.then(w, r)
				default:
					body("x")(w, r)
				}
			})
			well.mu.Unlock()
			before, _ := well.counts()
			r := commandIn(t, d.dir, []string{"SSL_CERT_FILE=" + ca.file}, binary,
				"presets", "verify", "gradle", "--resolver", z.addr, "--format", "json", "--timeout", "3s")
			var rows []verified
			if err := json.Unmarshal([]byte(r.stdout), &rows); err != nil {
				t.Fatalf("%v %+v", err, r)
			}
			row := rows[len(rows)-1]
			if row.Download != start.String() || row.State != c.state || !strings.Contains(row.Detail, c.detail) || c.detail == "" && row.Detail != "" {
				t.Errorf("%+v\nwant %s, %s", row, c.state, c.detail)
			}
			if strings.Contains(r.stdout+r.stderr, "secret") {
				t.Errorf("it tells the signature of a URL: %s", r.stdout)
			}
			if after, _ := well.counts(); after-before > 2*len(list.Allow)+11 {
				t.Errorf("%d connections", after-before)
			}
			if n := sent.Load(); n > huge/4 {
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
	for _, o := range []*origin{stranger, plain, other80} {
		if _, requests := o.counts(); len(requests) > 0 {
			t.Errorf("%s was asked: %v", o.addr, requests)
		}
	}
	dir := t.TempDir()
	text := "hosts: []\ndownloads:\n  - url: \"" + start.String() + "\" # why\n    source: x\n    verified: 2020-01-01\n  - url: https://github.com/other\n    verified: 2020-01-01\n"
	if err := os.WriteFile(filepath.Join(dir, "gradle.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	well.mu.Lock()
	well.files = body("x")
	well.mu.Unlock()
	commandIn(t, d.dir, []string{"SSL_CERT_FILE=" + ca.file}, binary, "presets", "verify", "gradle", "--resolver", z.addr, "--write", dir)
	if dated := readText(t, filepath.Join(dir, "gradle.yaml")); strings.Count(dated, "2020-01-01") != 1 || !strings.Contains(dated, "source: x\n    verified: 20") {
		t.Errorf("the file is now\n%s", dated)
	}
}
