package proxy_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// TestTunnelCarriesAndCounts moves more than a buffer and a splice hold, both
// ways, and compares the counts with what was sent.
func TestTunnelCarriesAndCounts(t *testing.T) {
	for _, size := range []int{0, 1, 32 << 10, 32<<10 + 1, 3<<20 + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			tg := newTarget(t, nil)
			w := newWorld(t, pool(rule("good.example:"+tg.port)))
			c := w.tunnel("good.example:" + tg.port)
			data := make([]byte, size)
			_, _ = rand.Read(data)
			var both sync.WaitGroup
			both.Go(func() { _, _ = c.TCPConn.Write(data); _ = c.CloseWrite() })
			got, err := io.ReadAll(c)
			both.Wait()
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes came back of %d: %v", len(got), size, err)
			}
			open, closed := w.phase(proxy.PhaseOpen), w.phase(proxy.PhaseClose)
			if closed.Sent != int64(size) || closed.Received != int64(size) || closed.Err != "" {
				t.Errorf("the close record says %d sent, %d received, %q", closed.Sent, closed.Received, closed.Err)
			}
			if open.Host != "good.example" || open.Addr != netip.MustParseAddr("127.0.0.1") || open.DNSIDs == nil || open.Method != "CONNECT" || open.ClientPort == 0 {
				t.Errorf("the open record is %+v", open)
			}
			w.checkRecords()
			want := fmt.Sprintf("# HELP sallyport_bytes_total Bytes carried; sent is from the job to the world.\n# TYPE sallyport_bytes_total counter\n"+
				"sallyport_bytes_total{direction=\"received\",pool=\"build\"} %v\nsallyport_bytes_total{direction=\"sent\",pool=\"build\"} %v\n", float64(size), float64(size))
			if err := testutil.GatherAndCompare(w.registry, strings.NewReader(want), "sallyport_bytes_total"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEarlyBytesArriveFirst sends the CONNECT and what follows in one segment.
func TestEarlyBytesArriveFirst(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	c := w.dial()
	target := "good.example:" + tg.port
	r := c.send("CONNECT", "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\nearly bird")
	if r.code != 200 {
		t.Fatal(r.line)
	}
	_, _ = c.TCPConn.Write([]byte(" and worm"))
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "early bird and worm" {
		t.Errorf("came back: %q, %v", got, err)
	}
}

// TestHalfCloseEachWay ends one direction and uses the other.
func TestHalfCloseEachWay(t *testing.T) {
	closedFirst := make(chan struct{})
	tg := newTarget(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("hello"))
		_ = c.CloseWrite()
		got, _ := io.ReadAll(c)
		if string(got) != "late" {
			t.Errorf("after its half-close the target read %q", got)
		}
		close(closedFirst)
	})
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	c := w.tunnel("good.example:" + tg.port)
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.TCPConn.Write([]byte("late")); err != nil {
		t.Error(err)
	}
	_ = c.CloseWrite()
	<-closedFirst
	if closed := w.phase(proxy.PhaseClose); closed.Sent != 4 || closed.Received != 5 || !closed.Decision.Allowed() {
		t.Errorf("%+v", closed)
	}
}

// TestResetIsPassedOn resets one side and expects no clean end on the other.
func TestResetIsPassedOn(t *testing.T) {
	tg := newTarget(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	})
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	c := w.tunnel("good.example:" + tg.port)
	_, _ = c.TCPConn.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a reset of the target reads as %v", err)
	}
	if closed := w.phase(proxy.PhaseClose); closed.Err == "" {
		t.Error("the close record has no error")
	}
}

// TestIdleTunnelEnds waits for a tunnel on which nothing moves.
func TestIdleTunnelEnds(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)), limits(func(l *allowlists.Limits) { l.IdleTimeout = 100 * time.Millisecond }))
	c := w.tunnel("good.example:" + tg.port)
	if _, err := c.Read(make([]byte, 1)); !ended(err) {
		t.Errorf("the tunnel is still open: %v", err)
	}
	if closed := w.phase(proxy.PhaseClose); closed.Decision.Reason != allowlists.TimedOut || !closed.Decision.Allowed() {
		t.Errorf("closed as %v", closed.Decision.Reason)
	}
}

// TestProgressIsRecorded expects counts of a tunnel that stays open.
func TestProgressIsRecorded(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)), func(cfg *proxy.Config) { cfg.Progress = 50 * time.Millisecond })
	c := w.tunnel("good.example:" + tg.port)
	_, _ = c.TCPConn.Write([]byte("12345"))
	_, _ = io.ReadFull(c, make([]byte, 5))
	w.wait("progress", func(r proxy.ConnRecord) bool { return r.Phase == proxy.PhaseProgress && r.Sent == 5 && r.Received == 5 })
	_ = c.Close()
	w.phase(proxy.PhaseClose)
	w.checkRecords()
}

// TestThousandTunnels opens many at once, each with its own bytes.
func TestThousandTunnels(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	var all sync.WaitGroup
	for i := range 1000 {
		all.Go(func() {
			c := w.tunnel("good.example:" + tg.port)
			text := strings.Repeat(fmt.Sprint(i, " "), 500)
			_, _ = io.WriteString(c.TCPConn, text)
			_ = c.CloseWrite()
			if got, err := io.ReadAll(c); string(got) != text {
				t.Errorf("tunnel %d: %d bytes of %d, %v", i, len(got), len(text), err)
			}
			_ = c.Close()
		})
	}
	all.Wait()
	w.stop()
	<-w.served
	w.checkRecords()
	if n := len(w.all()); n != 2000 {
		t.Errorf("%d records for 1000 tunnels, want 2000", n)
	}
}

// TestHTTPInsideConnectIsJudgedByItself sends a foreign Host inside a CONNECT
// to port 80, which nothing is dialled for.
func TestHTTPInsideConnectIsJudgedByItself(t *testing.T) {
	w := newWorld(t, pool(rule("web.example:80"), rule("other.example:80")))
	c := w.tunnel("web.example:80")
	r := c.send("GET", "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
	checkRefusal(t, w, r, 403, "host-mismatch")
	closed := w.phase(proxy.PhaseClose)
	if closed.Via != proxy.ViaConnect {
		t.Errorf("closed %+v", closed)
	}
	w.checkRecords()
}

// TestEarlyAnswerIsNotLost has the target answer and leave while the client
// still sends.
func TestEarlyAnswerIsNotLost(t *testing.T) {
	answer := bytes.Repeat([]byte("413"), 20000)
	tg := newTarget(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_, _ = c.Write(answer)
		_ = c.CloseWrite()
		_, _ = io.CopyN(io.Discard, c, 1<<20)
	})
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	c := w.tunnel("good.example:" + tg.port)
	var sending sync.WaitGroup
	sending.Go(func() {
		for range 64 {
			if _, err := c.TCPConn.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, answer) {
		t.Errorf("the answer is cut: %v", err)
	}
	_ = c.Close()
	sending.Wait()
	w.phase(proxy.PhaseClose)
}

// TestHTTPWithAbsoluteURI carries a request, and then a CONNECT, on one
// connection.
func TestHTTPWithAbsoluteURI(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello "+r.Host+r.URL.Path)
	}))
	defer origin.Close()
	tg := newTarget(t, nil)
	_, port, _ := net.SplitHostPort(origin.Listener.Addr().String())
	host := "web.example:" + port
	w := newWorld(t, pool(rule(host), rule("good.example:"+tg.port)))
	c := w.dial()
	for range 2 {
		r := c.send("GET", "GET http://"+host+"/x HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		if r.code != 200 || r.body != "hello "+host+"/x" {
			t.Fatalf("%s %q", r.line, r.body)
		}
	}
	if r := c.connect("good.example:" + tg.port); r.code != 200 {
		t.Fatal(r.line)
	}
	_, _ = io.WriteString(c.TCPConn, "x")
	_, _ = io.ReadFull(c, make([]byte, 1))
	_ = c.Close()
	w.wait("the tunnel's end", func(r proxy.ConnRecord) bool { return r.Via == proxy.ViaConnect && r.Phase == proxy.PhaseClose })
	for _, rec := range w.all() {
		if rec.Via == proxy.ViaHTTP && rec.Phase == proxy.PhaseOpen && (rec.Addr.String() != "127.0.0.1" || rec.DNSIDs == nil || rec.Method != "GET") {
			t.Errorf("%+v", rec)
		}
	}
	w.checkRecords()
}
