package proxy_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// TestRequestsOfOneConnection: each has records and counts of its own, whether
// it dialled, used the upstream connection of the one before, or was refused.
func TestRequestsOfOneConnection(t *testing.T) {
	tg := newTarget(t, func(c *net.TCPConn) {
		for in := make([]byte, 4096); ; {
			if _, err := c.Read(in); err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
		}
	})
	good, other := "good.example:"+tg.port, "other.example:"+tg.port
	w := newWorld(t, pool(rule(good)))
	c := w.dial()
	get := func(c *client, host string) int {
		return c.send("GET", "GET http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n").code
	}
	for i, r := range []struct {
		c    *client
		host string
		code int
	}{{c, good, 200}, {c, good, 200}, {c, other, 403}, {w.dial(), "good.example:1", 403}} {
		if code := get(r.c, r.host); code != r.code {
			t.Errorf("request %d is answered %d", i, code)
		}
	}
	w.wait("the last refusal", func(r proxy.ConnRecord) bool { return r.Port == 1 })
	var opened []proxy.ConnRecord
	for _, rec := range w.all() {
		if rec.Phase == proxy.PhaseOpen {
			opened = append(opened, rec)
		}
	}
	if len(opened) != 2 || tg.conns.Load() != 1 {
		t.Fatalf("%d were opened, over %d connections", len(opened), tg.conns.Load())
	}
	for i, rec := range opened {
		d := rec.Decision
		if d.Verdict != allowlists.Allow || d.Reason != allowlists.Allowed || d.Rule == nil || d.Rule.Text != opened[0].Decision.Rule.Text || rec.Addr != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("request %d was opened by %s, to %s", i, d.Reason, rec.Addr)
		}
	}
	want := `# HELP sallyport_bytes_total Bytes carried; sent is from the job to the world.
# TYPE sallyport_bytes_total counter
sallyport_bytes_total{direction="received",pool="build"} 4
sallyport_bytes_total{direction="sent",pool="build"} 0
# HELP sallyport_connections_open Tunnels and requests now open.
# TYPE sallyport_connections_open gauge
sallyport_connections_open{pool="build"} 0
# HELP sallyport_connections_total Connections and HTTP requests at their first verdict.
# TYPE sallyport_connections_total counter
sallyport_connections_total{pool="build",reason="allowed",verdict="allow",via="http"} 2
sallyport_connections_total{pool="build",reason="not-in-allowlist",verdict="deny",via="http"} 1
sallyport_connections_total{pool="build",reason="port-not-allowed",verdict="deny",via="http"} 1
`
	if err := testutil.GatherAndCompare(w.registry, strings.NewReader(want), "sallyport_bytes_total", "sallyport_connections_open", "sallyport_connections_total"); err != nil {
		t.Error(err)
	}
}

// TestRefusalsOpenNoCounters: a pool that is only refused has carried nothing
// that could be counted.
func TestRefusalsOpenNoCounters(t *testing.T) {
	w := newWorld(t, pool(rule("good.example")))
	w.dial().connect("evil.example:443")
	w.phase(proxy.PhaseRefused)
	if n, err := testutil.GatherAndCount(w.registry, "sallyport_bytes_total", "sallyport_connections_open"); n != 0 || err != nil {
		t.Errorf("%d counters, %v", n, err)
	}
}
