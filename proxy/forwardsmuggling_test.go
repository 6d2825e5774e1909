package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestForwardSmuggling sends one message that some parser takes for two, and
// counts at the origin.
func TestForwardSmuggling(t *testing.T) {
	const (
		post   = "POST http://a.example/1 HTTP/1.1\r\nHost: a.example\r\n"
		second = "GET /2 HTTP/1.1\r\nHost: a.example\r\n\r\n"
	)
	rows := []struct {
		rule, text string
		arrive     int64
	}{
		{"a length and a coding", post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second, 0},
		{"a coding and a length", post + "Transfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n0\r\n\r\n" + second, 0},
		{"two lengths", post + "Content-Length: 0\r\nContent-Length: 40\r\n\r\n" + second, 0},
		{"a list of lengths", post + "Content-Length: 0, 40\r\n\r\n" + second, 0},
		{"a length with a sign", post + "Content-Length: +40\r\n\r\n" + second, 0},
		{"a length behind a space", post + "Content-Length : 40\r\n\r\n" + second, 0},
		{"a coding behind a space", post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + second, 0},
		{"a folded coding", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + second, 0},
		{"a coding behind a vertical tab", post + "Transfer-Encoding:\x0bchunked\r\nContent-Length: 40\r\n\r\n" + second, 0},
		{"two codings", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + second, 0},
		{"a list of codings", post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + second, 0},
		{"a coding in HTTP/1.0", strings.Replace(post, "1.1", "1.0", 1) + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second, 0},
		{"a header after a bare carriage return", post + "X: y\rContent-Length: 40\r\n\r\n" + second, 0},
		{"a header after a bare line feed", post + "X: y\nContent-Length: 40\r\n\r\n" + second, 0},
		{"a request inside a body", post + "Content-Length: 40\r\n\r\n" + second + "xx", 1},
		{"a request in path form after a body", post + "Content-Length: 0\r\n\r\n" + second, 1},
		{"a request in path form after a GET", "GET http://a.example/1 HTTP/1.1\r\nHost: a.example\r\n\r\n" + second, 1},
		{"a request after the last chunk", post + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second, 1},
		{"a chunk size on a bare line feed", post + "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n" + second, 1},
		{"a bare line feed in a chunk extension", post + "Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n" + second, 1},
		{"a chunk size that is none", post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + second, 1},
		{"a request in a trailer", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n\r\n", 1},
		{"a length in a trailer", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 40\r\n\r\n" + second, 1},
	}
	for _, r := range rows {
		t.Run(r.rule, func(t *testing.T) {
			var paths [3]atomic.Int64
			b := newBench(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				paths[1].Add(1)
				if r.URL.Path == "/2" {
					paths[2].Add(1)
				}
				_, _ = io.Copy(io.Discard, r.Body)
			}), "a.example:80")
			c := b.dialClient()
			c.send(r.text)
			_ = c.CloseWrite()
			_, _ = io.ReadAll(c.in)
			if paths[1].Load() > r.arrive || paths[2].Load() > 0 {
				t.Errorf("the origin saw %d requests, %d of them the smuggled one", paths[1].Load(), paths[2].Load())
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if len(b.notes) == 0 {
				t.Error("no record was left")
			}
		})
	}
}
