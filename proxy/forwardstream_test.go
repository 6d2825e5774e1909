package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
)

// within waits for a channel to give or close.
func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s did not happen", what)
	}
	return v
}

func TestForwardStreamsBothWays(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, "got "+line)
			w.(http.Flusher).Flush()
		}
	}), "a.example:80")
	c := b.dialClient()
	c.send("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n")
	var body *bufio.Reader
	for i := range 3 {
		c.send(fmt.Sprintf("2\r\n%d\n\r\n", i))
		if body == nil {
			resp, err := http.ReadResponse(c.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			body = bufio.NewReader(resp.Body)
		}
		if line, err := body.ReadString('\n'); line != fmt.Sprintf("got %d\n", i) {
			t.Fatalf("line %d comes back as %q, %v", i, line, err)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil {
		t.Errorf("%q follows, %v", rest, err)
	}
	if end := b.phases("close", 1)[0]; end.sent != 6 || end.received != 18 || end.err != nil {
		t.Errorf("the close record is %+v", end)
	}
}

func TestForwardRequestTrailers(t *testing.T) {
	got := make(chan http.Header, 1)
	b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.Trailer
	}), "a.example:80")
	b.dialClient().do("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Proxy-Authorization\r\n\r\n" +
		"1\r\nx\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\nProxy-Authorization: secret\r\nTransfer-Encoding: chunked\r\n\r\n")
	trailer := within(t, "a request", got)
	if trailer.Get("X-Sum") != "1" || trailer.Get("X-Other")+trailer.Get("Proxy-Authorization")+trailer.Get("Transfer-Encoding") != "" {
		t.Errorf("the origin gets the trailers %v", trailer)
	}
}

func TestForwardExpectContinue(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}), "a.example:80")
	c := b.dialClient()
	c.send("PUT http://a.example/yes HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	if line, _ := c.in.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("the client is told %q", line)
	}
	_, _ = c.in.ReadString('\n')
	if status, body := c.do("abc"); status != 200 || body != "abc" {
		t.Errorf("after 100 Continue: %d %q", status, body)
	}
	c.send("PUT http://a.example/no HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	if resp, _ := c.response("PUT"); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("an upload that the origin refuses: %d, close %v", resp.StatusCode, resp.Close)
	}
	c.ended()
}

func TestForwardEarlyResponse(t *testing.T) {
	b := newBench(t, rawOrigin("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"), "a.example:80")
	c := b.dialClient()
	c.send("PUT http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 10))
	resp, body := c.response("PUT")
	if resp.StatusCode != 413 || body != "no" || !resp.Close {
		t.Errorf("%d %q, close %v", resp.StatusCode, body, resp.Close)
	}
	c.send(strings.Repeat("x", 5000) + getA) // part of the body, never a request
	c.ended()
	if opens := b.phases("open", 1); len(opens) != 1 {
		t.Errorf("%d requests were carried", len(opens))
	}
}

func TestForwardUpstreamGoesAwayDuringAnUpload(t *testing.T) {
	b := newBench(t, rawOrigin(""), "a.example:80")
	c := b.dialClient()
	c.send("PUT http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 10))
	if resp, _ := c.response("PUT"); resp.StatusCode != 502 {
		t.Errorf("the client is answered %d", resp.StatusCode)
	}
	if end := b.phases("close", 1)[0]; end.reason != allowlists.UpstreamFailed {
		t.Errorf("the close record is %+v", end)
	}
}

func TestForwardBrokenChunks(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80")
	c := b.dialClient()
	c.send("PUT http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n")
	if resp, _ := c.response("PUT"); resp.StatusCode != 400 {
		t.Errorf("the client is answered %d", resp.StatusCode)
	}
	if end := b.phases("close", 1)[0]; end.reason != allowlists.BadRequest {
		t.Errorf("the close record is %+v", end)
	}
}

func TestForwardClientGoesAway(t *testing.T) {
	for name, leave := range map[string]func(*benchClient){
		"by a reset": func(c *benchClient) { _ = c.SetLinger(0); _ = c.Close() },
		"by an end":  func(c *benchClient) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			arrived, left := make(chan struct{}), make(chan struct{})
			b := newBench(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				close(arrived)
				<-r.Context().Done()
				close(left)
			}), "a.example:80")
			c := b.dialClient()
			c.send(getA)
			within(t, "the request", arrived)
			leave(c)
			within(t, "the end upstream", left)
			if end := b.phases("close", 1)[0]; !errors.Is(end.err, errClientGone) {
				t.Errorf("the close record has %v", end.err)
			}
		})
	}
}

func TestForwardHalfClosedClientGetsItsAnswer(t *testing.T) {
	b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done(): // taken for gone
		case <-time.After(halfCloseGrace / 10):
			_, _ = io.WriteString(w, "ok")
		}
	}), "a.example:80")
	c := b.dialClient()
	c.send(getA)
	_ = c.CloseWrite()
	if resp, body := c.response("GET"); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}
