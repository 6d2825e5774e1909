package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestForwardStripsRequestFields(t *testing.T) {
	seen := make(chan http.Header, 1)
	b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header }), "a.example:80")
	b.dialClient().do("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n" +
		"Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Authenticate: x\r\nProxy-Connection: keep-alive, X-Two\r\n" +
		"Connection: close, X-One , upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" +
		"Keep-Alive: 5\r\nTE: trailers\r\nTrailer: X-T\r\nX-One: 1\r\nX-Two: 2\r\n" +
		"Authorization: Bearer kept\r\nAccept-Encoding: br\r\n\r\n")
	got := <-seen
	for name := range got {
		if name != "Authorization" && name != "Accept-Encoding" {
			t.Errorf("the origin is sent %s: %q", name, got[name])
		}
	}
	if got.Get("Authorization") != "Bearer kept" || got.Get("Accept-Encoding") != "br" {
		t.Errorf("the origin is sent %v", got)
	}
}

func TestForwardStripsResponseFields(t *testing.T) {
	b := newBench(t, rawOrigin("HTTP/1.1 200 OK\r\nProxy-Authenticate: Basic\r\nConnection: X-One\r\nX-One: 1\r\n"+
		"Keep-Alive: 5\r\nUpgrade: h2c\r\nTrailer: X-T\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok"), "a.example:80")
	c := b.dialClient()
	c.send(getA)
	resp, body := c.response("GET")
	resp.Header.Del("Content-Length")
	if len(resp.Header) != 1 || resp.Header.Get("Set-Cookie") != "a=b" || body != "ok" || resp.Close {
		t.Errorf("the client is sent %v %q, close %v", resp.Header, body, resp.Close)
	}
}

// rawOrigin answers every request with the given bytes and closes.
func rawOrigin(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	})
}

// TestForwardResponses sends what an upstream may answer, and looks at the
// bytes that the client gets.
func TestForwardResponses(t *testing.T) {
	const get, get10 = getA, "GET http://a.example/ HTTP/1.0\r\n\r\n"
	const head = "HEAD http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
	rows := []struct{ rule, request, answer, want string }{
		{"a length is kept", get, "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"a length is written in one way", get, "HTTP/1.1 200 OK\r\nContent-Length: 002\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"chunks are chunks", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		{"the end of the connection becomes a last chunk", get, "HTTP/1.0 200 OK\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		{"HTTP/1.0 knows no chunks", get10, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nok"},
		{"HEAD keeps the length", head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		{"HEAD has no body", head, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"},
		{"204 has no body", get, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"304 keeps the length", get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"},
		{"304 without a length has none", get, "HTTP/1.1 304 Not Modified\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n"},
		{"a redirect is the client's to follow", get, "HTTP/1.1 302 Found\r\nLocation: http://b.example/\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://b.example/\r\n\r\n"},
		{"an interim response is not the response", get, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"bytes after the response are dropped", get, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"a carriage return in a value makes no response", get, "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 502 Sallyport: upstream-failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
		{"trailers go on", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"},
		{"a body cut short looks cut short", get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"},
		{"chunks cut short have no last chunk", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"},
		{"two lengths are no response", get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 502 Sallyport: upstream-failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
		{"garbage is no response", get, "garbage\r\n\r\n", "HTTP/1.1 502 Sallyport: upstream-failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
		{"silence is no response", "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n", "", "HTTP/1.1 502 Sallyport: upstream-failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
		{"a switch nobody asked for is none", get, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhidden", "HTTP/1.1 502 Sallyport: upstream-failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
	}
	for _, r := range rows {
		t.Run(r.rule, func(t *testing.T) {
			b := newBench(t, rawOrigin(r.answer), "a.example:80")
			c := b.dialClient()
			c.send(r.request)
			b.phases("close", 1)
			b.drain()
			if got, _ := io.ReadAll(c.in); string(got) != r.want {
				t.Errorf("the client gets\n%q, want\n%q", got, r.want)
			}
		})
	}
}

func TestForwardCutResponseIsAFailure(t *testing.T) {
	b := newBench(t, rawOrigin("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"), "a.example:80")
	c := b.dialClient()
	c.send(getA)
	if end := b.phases("close", 1)[0]; end.reason.String() != "upstream-failed" || end.received != 2 {
		t.Errorf("the close record is %+v", end)
	}
}

func TestCarrierKnowsNoEnvironment(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	b := newBench(t, &echo{}, "a.example:80")
	if status, _ := b.dialClient().do(getA); status != 200 {
		t.Errorf("with proxy variables set: %d", status)
	}
	carrier := newCarrier().(httpOnly).next
	if carrier.Tr.Proxy != nil {
		t.Error("goproxy's transport asks for a proxy")
	}
	for scheme, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"http": carrier.Tr.DialContext, "https": carrier.Tr.DialTLSContext,
	} {
		if _, err := dial(t.Context(), "tcp", "a.example:80"); !errors.Is(err, errNoDial) {
			t.Errorf("goproxy's transport may dial for %s: %v", scheme, err)
		}
	}
	if carrier.Verbose || carrier.ConnectDial != nil || carrier.ConnectDialWithReq != nil || carrier.CertStore != nil || carrier.AllowHTTP2 {
		t.Error("goproxy may log, dial or forge certificates")
	}
}

func TestCarrierTakesNothingButHTTP(t *testing.T) {
	for _, target := range []string{"https://a.example/", "/x"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("goproxy was given %s", target)
				}
			}()
			newCarrier().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", target, nil))
		}()
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("goproxy was given CONNECT")
			}
		}()
		req := httptest.NewRequest("GET", "http://a.example/", nil)
		req.Method = "CONNECT"
		newCarrier().ServeHTTP(httptest.NewRecorder(), req)
	}()
	// Without an exchange there is no way out.
	rec := httptest.NewRecorder()
	newCarrier().ServeHTTP(rec, httptest.NewRequest("GET", "http://a.example/", nil))
	if rec.Code != 500 {
		t.Errorf("a request that nobody judged is answered %d", rec.Code)
	}
	// goproxy itself refuses what would get past the guard above it.
	conn, far := net.Pipe()
	defer far.Close()
	go newCarrier().(httpOnly).next.ServeHTTP(hijackable{conn}, httptest.NewRequest("CONNECT", "a.example:443", nil))
	if line, err := bufio.NewReader(far).ReadString('\n'); line != "" || err == nil {
		t.Errorf("goproxy answers CONNECT with %q, %v", line, err)
	}
}

// hijackable is a ResponseWriter that is nothing but its connection.
type hijackable struct{ net.Conn }

func (hijackable) Header() http.Header { return http.Header{} }
func (hijackable) WriteHeader(int)     {}
func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.Conn, bufio.NewReadWriter(bufio.NewReader(h.Conn), bufio.NewWriter(h.Conn)), nil
}
