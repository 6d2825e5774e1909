package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"sallyport/allowlists"
)

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
	near, far := net.Pipe()
	defer far.Close()
	defer near.Close()
	u := newUpstreamConn(x, near, time.Minute)
	if !u.fits(x) {
		t.Error("an upstream does not fit the request it was made for")
	}
	elsewhere, _ := allowlists.ParseTarget("b.example:80", 0)
	if u.fits(&exchange{target: elsewhere, pass: pass}) {
		t.Error("an upstream fits a request to another destination")
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
	if _, err := u.Write([]byte("x")); !errors.Is(err, errNoBill) {
		t.Errorf("bytes that no request is billed for: %v", err)
	}
	if pass.reusable(netip.MustParseAddr("169.254.169.254")) {
		t.Error("a connection to a metadata address may be used again")
	}
}
