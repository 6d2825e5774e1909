package proxy_test

import (
	"io"
	"testing"
)

// BenchmarkTunnelSetup opens a tunnel to loopback, sends one byte each way and
// closes it. Last: see docs/decisions/0003-connect-outside-goproxy.md.
func BenchmarkTunnelSetup(b *testing.B) {
	tg := newTarget(b, nil)
	w := newWorld(b, pool(rule("good.example:"+tg.port)))
	buf := make([]byte, 1)
	for b.Loop() {
		c := w.tunnel("good.example:" + tg.port)
		_, _ = c.TCPConn.Write(buf)
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
}

// BenchmarkTunnelBytes carries bulk through one tunnel.
func BenchmarkTunnelBytes(b *testing.B) {
	tg := newTarget(b, nil)
	w := newWorld(b, pool(rule("good.example:"+tg.port)))
	c := w.tunnel("good.example:" + tg.port)
	_ = c.SetDeadline(noDeadline)
	chunk := make([]byte, 1<<20)
	b.SetBytes(2 << 20) // there and back
	for b.Loop() {
		go func() { _, _ = c.TCPConn.Write(chunk) }()
		if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
}
