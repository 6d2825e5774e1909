package webui_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sallyport/alerting"
	"sallyport/alerting/webui"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
)

// token is the one that the gate of every test knows.
const token = "0123456789abcdef"

// policyText is the policy of every test.
const policyText = `
pools:
  build:
    sources: [10.20.0.0/24]
    presets: [npm]
    allow:
      - registry.corp.example
      - {host: old.corp.example, expires: 2024-01-01, owner: platform@corp.example, reason: "the <old> mirror"}
    deny: [gist.github.com]
  release: {mode: audit, sources: [10.30.0.0/24], allow: [registry.corp.example]}
`

// A world is a page with events behind it.
type world struct {
	t       *testing.T
	alerts  *alerting.Alerting
	policy  *allowlists.Policy // that conn and ask decide by
	inForce atomic.Pointer[allowlists.Policy]
	status  webui.Status
	pages   http.Handler
}

// newWorld makes a page that nothing was told to yet.
func newWorld(t *testing.T) *world {
	t.Helper()
	file, report := allowlists.Load([]allowlists.Source{{Name: "sallyport.yaml", Text: []byte(policyText)}}, os.LookupEnv, time.Now())
	if errs := report.Errors(); len(errs) > 0 {
		t.Fatal(errs)
	}
	w := &world{t: t, policy: file.Policy}
	w.inForce.Store(file.Policy)
	var err error
	w.alerts, err = alerting.New(alerting.Config{Events: allowlists.Log{Events: "stdout"}, Stdout: io.Discard, Policy: w.inForce.Load})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.alerts.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.status = webui.Status{
		Version: "1.2.3", State: "ready", Policy: 7, Started: time.Now().Add(-time.Hour),
		Enforced:  webui.Enforcement{Placement: "gateway", State: "in-place", By: "table", At: "2026-11-23T12:00:00Z"},
		Upstreams: []webui.Upstream{{Name: "udp://192.0.2.1:53", LastError: "no answer"}},
	}
	w.pages, err = webui.New(webui.Config{
		Log: zerolog.Nop(), Events: w.alerts, Policy: w.inForce.Load, Status: func() webui.Status { return w.status },
		ConfigPath: "/etc/sallyport/it's.yaml",
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// gate puts a gate before the page, and an API beside it that only says "api".
func (w *world) gate(token string) (*webui.Gate, http.Handler) {
	w.t.Helper()
	gate, err := webui.NewGate(webui.GateConfig{Log: zerolog.Nop(), Token: token})
	if err != nil {
		w.t.Fatal(err)
	}
	return gate, gate.Guard(w.pages, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "api") }))
}

// client is the address of a job.
func client(text string) allowlists.Subject {
	addr := netip.MustParseAddr(text)
	pool := "build"
	if strings.HasPrefix(text, "10.30.") {
		pool = "release"
	}
	return allowlists.Subject{Client: addr, Pool: pool}
}

// conn records a connection as the policy decides about it.
func (w *world) conn(id, from, host string, port uint16, change ...func(*proxy.ConnRecord)) {
	w.t.Helper()
	subject := client(from)
	r := proxy.ConnRecord{ID: id, Time: time.Now(), Subject: subject, Generation: 7, Via: proxy.ViaConnect, Host: host, Port: port, Phase: proxy.PhaseOpen}
	name, err := allowlists.ParseHost(host)
	if err != nil {
		r.Decision = allowlists.Decision{Reason: allowlists.BadHost}
	} else {
		r.Decision = w.policy.Pool(subject.Pool).DecideConn(name, port, time.Now())
	}
	if !r.Decision.Allowed() {
		r.Phase = proxy.PhaseRefused
	}
	for _, c := range change {
		c(&r)
	}
	w.alerts.ObserveConn(r)
}

// ask records a question.
func (w *world) ask(id, from, name string) {
	w.t.Helper()
	subject := client(from)
	r := dnsfilter.QueryRecord{ID: id, Time: time.Now(), Subject: subject, Generation: 7, By: "client", Name: name, Type: 1, Decision: allowlists.Decision{Reason: allowlists.BadHost}}
	if host, err := allowlists.ParseHost(name); err == nil {
		r.Host, r.Decision = host, w.policy.Pool(subject.Pool).DecideName(host, time.Now())
	}
	w.alerts.ObserveQuery(r)
}

// get asks for a page.
func get(t *testing.T, h http.Handler, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:9181"+path, nil)
	r.Header.Set("Accept", "text/html")
	for _, c := range change {
		c(r)
	}
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, r)
	return answer
}

// post sends a form.
func post(t *testing.T, h http.Handler, path, form string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	return get(t, h, path, append([]func(*http.Request){func(r *http.Request) {
		r.Method, r.Body = http.MethodPost, io.NopCloser(strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}}, change...)...)
}

// with sets a header.
func with(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// cookie sends the one that an answer set.
func cookie(t *testing.T, from *httptest.ResponseRecorder) func(*http.Request) {
	t.Helper()
	cookies := from.Result().Cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies were set: %s", len(cookies), from.Body)
	}
	return func(r *http.Request) { r.AddCookie(cookies[0]) }
}

// allPaths are the pages of a world in which id was decided about, and what they load.
func allPaths(t *testing.T, id string) []string {
	t.Helper()
	paths := []string{"/", "/refusals", "/alerts", "/pools", "/pools/build", "/pools/none", "/decisions/" + id, "/decisions/none", "/nothing", "/sign-in", "/sign-in/x", "/?client=x"}
	names, err := filepath.Glob("assets/*")
	if err != nil || len(names) < 3 {
		t.Fatalf("assets: %v, %v", names, err)
	}
	for _, name := range names {
		paths = append(paths, "/"+name)
	}
	return paths
}
