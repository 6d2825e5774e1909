package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// limited gives a rule an upload limit.
func limited(bytes int64) func(*allowlists.Rule) {
	return func(r *allowlists.Rule) { r.UploadLimit = bytes }
}

// A drain is a target that counts what comes, and says so in one byte for every
// whole thousand.
type drain struct {
	*target
	total atomic.Int64
}

func newDrain(t testing.TB) *drain {
	d := &drain{}
	d.target = newTarget(t, func(c *net.TCPConn) {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			before := d.total.Add(int64(n)) - int64(n)
			if acks := (before+int64(n))/1000 - before/1000; acks > 0 {
				_, _ = c.Write(bytes.Repeat([]byte("k"), int(acks)))
			}
			if err != nil {
				return
			}
		}
	})
	return d
}

// sends writes n bytes in pieces and waits until the drain has them all.
func (c *client) sends(n int) {
	c.t.Helper()
	for rest := n; rest > 0; rest -= min(rest, 700) {
		if _, err := c.TCPConn.Write(make([]byte, min(rest, 700))); err != nil {
			c.t.Fatalf("with %d of %d bytes to send: %v", rest, n, err)
		}
	}
	if _, err := io.CopyN(io.Discard, c, int64(n/1000)); err != nil {
		c.t.Fatalf("of %d bytes not all came: %v", n, err)
	}
}

// isCut sends one byte more, which must end the connection with a reset.
func (c *client) isCut() {
	c.t.Helper()
	_, _ = c.TCPConn.Write([]byte("x"))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !ended(err) || err == io.EOF {
		c.t.Errorf("after the limit: %d bytes, %v; want a reset", n, err)
	}
}

// closedByLimit waits for the close with upload-limit and gives it.
func (w *world) closedByLimit() proxy.ConnRecord {
	w.t.Helper()
	return w.wait("the close with upload-limit", func(r proxy.ConnRecord) bool {
		return r.Phase == proxy.PhaseClose && r.Decision.Reason == allowlists.UploadLimit
	})
}

// TestNoByteMoreThanTheLimit sends exactly the limit of a tunnel, all of which
// arrives, and then one byte.
func TestNoByteMoreThanTheLimit(t *testing.T) {
	for _, limit := range []int{1000, 32 << 10, 1_000_000, 5_000_000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			d := newDrain(t)
			w := newWorld(t, pool(rule("good.example:"+d.port, limited(int64(limit)))))
			c := w.tunnel("good.example:" + d.port)
			c.sends(limit)
			c.isCut()
			if rec := w.closedByLimit(); rec.Sent != int64(limit) || rec.Received != int64(limit/1000) || rec.Decision.Verdict != allowlists.Deny || rec.Decision.Rule == nil {
				t.Errorf("closed with %d sent, %d received: %+v", rec.Sent, rec.Received, rec.Decision)
			}
			if n := d.total.Load(); n != int64(limit) {
				t.Errorf("%d bytes arrived, limit %d", n, limit)
			}
			w.checkRecords()
		})
	}
}

// TestBulkIsCutAtTheLimit pours without a pause, as splice carries it.
func TestBulkIsCutAtTheLimit(t *testing.T) {
	const limit = 20_000_001
	d := newDrain(t)
	w := newWorld(t, pool(rule("good.example:"+d.port, limited(limit))))
	c := w.tunnel("good.example:" + d.port)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	for {
		if _, err := c.TCPConn.Write(make([]byte, 1<<20)); err != nil {
			break
		}
	}
	if rec := w.closedByLimit(); rec.Sent != limit {
		t.Errorf("closed with %d sent, want %d", rec.Sent, limit)
	}
	if n := d.total.Load(); n > limit {
		t.Errorf("%d bytes arrived, limit %d", n, limit)
	}
}

// TestEarlyBytesCount: what comes with the CONNECT is under the limit, too, and
// so is what is read before a connection to an address is relayed.
func TestEarlyBytesCount(t *testing.T) {
	d := newDrain(t)
	for says, target := range map[string]string{"a name": "good.example:", "an address": "127.0.0.1:"} {
		t.Run(says, func(t *testing.T) {
			before := d.total.Load()
			w := newWorld(t, pool(rule("good.example:"+d.port, limited(2000)), rule("127.0.0.1/32:"+d.port, limited(2000))))
			c := w.dial()
			to := target + d.port
			_, _ = io.WriteString(c.TCPConn, "CONNECT "+to+" HTTP/1.1\r\nHost: "+to+"\r\n\r\n"+strings.Repeat("x", 2001))
			c.reply("CONNECT")
			if rec := w.closedByLimit(); rec.Sent != 2000 {
				t.Errorf("closed with %d sent", rec.Sent)
			}
			if n := d.total.Load() - before; n > 2000 {
				t.Errorf("%d bytes arrived", n)
			}
		})
	}
}

// TestTheHelloCounts: a ClientHello longer than the limit is cut, redirected or
// asked for.
func TestTheHelloCounts(t *testing.T) {
	d := newDrain(t)
	tlsRule := rule("good.example:"+d.port, requireTLS, limited(100))
	hello := string(helloBytes(t, func(c *tls.Config) { c.ServerName = "good.example" }))
	t.Run("connect", func(t *testing.T) {
		w := newWorld(t, pool(tlsRule))
		_, _ = io.WriteString(w.tunnel("good.example:"+d.port).TCPConn, hello)
		if rec := w.closedByLimit(); rec.Sent != 100 || rec.SNI != "good.example" {
			t.Errorf("closed with %d sent: %+v", rec.Sent, rec)
		}
	})
	t.Run("transparent", func(t *testing.T) {
		g := newGateway(t, pool(tlsRule), map[string]string{"127.0.0.1": "good.example"}, nil)
		_, _ = io.WriteString(g.to("127.0.0.1:"+d.port).TCPConn, hello)
		if rec := g.closedByLimit(); rec.Sent != 100 || rec.Via != proxy.ViaTLS {
			t.Errorf("closed with %d sent: %+v", rec.Sent, rec)
		}
	})
}

// TestParallelConnectionsShareTheHour has many connections of one client send
// at once, more than the limit together: exactly the limit passes.
func TestParallelConnectionsShareTheHour(t *testing.T) {
	const limit, many = 4_000_000, 16
	d := newDrain(t)
	w := newWorld(t, pool(rule("good.example:"+d.port, limited(limit))))
	var all sync.WaitGroup
	for range many {
		c := w.tunnel("good.example:" + d.port)
		all.Go(func() {
			defer c.Close()
			go func() { _, _ = io.Copy(io.Discard, c) }()
			for range 2 * limit / many / 10_000 {
				if _, err := c.TCPConn.Write(make([]byte, 10_000)); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	var sent int64
	w.closedByLimit()
	late := time.Now().Add(patience)
	for sent != limit && time.Now().Before(late) {
		sent = 0
		for _, rec := range w.all() {
			if rec.Phase == proxy.PhaseClose {
				sent += rec.Sent
			}
		}
		<-time.After(5 * time.Millisecond)
	}
	if sent != limit || d.total.Load() > limit {
		t.Errorf("%d bytes sent, %d arrived, limit %d", sent, d.total.Load(), limit)
	}
}

// TestClosedConnectionsCountForAnHour: what a client sent over connections that
// are closed is gone from what the next may send; another client, another host
// and another name of the same address have their own.
func TestClosedConnectionsCountForAnHour(t *testing.T) {
	d := newDrain(t)
	w := newWorld(t, pool(rule("good.example:"+d.port, limited(5000)), rule("*.wild.example:"+d.port, limited(5000))))
	first := w.tunnel("good.example:" + d.port)
	first.sends(3000)
	_ = first.Close()
	w.phase(proxy.PhaseClose)
	second := w.tunnel("good.example:" + d.port)
	second.sends(2000)
	second.isCut()
	w.tunnel("a.wild.example:" + d.port).sends(5000)
	w.tunnel("b.wild.example:" + d.port).sends(5000)
	third := w.tunnel("good.example:" + d.port)
	third.isCut()
	if rec := w.closedByLimit(); !strings.Contains(rec.Err, "within the last hour") {
		t.Errorf("it says %q", rec.Err)
	}
}

// TestAMachineHasOneHour whatever address it comes from.
func TestAMachineHasOneHour(t *testing.T) {
	d := newDrain(t)
	one := netip.MustParseAddr("10.20.0.7")
	var last atomic.Uint32
	w := newWorld(t, pool(rule("good.example:"+d.port, limited(5000))), func(c *proxy.Config) {
		c.Listeners[0].Iface = "lo"
		c.Machine = func(string, netip.Addr) netip.Addr { return one }
		c.Client = func(netip.Addr) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 1, byte(last.Add(1))}) }
	})
	first := w.tunnel("good.example:" + d.port)
	first.sends(5000)
	second := w.tunnel("good.example:" + d.port)
	second.isCut()
	w.closedByLimit()
}

// TestAReloadLimitsOpenTunnels lowers, raises and takes away the limit of
// tunnels that are open, and gives one to a tunnel that had none.
func TestAReloadLimitsOpenTunnels(t *testing.T) {
	d := newDrain(t)
	with := func(limit int64) allowlists.PoolSpec { return pool(rule("good.example:"+d.port, limited(limit))) }
	reload := func(w *world, p allowlists.PoolSpec) { w.set(p); w.server.PolicyChanged() }
	t.Run("lowered below what was sent", func(t *testing.T) {
		w := newWorld(t, with(10_000))
		c := w.tunnel("good.example:" + d.port)
		c.sends(5000)
		reload(w, with(4000))
		if _, err := c.Read(make([]byte, 1)); !ended(err) || err == io.EOF {
			t.Errorf("ended with %v, want a reset", err)
		}
		if rec := w.closedByLimit(); rec.Sent != 5000 {
			t.Errorf("closed with %d sent", rec.Sent)
		}
		w.tunnel("good.example:" + d.port).isCut() // the closed one still counts
	})
	t.Run("lowered to what was sent", func(t *testing.T) {
		w := newWorld(t, with(10_000))
		c := w.tunnel("good.example:" + d.port)
		c.sends(5000)
		reload(w, with(5000))
		c.isCut()
		w.closedByLimit()
	})
	t.Run("raised", func(t *testing.T) {
		w := newWorld(t, with(5000))
		c := w.tunnel("good.example:" + d.port)
		c.sends(5000)
		reload(w, with(6000))
		c.sends(1000)
		c.isCut()
	})
	t.Run("taken away and given", func(t *testing.T) {
		w := newWorld(t, with(5000))
		c := w.tunnel("good.example:" + d.port)
		c.sends(5000)
		reload(w, pool(rule("good.example:"+d.port)))
		c.sends(50_000)
		reload(w, with(56_000))
		c.sends(1000)
		c.isCut()
	})
}

// TestAuditPassesTheLimit and records what enforce had done.
func TestAuditPassesTheLimit(t *testing.T) {
	d := newDrain(t)
	p := pool(rule("good.example:"+d.port, limited(3000)))
	p.Mode = allowlists.Audit
	w := newWorld(t, p)
	for _, want := range []struct {
		sent   int64
		reason allowlists.Reason
	}{{1000, allowlists.Allowed}, {9000, allowlists.AllowedByAudit}} {
		c := w.tunnel("good.example:" + d.port)
		c.sends(int(want.sent))
		_ = c.Close()
		rec := w.wait("a close", func(r proxy.ConnRecord) bool { return r.Phase == proxy.PhaseClose && r.Sent == want.sent })
		if d := rec.Decision; d.Reason != want.reason || d.Verdict != allowlists.Allow || want.reason == allowlists.AllowedByAudit && d.Would != allowlists.UploadLimit {
			t.Errorf("%d bytes: %s, would %s", want.sent, d.Reason, d.Would)
		}
	}
}

// TestThePlainHTTPLimit counts bodies, heads and what follows an upgrade.
func TestThePlainHTTPLimit(t *testing.T) {
	d := newDrain(t)
	web := "web.example:" + d.port
	start := func(t *testing.T) (*world, *client) {
		d.total.Store(0)
		w := newWorld(t, pool(rule(web, limited(100_000))))
		return w, w.dial()
	}
	t.Run("a body", func(t *testing.T) {
		w, c := start(t)
		_, _ = io.WriteString(c.TCPConn, "POST http://"+web+"/ HTTP/1.1\r\nHost: "+web+"\r\nContent-Length: 1000000\r\n\r\n")
		_, _ = c.TCPConn.Write(make([]byte, 1_000_000))
		rec := w.closedByLimit()
		if rec.Sent > 100_000 || rec.Sent < 99_000 || rec.Via != proxy.ViaHTTP {
			t.Errorf("closed with %d sent: %+v", rec.Sent, rec)
		}
	})
	t.Run("a body in chunks", func(t *testing.T) {
		w, c := start(t)
		_, _ = io.WriteString(c.TCPConn, "POST http://"+web+"/ HTTP/1.1\r\nHost: "+web+"\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := "400\r\n" + strings.Repeat("x", 1024) + "\r\n"
		for range 200 {
			if _, err := io.WriteString(c.TCPConn, chunk); err != nil {
				break
			}
		}
		if rec := w.closedByLimit(); rec.Sent > 100_000 {
			t.Errorf("closed with %d sent", rec.Sent)
		}
	})
	t.Run("heads", func(t *testing.T) {
		w, _ := start(t)
		var sent atomic.Int64
		for range 20 {
			c := w.dial()
			n, _ := io.WriteString(c.TCPConn, "GET http://"+web+"/"+strings.Repeat("x", 7000)+" HTTP/1.1\r\nHost: "+web+"\r\n\r\n")
			sent.Add(int64(n))
			w.wait("an open request", func(r proxy.ConnRecord) bool { return r.Phase == proxy.PhaseOpen && r.ClientPort == c.port() })
		}
		w.closedByLimit()
	})
	if n := d.total.Load(); n > 100_000 {
		t.Errorf("%d bytes arrived", n)
	}
}

// port is the client's own.
func (c *client) port() uint16 { return uint16(c.LocalAddr().(*net.TCPAddr).Port) }

// TestTheLimitAfterAnUpgrade: what follows a 101 is a tunnel under the limit.
func TestTheLimitAfterAnUpgrade(t *testing.T) {
	var arrived atomic.Int64
	tg := newTarget(t, func(c *net.TCPConn) {
		buf := make([]byte, 8192)
		n, _ := c.Read(buf)
		arrived.Add(int64(n))
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		n64, _ := io.Copy(io.Discard, c)
		arrived.Add(n64)
	})
	web := "web.example:" + tg.port
	w := newWorld(t, pool(rule(web, limited(50_000))))
	c := w.dial()
	if r := c.send("GET", "GET http://"+web+"/ HTTP/1.1\r\nHost: "+web+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); r.code != 101 {
		t.Fatal(r.line)
	}
	for {
		if _, err := c.TCPConn.Write(make([]byte, 1000)); err != nil {
			break
		}
	}
	rec := w.closedByLimit()
	if rec.Sent > 50_000 || rec.Sent < 49_000 || arrived.Load() > 50_000 {
		t.Errorf("closed with %d sent, %d arrived", rec.Sent, arrived.Load())
	}
}

// TestAStalledUploadStarvesNobody: while one upload does not move, as its
// target reads nothing, another of the same client gets the rest of the hour.
func TestAStalledUploadStarvesNobody(t *testing.T) {
	const limit = 8_000_000
	ctx, release := context.WithCancel(context.Background())
	defer release()
	stuck := newTarget(t, func(*net.TCPConn) { <-ctx.Done() })
	d := newDrain(t)
	w := newWorld(t, pool(rule("good.example:*", limited(limit))))
	stalled := w.tunnel("good.example:" + stuck.port)
	go func() {
		for {
			if _, err := stalled.TCPConn.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	w.wait("the stalled tunnel", func(r proxy.ConnRecord) bool { return r.Phase == proxy.PhaseOpen })
	c := w.tunnel("good.example:" + d.port)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	for {
		if _, err := c.TCPConn.Write(make([]byte, 10_000)); err != nil {
			break
		}
	}
	rec := w.closedByLimit()
	release()
	var sent int64
	_ = stalled.Close()
	w.wait("the other close", func(r proxy.ConnRecord) bool { return r.Phase == proxy.PhaseClose && r.ID != rec.ID })
	for _, r := range w.all() {
		if r.Phase == proxy.PhaseClose {
			sent += r.Sent
		}
	}
	if sent > limit || sent < limit*9/10 {
		t.Errorf("%d bytes of %d were sent, %d of them by the one that moves", sent, limit, rec.Sent)
	}
}
