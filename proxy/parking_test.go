//go:build linux

package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// parked waits until n tunnels are.
func (w *world) parked(n int) {
	w.t.Helper()
	w.until(fmt.Sprint(n, " tunnels are parked"), func() bool { return w.server.Status().Parked == n })
}

// until waits for what is so soon.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	late := time.After(patience)
	for !is() {
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestIdleTunnelHasNoGoroutine counts those of idle tunnels, of which the
// targets have one each, and has all go on then.
func TestIdleTunnelHasNoGoroutine(t *testing.T) {
	const tunnels = 50
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	before := runtime.NumGoroutine()
	var all []*client
	for range tunnels {
		c := w.tunnel("good.example:" + tg.port)
		_, _ = io.WriteString(c.TCPConn, "x")
		_, _ = io.ReadFull(c, make([]byte, 1))
		all = append(all, c)
	}
	// Goroutines that wait for work go after a while without any.
	w.until("only the targets' goroutines are left", func() bool { return runtime.NumGoroutine()-before-tunnels < 5 })
	for i, c := range all {
		text := fmt.Sprint("hello ", i)
		_, _ = io.WriteString(c.TCPConn, text)
		got := make([]byte, len(text))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
			t.Fatalf("%q, %v", got, err)
		}
		_ = c.Close()
	}
	w.until("every session is over", func() bool { return w.server.Status().Sessions == 0 })
	w.checkRecords()
}

// TestParkedTunnelCarriesOn sends pieces of every size with pauses of about the
// time after which a tunnel is parked, so that bytes come at every moment of it.
func TestParkedTunnelCarriesOn(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)), func(cfg *proxy.Config) { cfg.ParkAfter = 200 * time.Microsecond })
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			c := w.tunnel("good.example:" + tg.port)
			var sent bytes.Buffer
			var sending sync.WaitGroup
			sending.Go(func() {
				for range 40 {
					piece := make([]byte, 1+random.IntN(100)*random.IntN(1000))
					for j := range piece {
						piece[j] = byte(random.Uint32())
					}
					sent.Write(piece)
					_, _ = c.TCPConn.Write(piece)
					<-time.After(time.Duration(random.IntN(3000)) * time.Microsecond)
				}
				_ = c.CloseWrite()
			})
			got, err := io.ReadAll(c)
			sending.Wait()
			if err != nil || !bytes.Equal(got, sent.Bytes()) {
				t.Errorf("tunnel %d: %d bytes came back of %d: %v", i, len(got), sent.Len(), err)
			}
			_ = c.Close()
		})
	}
	all.Wait()
	w.until("every session is over", func() bool { return w.server.Status().Sessions == 0 })
	w.checkRecords()
}

// TestParkedTunnelEnds ends parked tunnels in every way.
func TestParkedTunnelEnds(t *testing.T) {
	left := make(chan struct{})
	for says, test := range map[string]struct {
		limits func(*allowlists.Limits)
		end    func(w *world, c *client)
		reason allowlists.Reason
	}{
		"the client leaves": {end: func(_ *world, c *client) { _ = c.Close() }, reason: allowlists.Allowed},
		"the client resets": {end: func(_ *world, c *client) { _ = c.SetLinger(0); _ = c.Close() }, reason: allowlists.Allowed},
		"the target leaves": {end: func(*world, *client) { left <- struct{}{} }, reason: allowlists.Allowed},
		"the policy changes": {end: func(w *world, _ *client) {
			w.set(pool(rule("other.example:1")))
			w.server.PolicyChanged()
		}, reason: allowlists.PolicyChanged},
		"nothing moves":   {limits: func(l *allowlists.Limits) { l.IdleTimeout = 300 * time.Millisecond }, end: func(*world, *client) {}, reason: allowlists.TimedOut},
		"the server ends": {end: func(w *world, _ *client) { w.stop(); w.server.Hurry() }, reason: allowlists.ShuttingDown},
	} {
		t.Run(says, func(t *testing.T) {
			tg := newTarget(t, func(c *net.TCPConn) {
				_, _ = io.ReadFull(c, make([]byte, 1))
				_, _ = io.WriteString(c, "y")
				gone := make(chan struct{})
				go func() { _, _ = io.Copy(io.Discard, c); close(gone) }()
				select {
				case <-gone:
				case <-left:
					_ = c.Close()
					<-gone
				}
			})
			w := newWorld(t, pool(rule("good.example:"+tg.port)), limits(func(l *allowlists.Limits) {
				if test.limits != nil {
					test.limits(l)
				}
			}))
			c := w.tunnel("good.example:" + tg.port)
			_, _ = io.WriteString(c.TCPConn, "x")
			_, _ = io.ReadFull(c, make([]byte, 1))
			w.parked(1)
			test.end(w, c)
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("the tunnel goes on")
			}
			_ = c.Close()
			closed := w.phase(proxy.PhaseClose)
			if closed.Decision.Reason != test.reason || closed.Sent != 1 || closed.Received != 1 {
				t.Errorf("closed as %v with %d sent and %d received", closed.Decision.Reason, closed.Sent, closed.Received)
			}
			w.checkRecords()
		})
	}
}

// TestHalfClosedTunnelIsParked ends the client's stream and has the target
// speak much later.
func TestHalfClosedTunnelIsParked(t *testing.T) {
	speak := make(chan struct{})
	tg := newTarget(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		<-speak
		_, _ = io.WriteString(c, "late")
	})
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	c := w.tunnel("good.example:" + tg.port)
	_, _ = io.WriteString(c.TCPConn, "early")
	_ = c.CloseWrite()
	w.parked(1)
	close(speak)
	if got, err := io.ReadAll(c); string(got) != "late" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if closed := w.phase(proxy.PhaseClose); closed.Sent != 5 || closed.Received != 4 || !closed.Decision.Allowed() {
		t.Errorf("%+v", closed)
	}
}

// TestBlockedTunnelIsNotParked fills a tunnel whose target does not read, and
// has the target speak before it does.
func TestBlockedTunnelIsNotParked(t *testing.T) {
	speak, read := make(chan struct{}), make(chan struct{})
	tg := newTarget(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "first")
		<-speak
		_, _ = io.WriteString(c, "second")
		<-read
		_, _ = io.Copy(io.Discard, c)
	})
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	c := w.tunnel("good.example:" + tg.port)
	var sending sync.WaitGroup
	sending.Go(func() {
		_, _ = c.TCPConn.Write(make([]byte, 32<<20))
		_ = c.CloseWrite()
	})
	_, _ = io.ReadFull(c, make([]byte, 5))
	<-time.After(50 * time.Millisecond) // by then it is full, mostly; ParkAfter is a small part of it
	close(speak)
	got := make([]byte, 6)
	if _, err := io.ReadFull(c, got); string(got) != "second" || err != nil {
		t.Errorf("while the other way is blocked comes %q, %v", got, err)
	}
	close(read)
	sending.Wait()
	if closed := w.phase(proxy.PhaseClose); closed.Sent != 32<<20 {
		t.Errorf("%d bytes were sent", closed.Sent)
	}
}
