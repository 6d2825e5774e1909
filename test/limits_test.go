package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestConnectionsOverTheLimit get 429 with Retry-After and a record, and the
// accept loop goes on.
func TestConnectionsOverTheLimit(t *testing.T) {
	d, o, _, _ := echoWorld(t, "\nlimits: {connections: 64, connections_per_client: 8}\n")
	var open []*reply
	for range 8 {
		r := connect(t, d.proxy, "echo.example:"+o.port)
		if r.code != 200 {
			t.Fatal(r.status)
		}
		open = append(open, r)
	}
	for range 20 {
		r := connect(t, d.proxy, "echo.example:"+o.port)
		if r.code != 429 || r.header.Get("Retry-After") == "" || r.header.Get("Sallyport-Reason") != "limit-exceeded" {
			t.Fatalf("the ninth connection: %s %v", r.status, r.header)
		}
		r.conn.Close()
	}
	if err := roundTrip(open[0], "still"); err != nil {
		t.Errorf("an open tunnel suffers: %v", err)
	}
	for _, r := range open {
		r.conn.Close()
	}
	eventually(t, "places to be free again", func() bool { return connect(t, d.proxy, "echo.example:"+o.port).code == 200 }, d.dump)
	d.wait("a record of the refusal", func(e event) bool {
		return e.text("kind") == "conn" && e.text("reason") == "limit-exceeded" && e.text("phase") == "refused"
	})
}

// TestQuestionsOverTheLimit are refused, each with its line.
func TestQuestionsOverTheLimit(t *testing.T) {
	d, _, _, _ := echoWorld(t, "\nlimits: {dns_per_client: 5}\n")
	refused := 0
	for range 40 {
		if r := exchange(t, "udp", d.dns, new(dns.Msg).SetQuestion("echo.example.", dns.TypeA)); r.Rcode == dns.RcodeRefused {
			refused++
		}
	}
	if refused < 20 {
		t.Errorf("%d of 40 questions at once were refused with 5 a second", refused)
	}
	lines := 0
	for _, e := range d.events() {
		if e.text("kind") == "dns" && e.text("reason") == "limit-exceeded" {
			lines++
		}
	}
	if lines != refused {
		t.Errorf("%d lines for %d refusals", lines, refused)
	}
}

// TestFullDisk: lines wait in a bounded buffer while the log cannot be written.
// Once that is full, on_error deny refuses new work with 503. (What continue
// does then is package alerting's to test: filling 64 MiB takes half a minute.)
func TestFullDisk(t *testing.T) {
	needRoot(t) // /dev/full opened for writing as a log
	t.Parallel()
	d, o, _, _ := echoWorld(t, "\nlog: {events: /dev/full, on_error: deny}\nlimits: {dns_per_client: 1000000}\n")
	if r := connect(t, d.proxy, "echo.example:"+o.port); r.code != 200 {
		t.Fatalf("before the buffer is full: %s", r.status)
	}
	for range 60 {
		if flood(t, d.dns, 5000); connect(t, d.proxy, "echo.example:"+o.port).code != 200 {
			break
		}
	}
	r := connect(t, d.proxy, "echo.example:"+o.port)
	if r.code != 503 || r.header.Get("Sallyport-Reason") != "log-degraded" || r.header.Get("Retry-After") == "" {
		t.Errorf("with the buffer full: %s %v", r.status, r.header)
	}
	if r := ask(t, d.dns, "echo.example", dns.TypeA); len(r.Answer) != 0 {
		t.Errorf("DNS still answers: %v", r)
	}
	if !strings.Contains(d.stderr.String(), "degraded") {
		t.Errorf("our own messages do not say so:\n%s", d.stderr)
	}
}

// flood asks n questions for long refused names, whose lines fill a log.
func flood(t *testing.T, server string, n int) {
	t.Helper()
	label := strings.Repeat("a", 60)
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			conn, err := net.Dial("udp", server)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			question, err := new(dns.Msg).SetQuestion(label+"."+label+"."+label+".evil.example.", dns.TypeA).Pack()
			if err != nil {
				t.Error(err)
				return
			}
			answer := make([]byte, 1500)
			for range n / 4 {
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				_, _ = conn.Write(question)
				_, _ = conn.Read(answer)
			}
		})
	}
	work.Wait()
}

// TestAdminAndControl: what jobs and browsers can reach says little, and
// nothing changes by it.
func TestAdminAndControl(t *testing.T) {
	d, _, _, _ := echoWorld(t, "")
	get := func(path, host string) (int, string) {
		req, err := http.NewRequest(http.MethodGet, "http://"+d.admin+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if code, body := get(path, ""); code != 200 {
			t.Errorf("%s: %d %s", path, code, body)
		}
		if code, _ := get(path, "evil.example"); code == 200 {
			t.Errorf("%s answers a page that calls us evil.example", path)
		}
	}
	for _, path := range []string{"/", "/debug/pprof/", "/api/v1/status", "/api/v1/decisions/x"} {
		if code, _ := get(path, ""); code != 404 {
			t.Errorf("admin serves %s: %d", path, code)
		}
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.path("control.sock"))
	}}}
	resp, err := client.Get("http://localhost/api/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var status struct {
		Pools    []struct{ Name string }
		Enforced struct{ Enforced bool }
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil || len(status.Pools) != 1 || status.Pools[0].Name != "build" || status.Enforced.Enforced {
		t.Errorf("%v %+v", err, status)
	}
}

// TestPoolsOfTheirOwnListeners: a listener of a pool's own serves that pool,
// and gives another pool's client nothing.
func TestPoolsOfTheirOwnListeners(t *testing.T) {
	d := prepare(t, config{})
	z := newZone(t)
	d.write(z.addr, fmt.Sprintf(`
  sourced:
    sources: [127.66.0.0/16]
    allow: [sourced.example]
  own:
    listen: {proxy: "%s:3999"}
    allow: [own.example]
`, d.ip))
	d.run()
	own := net.JoinHostPort(d.ip, "3999")
	if r := connect(t, own, "own.example:443"); r.header.Get("Sallyport-Reason") != "no-such-host" {
		t.Errorf("the pool's own listener: %s", r.status)
	}
	if r := connect(t, own, "sourced.example:443"); r.header.Get("Sallyport-Reason") != "not-in-allowlist" {
		t.Errorf("the other pool's host: %s", r.status)
	}
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.66.0.9")}, Timeout: patience}).Dial("tcp", own)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "CONNECT own.example:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, _ := io.ReadAll(conn)
	if !strings.Contains(string(answer), "no-pool") {
		t.Errorf("a client of another pool gets at this listener: %s", answer)
	}
}

// TestEmptyConfigPathServesNothing: an unset variable behind -c is a mistake, no
// wish for the embedded policy.
func TestEmptyConfigPathServesNothing(t *testing.T) {
	out, err := exec.Command(binary, "run", "-c", "").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "-c is empty") {
		t.Errorf("%v: %s", err, out)
	}
}
