package proxy_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"sallyport/proxy"
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

// BenchmarkTunnelBytes carries bulk through one tunnel, and through one with an
// upload_limit that is far away. Last: see docs/decisions/0003-connect-outside-goproxy.md.
func BenchmarkTunnelBytes(b *testing.B) {
	for _, limit := range []int64{0, 1 << 60} {
		b.Run(fmt.Sprintf("limited=%v", limit > 0), func(b *testing.B) {
			tg := newTarget(b, nil)
			w := newWorld(b, pool(rule("good.example:"+tg.port, limited(limit))))
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
		})
	}
}

// BenchmarkUpload pours into one tunnel as fast as it takes.
func BenchmarkUpload(b *testing.B) {
	for _, limit := range []int64{0, 1 << 60} {
		b.Run(fmt.Sprintf("limited=%v", limit > 0), func(b *testing.B) {
			tg := newTarget(b, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
			w := newWorld(b, pool(rule("good.example:"+tg.port, limited(limit))))
			c := w.tunnel("good.example:" + tg.port)
			_ = c.SetDeadline(noDeadline)
			chunk := make([]byte, 1<<20)
			b.SetBytes(1 << 20)
			for b.Loop() {
				if _, err := c.TCPConn.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
			_ = c.Close()
		})
	}
}

// BenchmarkPlainGet sends one GET after the other over a kept connection, with
// an answer of 1 kB; the client and the origin do as little as they can. Last:
// see docs/decisions/0015-what-a-plain-request-costs.md.
func BenchmarkPlainGet(b *testing.B) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("x", 1000))
	tg := newTarget(b, func(c *net.TCPConn) {
		for in := make([]byte, 4096); ; {
			if _, err := c.Read(in); err != nil { // a GET comes in one piece
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
	host := "good.example:" + tg.port
	w := newWorld(b, pool(rule(host)), func(cfg *proxy.Config) { cfg.Observe = func(proxy.ConnRecord) {} })
	c := w.dial()
	_ = c.SetDeadline(noDeadline)
	request := []byte("GET http://" + host + "/simple/ HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: b\r\nAccept: */*\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.TCPConn.Write(request)
		for length := -1; length != 0; {
			line, err := c.in.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			length = len(line) - len("\r\n")
		}
		if _, err := c.in.Discard(1000); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
}
