package proxy

import (
	"io"
	"net/http"
	"testing"
	"time"

	"sallyport/allowlists"
)

func TestForwardReload(t *testing.T) {
	origin := &echo{}
	b := newBench(t, origin, "a.example:80")
	c := b.dialClient()
	c.do(getA)
	b.allow("a.example:80")
	b.each((*forwarder).policyChanged)
	if status, _ := c.do(getA); status != 200 || b.dials.Load() != 2 {
		t.Errorf("after a reload that allows it: %d with %d dials, want a new connection", status, b.dials.Load())
	}
	within(t, "the end of the connection that the old policy judged", b.ended)
	b.allow("b.example:80")
	b.each((*forwarder).policyChanged)
	within(t, "the end of the connection that waits upstream", b.ended)
	if status, _ := c.do(getA); status != 403 {
		t.Errorf("after a reload that refuses it: %d", status)
	}
	if n := origin.requests.Load(); n != 2 {
		t.Errorf("the origin saw %d requests", n)
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

// TestForwardReloadLeavesNoConnectionBehind: the connection of a request that
// may go on under a new policy does not wait for another.
func TestForwardReloadLeavesNoConnectionBehind(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	b := newBench(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(started)
		<-finish
	}), "a.example:80")
	c := b.dialClient()
	c.send(getA)
	within(t, "the request", started)
	b.allow("a.example:80")
	b.each((*forwarder).policyChanged)
	close(finish)
	if resp, _ := c.response("GET"); resp.StatusCode != 200 {
		t.Errorf("the request in flight: %d", resp.StatusCode)
	}
	within(t, "the end of its connection", b.ended)
}
