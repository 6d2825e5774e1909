package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
)

// within waits for a channel to give or close.
func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s did not happen", what)
	}
	return v
}

func TestForwardStreamsBothWays(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, "got "+line)
			w.(http.Flusher).Flush()
		}
	}), "a.example:80")
	c := b.dialClient()
	c.send("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n")
	var body *bufio.Reader
	for i := range 3 {
		c.send(fmt.Sprintf("2\r\n%d\n\r\n", i))
		if body == nil {
			resp, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			body = bufio.NewReader(resp.Body)
		}
		if line, err := body.ReadString('\n'); line != fmt.Sprintf("got %d\n", i) {
			t.Fatalf("line %d comes back as %q, %v", i, line, err)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil {
		t.Errorf("%q follows, %v", rest, err)
	}
	if end := b.phases("close", 1)[0]; end.sent != 6 || end.received != 18 || end.err != nil {
		t.Errorf("the close record is %+v", end)
	}
}

func TestForwardRequestTrailers(t *testing.T) {
	got := make(chan http.Header, 1)
	b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.Trailer
	}), "a.example:80")
	b.dialClient().do("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Proxy-Authorization\r\n\r\n" +
		"1\r\nx\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\nProxy-Authorization: secret\r\nTransfer-Encoding: chunked\r\n\r\n")
	trailer := within(t, "a request", got)
	if trailer.Get("X-Sum") != "1" || trailer.Get("X-Other")+trailer.Get("Proxy-Authorization")+trailer.Get("Transfer-Encoding") != "" {
		t.Errorf("the origin gets the trailers %v", trailer)
	}
}

func TestForwardExpectContinue(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}), "a.example:80")
	c := b.dialClient()
	c.send("PUT http://a.example/yes HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	if line, _ := c.in.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("the client is told %q", line)
	}
	_, _ = c.in.ReadString('\n')
	if status, body := c.do("abc"); status != 200 || body != "abc" {
		t.Errorf("after 100 Continue: %d %q", status, body)
	}
	c.send("PUT http://a.example/no HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	if resp, _ := c.response("PUT"); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("an upload that the origin refuses: %d, close %v", resp.StatusCode, resp.Close)
	}
	c.ended()
}

func TestForwardEarlyResponse(t *testing.T) {
	b := newBench(t, rawOrigin("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"), "a.example:80")
	c := b.dialClient()
	c.send("PUT http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 10))
	resp, body := c.response("PUT")
	if resp.StatusCode != 413 || body != "no" || !resp.Close {
		t.Errorf("%d %q, close %v", resp.StatusCode, body, resp.Close)
	}
	c.send(strings.Repeat("x", 5000) + getA) // part of the body, never a request
	c.ended()
	if opens := b.phases("open", 1); len(opens) != 1 {
		t.Errorf("%d requests were carried", len(opens))
	}
}

func TestForwardUpstreamGoesAwayDuringAnUpload(t *testing.T) {
	b := newBench(t, rawOrigin(""), "a.example:80")
	c := b.dialClient()
	c.send("PUT http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 10))
	if resp, _ := c.response("PUT"); resp.StatusCode != 502 {
		t.Errorf("the client is answered %d", resp.StatusCode)
	}
	if end := b.phases("close", 1)[0]; end.reason != allowlists.UpstreamFailed {
		t.Errorf("the close record is %+v", end)
	}
}

func TestForwardBrokenChunks(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80")
	c := b.dialClient()
	c.send("PUT http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n")
	if resp, _ := c.response("PUT"); resp.StatusCode != 400 {
		t.Errorf("the client is answered %d", resp.StatusCode)
	}
	if end := b.phases("close", 1)[0]; end.reason != allowlists.BadRequest {
		t.Errorf("the close record is %+v", end)
	}
}

func TestForwardClientGoesAway(t *testing.T) {
	for name, leave := range map[string]func(*benchClient){
		"by a reset": func(c *benchClient) { _ = c.SetLinger(0); _ = c.Close() },
		"by an end":  func(c *benchClient) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			arrived, left := make(chan struct{}), make(chan struct{})
			b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				close(arrived)
				<-r.Context().Done()
				close(left)
			}), "a.example:80")
			c := b.dialClient()
			c.send(getA)
			within(t, "the request", arrived)
			leave(c)
			within(t, "the end upstream", left)
			if end := b.phases("close", 1)[0]; !errors.Is(end.err, errClientGone) {
				t.Errorf("the close record has %v", end.err)
			}
		})
	}
}

func TestForwardHalfClosedClientGetsItsAnswer(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80")
	c := b.dialClient()
	c.send(getA)
	_ = c.CloseWrite()
	if resp, body := c.response("GET"); resp.StatusCode != 200 || body != "GET a.example /x " {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

func TestForwardReloadEndsTheRequestInFlight(t *testing.T) {
	started, left := make(chan struct{}), make(chan struct{})
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		close(started)
		<-r.Context().Done()
		close(left)
	}), "a.example:80")
	c := b.dialClient()
	c.send(getA)
	within(t, "the response", started)
	b.allow("a.example:80")
	b.each((*forwarder).policyChanged)
	b.allow("b.example:80")
	b.each((*forwarder).policyChanged)
	within(t, "the end upstream", left)
	if end := b.phases("close", 1)[0]; end.reason != allowlists.PolicyChanged {
		t.Errorf("the close record is %+v", end)
	}
	if _, err := io.ReadAll(c.in); err == nil {
		t.Error("the client sees a whole response")
	}
}

func TestForwardReloadEndsAWriteThatWaits(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 1<<20)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}), "a.example:80")
	b.set(func() { b.limits.idleTimeout = time.Hour })
	c := b.dialClient()
	c.send(getA) // and reads nothing
	b.phases("open", 1)
	stuck := func() bool {
		full := true
		b.each(func(f *forwarder) {
			f.mu.Lock()
			x := f.current
			f.mu.Unlock()
			before := int64(-1)
			for x != nil && before != x.received.Load() {
				before = x.received.Load()
				select {
				case <-time.After(20 * time.Millisecond):
				case <-t.Context().Done():
				}
			}
			full = full && x != nil && before > 0
		})
		return full
	}
	for !stuck() {
	}
	b.allow("b.example:80")
	b.each((*forwarder).policyChanged)
	if end := b.phases("close", 1)[0]; end.reason != allowlists.PolicyChanged {
		t.Errorf("the close record is %+v", end)
	}
}

func TestForwardDrain(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-finish
	}), "a.example:80", "b.example:80")
	idle := b.dialClient()
	idle.do("GET http://c.example/ HTTP/1.1\r\nHost: c.example\r\n\r\n")
	busy, waiting := b.dialClient(), b.dialClient()
	busy.send(getA)
	within(t, "the request", started)
	waiting.send("G") // a head that has begun is not waited for
	b.drain()
	close(finish)
	if resp, _ := busy.response("GET"); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("the request in flight: %d, close %v", resp.StatusCode, resp.Close)
	}
	busy.ended()
	_ = waiting.Close()
}

func TestForwardTimeouts(t *testing.T) {
	stuck := make(chan struct{})
	b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-stuck }), "a.example:80")
	defer close(stuck)
	b.set(func() { b.limits.idleTimeout, b.limits.headerTimeout = 200*time.Millisecond, 200*time.Millisecond })
	if status, _ := b.dialClient().do(getA); status != 504 {
		t.Errorf("an upstream that says nothing: %d", status)
	}
	if end := b.phases("close", 1)[0]; end.reason != allowlists.TimedOut {
		t.Errorf("its close record is %+v", end)
	}
	b.dialClient().ended() // a client that says nothing
	c := b.dialClient()
	c.send("GET http://a.exa")
	if resp, _ := c.response("GET"); resp.StatusCode != 400 {
		t.Errorf("a head that does not end: %d", resp.StatusCode)
	}
	if refused := b.phases("refused", 1); !errors.Is(refused[0].err, errHeadSlow) {
		t.Errorf("its record is %+v", refused[0])
	}
	c = b.dialClient()
	c.send("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\na")
	if end := b.phases("close", 2)[1]; end.err == nil {
		t.Errorf("a body that does not come: %+v", end)
	}
	if _, err := io.ReadAll(c.in); err != nil {
		t.Errorf("its client reads %v", err)
	}
}

func TestForwardDeadUpstream(t *testing.T) {
	b := newBench(t, nil, "a.example:80")
	b.set(func() { b.origin = "127.0.0.1:1" })
	if status, _ := b.dialClient().do(getA); status != 502 {
		t.Errorf("a refused connection is answered %d", status)
	}
	if refused := b.phases("refused", 1); refused[0].reason != allowlists.UpstreamFailed {
		t.Errorf("the record is %+v", refused[0])
	}
}

func TestForwardContainsAPanic(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80")
	b.set(func() { b.carrier = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("ouch") }) })
	c := b.dialClient()
	c.send(getA)
	if end := b.phases("close", 1)[0]; end.reason != allowlists.InternalError || !errors.Is(end.err, errPanic) {
		t.Errorf("the close record is %+v", end)
	}
	if resp, _ := c.response("GET"); resp.StatusCode != 500 {
		t.Errorf("the client is answered %d", resp.StatusCode)
	}
	c.ended()
}

func TestForwardPooledConnectionThatDied(t *testing.T) {
	origin := rawOrigin("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // says keep-alive, and closes
	b := newBench(t, origin, "a.example:80")
	c := b.dialClient()
	for i := range 3 {
		if status, body := c.do(getA); status != 200 || body != "ok" {
			t.Errorf("request %d: %d %q", i, status, body)
		}
	}
	if n := len(b.phases("open", 3)); n != 3 || b.dials.Load() < 3 {
		t.Errorf("%d records, %d dials", n, b.dials.Load())
	}
}

func TestUpstreamIsNotSharedAcrossRules(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80")
	target, _ := allowlists.ParseTarget("a.example:80", 0)
	pass := &benchPassage{g: &benchGate{b: b}, policy: b.policy.Load(), target: target}
	pass.d = pass.policy.Pool("build").DecideConn(target.Host, 80, time.Now())
	x := &exchange{target: target, pass: pass}
	u := newUpstream(x, b.limits)
	if !u.fits(x) {
		t.Error("an upstream does not fit the request it was made for")
	}
	other := *pass
	other.d.Rule = &allowlists.Rule{}
	if u.fits(&exchange{target: target, pass: &other}) {
		t.Error("an upstream fits a request that another rule admits")
	}
	b.allow("a.example:80")
	other = *pass
	other.policy = b.policy.Load()
	if u.fits(&exchange{target: target, pass: &other}) {
		t.Error("an upstream fits a request under another policy")
	}
	if _, err := u.dial(t.Context(), "tcp", "a.example:80"); !errors.Is(err, errNoDial) {
		t.Errorf("a dial without a request gives %v", err)
	}
	for addr, x := range map[string]*exchange{"a.example:80": {up: newUpstream(x, b.limits)}, "b.example:80": {up: u}} {
		x.pass = pass
		if _, err := u.dial(context.WithValue(t.Context(), exchangeKey{}, x), "tcp", addr); !errors.Is(err, errNoDial) {
			t.Errorf("a dial to %s, with another upstream's request or to another destination, gives %v", addr, err)
		}
	}
	if pass.reusable(netip.MustParseAddr("169.254.169.254")) {
		t.Error("a connection to a metadata address may be used again")
	}
}
