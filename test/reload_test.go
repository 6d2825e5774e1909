package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const echoPools = `
  build:
    sources: [127.0.0.0/8]
    allow:
      - {host: echo.example, ports: [%ECHO%], resolves_to: [127.0.0.0/8]}
      - {host: other.example, ports: [%ECHO%], resolves_to: [127.0.0.0/8]}
`

// echoWorld is a daemon in front of one echo server.
func echoWorld(t *testing.T, rest string) (*daemon, *origin, string, *zone) {
	t.Helper()
	d := prepare(t, config{rest: rest})
	o := echoOrigin(t, d.neighbour(2)+":0")
	z := newZone(t, "echo.example. 60 IN A "+o.ip, "other.example. 60 IN A "+o.ip)
	pools := strings.ReplaceAll(echoPools, "%ECHO%", o.port)
	d.write(z.addr, pools)
	d.run()
	return d, o, pools, z
}

// roundTrip proves that a tunnel carries bytes both ways.
func roundTrip(r *reply, text string) error {
	_ = r.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(r.conn, text+"\n"); err != nil {
		return err
	}
	line, err := r.br.ReadString('\n')
	if err == nil && line != text+"\n" {
		return fmt.Errorf("sent %q, got %q", text, line)
	}
	return err
}

// TestReloadClosesWhatItNoLongerAllows within a second, and nothing else.
func TestReloadClosesWhatItNoLongerAllows(t *testing.T) {
	d, o, pools, z := echoWorld(t, "")
	doomed, kept := connect(t, d.proxy, "echo.example:"+o.port), connect(t, d.proxy, "other.example:"+o.port)
	for _, r := range []*reply{doomed, kept} {
		if r.code != 200 {
			t.Fatal(r.status)
		}
		if err := roundTrip(r, "before"); err != nil {
			t.Fatal(err)
		}
	}
	d.write(z.addr, strings.Replace(pools, "echo.example", "gone.example", 1)) // seen by the watcher, no signal
	swapped := d.wait("the reload", func(e event) bool { return e.text("event") == "reloaded" })
	_ = doomed.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := doomed.br.ReadByte(); err == nil {
		t.Fatal("the tunnel goes on")
	}
	closed := d.wait("policy-changed", func(e event) bool { return e.text("phase") == "close" && e.text("reason") == "policy-changed" })
	at := func(e event) time.Time {
		when, err := time.Parse(time.RFC3339Nano, e.text("time"))
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	if late := at(closed).Sub(at(swapped)); late > time.Second {
		t.Errorf("the tunnel was closed %v after the reload", late)
	}
	if err := roundTrip(kept, "after"); err != nil {
		t.Errorf("a tunnel that the new policy allows was closed: %v", err)
	}
	if r := connect(t, d.proxy, "echo.example:"+o.port); r.code != 403 {
		t.Errorf("the removed host: %s", r.status)
	}
	if r := ask(t, d.dns, "echo.example", dns.TypeA); len(r.Answer) != 0 {
		t.Errorf("the cache still answers: %v", r)
	}
}

// TestInvalidReloadChangesNothing but is seen in log, metric and alert.
func TestInvalidReloadChangesNothing(t *testing.T) {
	d, o, _, _ := echoWorld(t, "")
	r := connect(t, d.proxy, "echo.example:"+o.port)
	whole, err := os.ReadFile(d.path("sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for i, broken := range []string{"pools: {build: {allow: [\"*.com\"]}}", "pools: [", "pools:\n  build:\n    mode: enforc\n", string(whole) + "\nnonsense: 1\n"} {
		d.put(broken)
		d.hangup()
		eventually(t, "the metric", func() bool {
			return !strings.Contains(d.metrics(), fmt.Sprintf("sallyport_policy_reloads_total{outcome=\"failed\"} %d\n", i)) &&
				strings.Contains(d.metrics(), `sallyport_policy_reloads_total{outcome="failed"}`)
		}, d.dump)
		if err := roundTrip(r, "still"); err != nil {
			t.Errorf("%q closed a tunnel: %v", broken, err)
		}
		if again := connect(t, d.proxy, "echo.example:"+o.port); again.code != 200 {
			t.Errorf("%q changed the policy: %s", broken, again.status)
		}
	}
	d.wait("the event, which names the first mistake", func(e event) bool {
		details, _ := e["details"].(map[string]any)
		text, _ := details["error"].(string)
		return e.text("event") == "reload-failed" && strings.Contains(text, "sallyport.yaml:3:11: mode cannot be")
	})
	d.wait("the alert", func(e event) bool { return e.text("alert") == "policy" })
	if !strings.Contains(d.stderr.String(), "enforc") {
		t.Errorf("our own messages do not show the mistake:\n%s", d.stderr)
	}
	d.wait("the alert says where", func(e event) bool {
		return e.text("alert") == "policy" && strings.Contains(e.text("summary"), "sallyport.yaml:")
	})
	for _, line := range strings.Split(strings.TrimSpace(d.stderr.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("our own messages have a line that is no JSON: %q", line)
		}
	}
}

// TestReloadOfADeletedConfiguration: what cannot be read is said once, with its
// cause, however much is written beside it, and again when it is back.
func TestReloadOfADeletedConfiguration(t *testing.T) {
	d, _, _, _ := echoWorld(t, "")
	whole, err := os.ReadFile(d.path("sallyport.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.path("sallyport.yaml")); err != nil {
		t.Fatal(err)
	}
	failed := func(e event) bool { return e.text("event") == "reload-failed" }
	why, _ := d.wait("the failure", failed)["details"].(map[string]any)
	if text, _ := why["error"].(string); !strings.Contains(text, "no such file") {
		t.Errorf("the cause is %q", text)
	}
	d.wait("the alert, with the cause", func(e event) bool {
		return e.text("alert") == "policy" && strings.Contains(e.text("summary"), "no such file")
	})
	for began := time.Now(); time.Since(began) < 2*time.Second; { // the event log lies in the same directory
		connect(t, d.proxy, "refused.example:443")
	}
	d.put(string(whole))
	d.wait("that it is back", func(e event) bool { return e.text("event") == "reloaded" })
	times := 0
	for _, e := range d.events() {
		if failed(e) {
			times++
		}
	}
	if times != 1 {
		t.Errorf("it was said %d times", times)
	}
	for _, line := range strings.Split(strings.TrimSpace(d.stderr.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("our own messages have a line that is no JSON: %q", line)
		}
	}
	if !strings.Contains(d.stderr.String(), "no such file") {
		t.Errorf("our own messages do not say why:\n%s", d.stderr)
	}
}

// TestReloadBesideABusyLog: the event log lies in the directory of the
// configuration, and never rests.
func TestReloadBesideABusyLog(t *testing.T) {
	d, _, pools, z := echoWorld(t, "")
	d.write(z.addr, strings.Replace(pools, "other.example", "another.example", 1))
	for began := time.Now(); !strings.Contains(d.metrics(), `reloads_total{outcome="applied"} 1`); {
		if time.Since(began) > patience {
			t.Fatal("it is not reloaded while the log is written")
		}
		connect(t, d.proxy, "refused.example:443")
	}
}

// TestConfigMapSwap reloads when Kubernetes swaps the ..data link that the
// mounted file leads through.
func TestConfigMapSwap(t *testing.T) {
	d := prepare(t, config{})
	z := newZone(t)
	install := func(generation, allow string) {
		if err := os.MkdirAll(d.path(generation), 0o755); err != nil {
			t.Fatal(err)
		}
		d.write(z.addr, "  build:\n    sources: [127.0.0.0/8]\n    allow: ["+allow+"]\n")
		if err := os.Rename(d.path("sallyport.yaml"), d.path(generation+"/sallyport.yaml")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(generation, d.path("..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(d.path("..data_tmp"), d.path("..data")); err != nil {
			t.Fatal(err)
		}
	}
	install("..one", "one.example")
	if err := os.Symlink("..data/sallyport.yaml", d.path("sallyport.yaml.link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.path("sallyport.yaml.link"), d.path("sallyport.yaml")); err != nil {
		t.Fatal(err)
	}
	d.run()
	link, err := os.Readlink(d.path("sallyport.yaml"))
	if err != nil || link != "..data/sallyport.yaml" {
		t.Fatal(link, err)
	}
	if r := connect(t, d.proxy, "two.example:443"); r.header.Get("Sallyport-Reason") != "not-in-allowlist" {
		t.Fatal(r.status)
	}
	// The new generation is written beside the link, which is then put back.
	install("..two", "two.example")
	if err := os.Symlink("..data/sallyport.yaml", d.path("sallyport.yaml")); err != nil {
		t.Fatal(err)
	}
	d.wait("the reload", func(e event) bool { return e.text("event") == "reloaded" })
	eventually(t, "the new policy", func() bool {
		return connect(t, d.proxy, "two.example:443").header.Get("Sallyport-Reason") == "no-such-host"
	}, d.dump)
}

// TestExpiredRuleClosesItsTunnels within a second of its end. The shortest
// term that a file can say is a day, so the clock is not waited for: a rule
// that has ended already refuses, which TestEveryReasonBeforeThe2xx holds; here
// a rule's end is brought forward by a reload.
func TestExpiredRuleClosesItsTunnels(t *testing.T) {
	d, o, pools, z := echoWorld(t, "")
	r := connect(t, d.proxy, "echo.example:"+o.port)
	if err := roundTrip(r, "before"); err != nil {
		t.Fatal(err)
	}
	d.write(z.addr, strings.Replace(pools, "host: echo.example,", "host: echo.example, expires: 2020-01-01,", 1))
	d.wait("policy-changed", func(e event) bool { return e.text("phase") == "close" && e.text("reason") == "policy-changed" })
}

// TestDrain: a stop lets a tunnel finish, refuses new work, and then goes.
func TestDrain(t *testing.T) {
	d, o, _, _ := echoWorld(t, "\nlimits: {drain_timeout: 10s}\n")
	r := connect(t, d.proxy, "echo.example:"+o.port)
	go d.stop()
	d.wait("stopping", func(e event) bool { return e.text("event") == "stopping" })
	if err := roundTrip(r, "finishing"); err != nil {
		t.Errorf("the tunnel was cut while draining: %v", err)
	}
	if r := ask(t, d.dns, "echo.example", dns.TypeA); r.Rcode != dns.RcodeRefused {
		t.Errorf("a new question is answered while draining: %v", r)
	}
	d.wait("its line", func(e event) bool { return e.text("kind") == "dns" && e.text("reason") == "shutting-down" })
	if late := connect(t, d.proxy, "echo.example:"+o.port); late.code != 503 || late.header.Get("Sallyport-Reason") != "shutting-down" {
		t.Errorf("a new connection while draining: %s", late.status)
	}
	if text := d.stderr.String(); !strings.Contains(text, `"connections":1,"at_most":"10s"`) || !strings.Contains(text, "stopping: new work is refused") {
		t.Errorf("nobody is told of the drain: %s", text)
	}
	r.conn.Close()
	select {
	case <-d.exited:
	case <-time.After(5 * time.Second):
		t.Error("the daemon waits though no tunnel is open")
	}
	if _, err := dialRaw(d.proxy); err == nil {
		t.Error("the listener is open after the end")
	}
}

// TestSecondSignalEndsTheDrain: who cannot wait sends the signal twice.
func TestSecondSignalEndsTheDrain(t *testing.T) {
	for _, second := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		d, o, _, _ := echoWorld(t, "\nlimits: {drain_timeout: 10m}\n")
		r := connect(t, d.proxy, "echo.example:"+o.port)
		if err := roundTrip(r, "before"); err != nil {
			t.Fatal(err)
		}
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		d.wait("stopping", func(e event) bool { return e.text("event") == "stopping" })
		if err := roundTrip(r, "between"); err != nil {
			t.Errorf("the first signal cut the tunnel: %v", err)
		}
		_ = d.cmd.Process.Signal(second)
		select {
		case <-d.exited:
		case <-time.After(patience):
			t.Fatalf("the daemon waits on after a second signal, %v: %s", second, d.stderr)
		}
		d.wait("its line", func(e event) bool { return e.text("phase") == "close" && e.text("reason") == "shutting-down" })
		if !strings.Contains(d.stderr.String(), "told to stop again") {
			t.Errorf("nothing is said of it: %s", d.stderr)
		}
	}
}

// TestRebinding asks 1,000 times for a name whose address alternates between one
// that its rule lists and a private one that it does not, or is both, with TTL
// 0: never is the private one answered or dialled.
func TestRebinding(t *testing.T) {
	d := prepare(t, config{rest: "\nlimits: {dns_per_client: 100000, dial_timeout: 1s}\n"})
	good := d.neighbour(2)
	trap := echoOrigin(t, d.neighbour(3)+":0")
	z := newZone(t)
	n := 0
	z.setAnswer(func(q dns.Question) (rrs []dns.RR) {
		if q.Qtype != dns.TypeA {
			return nil
		}
		n++
		addrs := [][]string{{good}, {trap.ip}, {good, trap.ip}, {trap.ip, "10.0.0.1", "169.254.169.254"}}[n%4]
		for _, a := range addrs {
			rr, _ := dns.NewRR(q.Name + " 0 IN A " + a)
			rrs = append(rrs, rr)
		}
		return rrs
	})
	d.write(z.addr, "  build:\n    sources: [127.0.0.0/8]\n    allow: [{host: rebind.example, ports: ["+trap.port+"], resolves_to: ["+good+"/32]}]\n")
	d.run()
	for range 500 {
		for _, rr := range ask(t, d.dns, "rebind.example", dns.TypeA).Answer {
			if a, ok := rr.(*dns.A); ok && a.A.String() != good {
				t.Fatalf("answered %v", rr)
			}
		}
	}
	conns := make(chan struct{}, 64)
	for range 500 {
		conns <- struct{}{}
		go func() {
			defer func() { <-conns }()
			conn, err := dialRaw(d.proxy)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "CONNECT rebind.example:%s HTTP/1.1\r\nHost: x\r\n\r\n", trap.port)
			line, _ := bufio.NewReader(conn).ReadString('\n')
			if strings.Contains(line, " 200 ") {
				t.Errorf("a tunnel: %s", line)
			}
		}()
	}
	for range cap(conns) {
		conns <- struct{}{}
	}
	if got, _ := trap.counts(); got != 0 {
		t.Errorf("the private address was dialled %d times", got)
	}
	d.wait("the alert", func(e event) bool { return e.text("alert") == "rebinding" && e.text("severity") == "high" })
}
