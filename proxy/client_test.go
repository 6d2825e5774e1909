package proxy_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A client speaks to the proxy by hand.
type client struct {
	t testing.TB
	*net.TCPConn
	in *bufio.Reader
}

// Read reads what the response reader left, too.
func (c *client) Read(p []byte) (int, error) { return c.in.Read(p) }

// dial connects to the proxy.
func (w *world) dial() *client {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{w.t, conn.(*net.TCPConn), bufio.NewReader(conn)}
}

// A reply is one answer of the proxy, with the status line as it came.
type reply struct {
	line   string
	code   int
	header http.Header
	body   string
}

// send writes text and reads the answer to a request of that method.
func (c *client) send(method, text string) reply {
	c.t.Helper()
	if _, err := io.WriteString(c.TCPConn, text); err != nil {
		c.t.Fatal(err)
	}
	return c.reply(method)
}

func (c *client) reply(method string) reply {
	c.t.Helper()
	peeked, err := c.in.Peek(1)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	_ = peeked
	have, _ := c.in.Peek(c.in.Buffered())
	line, _, _ := strings.Cut(string(have), "\r\n")
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("answer %q: %v", line, err)
	}
	r := reply{line: line, code: resp.StatusCode, header: resp.Header}
	if method != "CONNECT" || resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		r.body = string(body)
	}
	return r
}

// connect asks for a tunnel.
func (c *client) connect(target string) reply {
	c.t.Helper()
	return c.send("CONNECT", "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
}

// tunnel asks for a tunnel that must be given.
func (w *world) tunnel(target string) *client {
	w.t.Helper()
	c := w.dial()
	if r := c.connect(target); r.code != http.StatusOK {
		w.t.Fatalf("CONNECT %s: %s", target, r.line)
	}
	return c
}

// A target is a listener that tunnels lead to.
type target struct {
	port  string
	conns atomic.Int64
}

// newTarget serves each connection with handle; nil echoes.
func newTarget(t testing.TB, handle func(*net.TCPConn)) *target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if handle == nil {
		handle = func(c *net.TCPConn) { _, _ = io.Copy(c, c); _ = c.CloseWrite() }
	}
	tg := &target{port: strconv.Itoa(l.Addr().(*net.TCPAddr).Port)}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tg.conns.Add(1)
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			all.Go(func() {
				handle(conn.(*net.TCPConn))
				_ = conn.Close()
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return tg
}

// ended reports whether a read found the end of a connection, clean or not.
func ended(err error) bool {
	var timeout net.Error
	return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
}
