package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/allowlists"
)

// A pipeGate admits a.example:80 alone, over pipes to an origin in memory.
type pipeGate struct {
	rule   *allowlists.Rule
	origin func(net.Conn)
	all    sync.WaitGroup
	opens  int
}

func (g *pipeGate) admit(_ context.Context, h *head, target allowlists.Target) (passage, error) {
	if target.String() != "a.example:80" || !h.agrees(target) {
		return nil, &allowlists.DeniedError{Decision: allowlists.Decision{Reason: allowlists.NotInAllowlist}}
	}
	return pipePassage{g}, nil
}

func (g *pipeGate) refuse(*head, allowlists.Target, error) {}

type pipePassage struct{ g *pipeGate }

func (p pipePassage) decision() allowlists.Decision {
	return allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed, Rule: p.g.rule}
}
func (p pipePassage) generation() uint64         { return 1 }
func (p pipePassage) reusable(netip.Addr) bool   { return true }
func (p pipePassage) refuse(error)               {}
func (p pipePassage) openMeter() *meter          { return nil }
func (p pipePassage) opened(netip.Addr)          { p.g.opens++ }
func (p pipePassage) still() error               { return nil }
func (p pipePassage) closed(int64, int64, error) {}
func (p pipePassage) answer(error)               {}
func (p pipePassage) dial(context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	p.g.all.Go(func() { defer far.Close(); p.g.origin(far) })
	return near, nil
}

// overPipe runs a forwarder between a client that sends text and an origin,
// and gives what the client receives and how many requests were opened.
func overPipe(text []byte, origin func(net.Conn)) (received []byte, opens int) {
	near, far := net.Pipe()
	gate := &pipeGate{rule: new(allowlists.Rule), origin: origin}
	limits := forwardLimits{headerBytes: 8192, headerTimeout: time.Second, idleTimeout: time.Second}
	f := &forwarder{conn: far, in: newHeadReader(bytes.NewReader(text)), gate: gate, carrier: newCarrier(), limits: limits}
	f.relay = func(_ context.Context, _, upstream net.Conn, _, _ func(int)) error { return upstream.Close() }
	var all sync.WaitGroup
	all.Go(func() { received, _ = io.ReadAll(near) })
	f.serve(context.Background(), nil)
	_ = far.Close()
	all.Wait()
	gate.all.Wait()
	return received, gate.opens
}

// FuzzForwardRequests sends anything, and holds what an origin sees against
// what was judged: every request that arrives was opened, for the allowed host.
func FuzzForwardRequests(f *testing.F) {
	for _, seed := range []string{
		getA + getA,
		"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 40\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n\r\nxx" + getA,
		"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\nx\r\n0\r\nX: y\r\n\r\n" + getA,
		"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: close, Host\r\nUpgrade: h2c\r\n\r\n",
		"GET http://a.example/%2f|//x?y HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET http://b.example/ HTTP/1.0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var mu sync.Mutex
		arrived := 0
		_, opens := overPipe(append(text, "\r\n\n"...), func(conn net.Conn) {
			in := bufio.NewReader(conn)
			for {
				req, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				mu.Lock()
				arrived++
				mu.Unlock()
				if req.Host != "a.example" || req.URL.Host != "" || req.Header.Get("Proxy-Authorization") != "" || req.Header.Get("Upgrade") == "h2c" {
					t.Errorf("the origin sees %s %s, Host %s, %v", req.Method, req.RequestURI, req.Host, req.Header)
				}
				if _, err := io.Copy(io.Discard, req.Body); err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		if arrived > opens {
			t.Errorf("%d requests arrive at the origin, %d were judged", arrived, opens)
		}
	})
}

// FuzzForwardResponse answers anything, and expects the client to see at most
// one response, with nothing behind it and no field of another hop.
func FuzzForwardResponse(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: Keep-Alive, X\r\nX: y\r\nProxy-Authenticate: z\r\n\r\nbody",
	} {
		f.Add([]byte(seed))
	}
	request := strings.Replace(getA, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
	f.Fuzz(func(t *testing.T, answer []byte) {
		received, _ := overPipe([]byte(request), func(conn net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = conn.Write(answer)
			}
		})
		if len(received) == 0 {
			return
		}
		in := bufio.NewReader(bytes.NewReader(received))
		resp, err := http.ReadResponse(in, &http.Request{Method: "GET"})
		if err != nil {
			t.Fatalf("the client gets no response: %v\n%q", err, received)
		}
		for _, name := range []string{"Proxy-Authenticate", "Upgrade", "Keep-Alive"} {
			if resp.Header.Get(name) != "" {
				t.Errorf("the client gets %s: %q", name, resp.Header.Get(name))
			}
		}
		if _, err := io.Copy(io.Discard, resp.Body); err == nil && in.Buffered() > 0 {
			t.Errorf("%d bytes follow the response\n%q", in.Buffered(), received)
		}
	})
}
