package proxy_test

import (
	"io"
	"net"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

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

// TestDrainAnswersNewConnections: as long as a tunnel drains, others are told
// why they have to wait; Hurry ends that.
func TestDrainAnswersNewConnections(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)), limits(func(l *allowlists.Limits) { l.DrainTimeout = time.Hour }))
	stays := w.tunnel("good.example:" + tg.port)
	idle := w.dial() // says nothing, now or later
	w.stop()
	if _, err := idle.Read(make([]byte, 1)); !ended(err) { // draining has begun
		t.Errorf("a silent connection: %v", err)
	}
	for range 3 {
		checkRefusal(t, w, w.dial().connect("good.example:"+tg.port), 503, "shutting-down")
	}
	w.server.Hurry()
	<-w.served
	if _, err := stays.Read(make([]byte, 1)); !ended(err) {
		t.Errorf("a tunnel outlives the server: %v", err)
	}
	w.checkRecords()
}

// TestDrainEndsWithTheLast: refused connections do not make it longer.
func TestDrainEndsWithTheLast(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)), limits(func(l *allowlists.Limits) { l.DrainTimeout = time.Hour }))
	last, idle := w.tunnel("good.example:"+tg.port), w.dial()
	w.stop()
	if _, err := idle.Read(make([]byte, 1)); !ended(err) {
		t.Errorf("a silent connection: %v", err)
	}
	slow := w.dial() // comes during the drain, and says nothing
	_, _ = last.TCPConn.Write([]byte("the end"))
	_ = last.CloseWrite()
	<-w.served
	if _, err := slow.Read(make([]byte, 1)); !ended(err) {
		t.Errorf("a connection outlives the server: %v", err)
	}
}

// TestPolicyThatChangesWhileResolving swaps the policy between the verdict and
// the 2xx.
func TestPolicyThatChangesWhileResolving(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port), rule("web.example:80")))
	lookup := w.resolver.lookup
	w.resolver.lookup = func(h allowlists.Host) (allowlists.Answer, error) {
		w.set(pool())
		w.server.PolicyChanged()
		return lookup(h)
	}
	checkRefusal(t, w, w.dial().connect("good.example:"+tg.port), 403, "not-in-allowlist")
	w.set(pool(rule("web.example:80")))
	checkRefusal(t, w, w.dial().connect("web.example:80"), 403, "not-in-allowlist")
}
