package proxy_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

// TestReloadClosesWhatItForbids changes the policy under two tunnels.
func TestReloadClosesWhatItForbids(t *testing.T) {
	tg := newTarget(t, nil)
	keep, drop := rule("keep.example:"+tg.port), rule("drop.example:"+tg.port)
	for says, after := range map[string]allowlists.PoolSpec{
		"the rule is gone":            pool(keep),
		"deny has the name":           {Name: "build", Sources: loopback, Allow: []allowlists.Rule{keep, drop}, Deny: []allowlists.Rule{rule("drop.example:*")}},
		"another port is allowed":     pool(keep, rule("drop.example:1")),
		"the address is not allowed":  pool(keep, rule("drop.example:"+tg.port, func(r *allowlists.Rule) { r.ResolvesTo = nil })),
		"TLS is required from now on": pool(keep, rule("drop.example:"+tg.port, requireTLS)),
		"the rule has expired":        pool(keep, rule("drop.example:"+tg.port, func(r *allowlists.Rule) { r.Expires = time.Now().Add(-time.Second) })),
	} {
		t.Run(says, func(t *testing.T) {
			w := newWorld(t, pool(keep, drop))
			kept, dropped := w.tunnel("keep.example:"+tg.port), w.tunnel("drop.example:"+tg.port)
			w.set(after)
			w.server.PolicyChanged()
			began := time.Now()
			if _, err := dropped.Read(make([]byte, 1)); err == nil || err == io.EOF || !ended(err) {
				t.Errorf("the forbidden tunnel ends with %v, want a reset", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
			w.wait("the close", func(r proxy.ConnRecord) bool {
				return r.Phase == proxy.PhaseClose && r.Host == "drop.example" && r.Decision.Reason == allowlists.PolicyChanged
			})
			_, _ = kept.TCPConn.Write([]byte("x"))
			if _, err := io.ReadFull(kept, make([]byte, 1)); err != nil {
				t.Errorf("the allowed tunnel ended: %v", err)
			}
		})
	}
}

// TestExpiryClosesByItself lets a rule end under a tunnel.
func TestExpiryClosesByItself(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port, func(r *allowlists.Rule) { r.Expires = time.Now().Add(700 * time.Millisecond) })))
	c := w.tunnel("good.example:" + tg.port)
	if _, err := c.Read(make([]byte, 1)); !ended(err) {
		t.Errorf("the tunnel outlives its rule: %v", err)
	}
	if closed := w.phase(proxy.PhaseClose); closed.Decision.Reason != allowlists.PolicyChanged || closed.Took > 2*time.Second {
		t.Errorf("closed as %v after %v", closed.Decision.Reason, closed.Took)
	}
}

// TestDrainWaitsThenCloses ends the server under tunnels.
func TestDrainWaitsThenCloses(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)), limits(func(l *allowlists.Limits) { l.DrainTimeout = 300 * time.Millisecond }))
	finishes, stays, silent := w.tunnel("good.example:"+tg.port), w.tunnel("good.example:"+tg.port), w.dial()
	_, _ = silent.TCPConn.Write([]byte("CONN"))
	w.stop()
	_, _ = finishes.TCPConn.Write([]byte("still served"))
	_ = finishes.CloseWrite()
	if got, err := io.ReadAll(finishes); string(got) != "still served" || err != nil {
		t.Errorf("a tunnel that drains: %q, %v", got, err)
	}
	<-w.served
	if _, err := stays.Read(make([]byte, 1)); !ended(err) {
		t.Errorf("a tunnel outlives the server: %v", err)
	}
	w.wait("shutting-down", func(r proxy.ConnRecord) bool {
		return r.Phase == proxy.PhaseClose && r.Decision.Reason == allowlists.ShuttingDown
	})
	if _, err := net.Dial("tcp", w.addr); err == nil {
		t.Error("the listener is open after Serve returned")
	}
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

// TestRebindingNeverDials answers with private addresses in every mixture, a
// thousand times, and counts the connections to them.
func TestRebindingNeverDials(t *testing.T) {
	forbidden := newTarget(t, nil)
	w := newWorld(t, pool(rule("bind.example:"+forbidden.port, func(r *allowlists.Rule) { r.ResolvesTo = nil })),
		limits(func(l *allowlists.Limits) { l.DialTimeout = 100 * time.Millisecond }))
	var n int
	var mu sync.Mutex
	w.resolver.lookup = func(allowlists.Host) (allowlists.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		addrs := [][]string{{"127.0.0.1"}, {"::ffff:127.0.0.1"}, {"::1", "127.0.0.2"}, {"0.0.0.0", "127.0.0.1"}, {"64:ff9b::7f00:1"}}[n%5]
		var a allowlists.Answer
		for _, text := range addrs {
			a.Addrs = append(a.Addrs, netip.MustParseAddr(text))
		}
		return a, nil
	}
	for range 1000 {
		c := w.dial()
		if r := c.connect("bind.example:" + forbidden.port); r.code != 403 {
			t.Fatalf("%s", r.line)
		}
		_ = c.Close()
	}
	if n := forbidden.conns.Load(); n != 0 {
		t.Errorf("%d connections to an address nobody allowed", n)
	}
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

// TestNextAddressIsTried answers with addresses of which the last one listens.
func TestNextAddressIsTried(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	w.resolver.lookup = answers(map[string]string{"good.example": "10.9.9.9 127.0.0.2 127.0.0.3 127.0.0.1"})
	began := time.Now()
	c := w.tunnel("good.example:" + tg.port)
	if took := time.Since(began); took > 200*time.Millisecond {
		t.Errorf("a refused address held the next one up: %v", took)
	}
	_ = c.Close()
	if open := w.phase(proxy.PhaseOpen); open.Addr.String() != "127.0.0.1" {
		t.Errorf("dialled %s", open.Addr)
	}
	w.phase(proxy.PhaseClose)
}

// TestSlowAddressIsOvertaken answers with an address that says nothing before
// one that does: RFC 8305 gives the first 250 ms.
func TestSlowAddressIsOvertaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hole, port := blackHole(t, l.Addr().(*net.TCPAddr).Port)
	w := newWorld(t, pool(rule("good.example:"+port)))
	w.resolver.lookup = answers(map[string]string{"good.example": hole + " 127.0.0.1", "hole.example": hole})
	began := time.Now()
	c := w.tunnel("good.example:" + port)
	if took := time.Since(began); took < 240*time.Millisecond || took > 3*time.Second {
		t.Errorf("connected after %v, want a little over 250ms", took)
	}
	_ = c.Close()
	_ = l.Close() // with the connection that nobody took
	w.phase(proxy.PhaseClose)
}

// TestDialThatHangsIsTimedOut dials what does not answer.
func TestDialThatHangsIsTimedOut(t *testing.T) {
	hole, port := blackHole(t, 0)
	w := newWorld(t, pool(rule("hole.example:"+port)), limits(func(l *allowlists.Limits) { l.DialTimeout = 200 * time.Millisecond }))
	w.resolver.lookup = answers(map[string]string{"hole.example": hole})
	checkRefusal(t, w, w.dial().connect("hole.example:"+port), 504, "timed-out")
}

// blackHole is a loopback address and port where connections are neither taken
// nor refused: its queue is full. at is the port, 0 for any.
func blackHole(t *testing.T, at int) (addr, port string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 7}, Port: at}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port = strconv.Itoa(name.(*syscall.SockaddrInet4).Port)
	for range 8 {
		c, err := net.DialTimeout("tcp", "127.0.0.7:"+port, 100*time.Millisecond)
		if err != nil {
			return "127.0.0.7", port
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue does not fill")
	return "", ""
}
