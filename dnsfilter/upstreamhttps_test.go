package dnsfilter

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"sallyport/dnsfilter/dnstest"
)

func TestHTTPSRefusesBadResponses(t *testing.T) {
	endless := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", dnsMessageType)
			for chunk := make([]byte, 4096); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		})
	}
	body := func(kind string, status int, size int) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", kind)
				w.WriteHeader(status)
				_, _ = w.Write(make([]byte, size))
			})
		}
	}
	moved := func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/dns-query" {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return
			}
			r.URL.Path = "/dns-query"
			inner.ServeHTTP(w, r)
		})
	}
	otherType := func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			inner.ServeHTTP(typed{w}, r)
		})
	}
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"is longer than 65535 bytes": endless,
		"is not of type":             otherType,
		"HTTP status 503":            body(dnsMessageType, 503, 12),
		"HTTP status 307":            moved,
		"another question":           body(dnsMessageType, 200, 12),
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			server := dnstest.NewHTTPSServer(t, dnstest.Zone(t, testAnswer), wrap, "127.0.0.1")
			u := asking(t, upstreamConfig{RootCAs: server.Roots()}, server.URL()+"?token=secret")
			_, _, err := ask(t, u, "www.example")
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
			if text := fmt.Sprint(err, u.status()); strings.Contains(text, "secret") || strings.Contains(text, "dns-query") {
				t.Errorf("the URL shows in %s", text)
			}
		})
	}
}

// typed gives every response the type of a web page.
type typed struct{ http.ResponseWriter }

// Write implements http.ResponseWriter.
func (w typed) Write(b []byte) (int, error) {
	w.Header().Set("Content-Type", "text/html")
	return w.ResponseWriter.Write(b)
}

func TestHTTPSServerWithANameIsFoundByAnotherUpstream(t *testing.T) {
	noLeaks(t)
	zone := dnstest.Zone(t, testAnswer)
	doh := dnstest.NewHTTPSServer(t, zone, nil, "doh.example")
	plain := dnstest.NewServer(t, dnstest.Zone(t, "doh.example. 60 IN CNAME real.example.", "real.example. 60 IN A 127.0.0.1"))
	url := fmt.Sprintf("https://doh.example:%d/dns-query", doh.Addr().Port())
	u := asking(t, upstreamConfig{RootCAs: doh.Roots()}, url, plain.Addr().String())
	for range 3 {
		if from := wantAddr(t, u); !strings.HasPrefix(from, "https://doh.example:") {
			t.Errorf("the answer came from %s", from)
		}
	}
	if u.list[0].transport.(*httpsTransport).http.Proxy != nil {
		t.Error("a proxy would be asked")
	}
	if n := plain.Packets(); n != 2 {
		t.Errorf("the plain upstream got %d questions, want one A and one AAAA", n)
	}
	for _, question := range plain.Queries() {
		if !strings.EqualFold(question.Name, "doh.example.") {
			t.Errorf("the plain upstream was asked for %s", question.Name)
		}
	}
}

func TestHTTPSCertificateMustHoldTheName(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewHTTPSServer(t, dnstest.Zone(t, testAnswer), nil, "dns.example")
	u := asking(t, upstreamConfig{RootCAs: server.Roots()}, server.URL())
	_, _, err := ask(t, u, "www.example")
	if err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "dns-query") {
		t.Errorf("got %v", err)
	}
	if n := len(server.Queries()); n != 0 {
		t.Errorf("%d questions reached the impostor", n)
	}
}

func TestHTTPSAsksManyAtOnce(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewHTTPSServer(t, dnstest.Zone(t, testAnswer), nil, "127.0.0.1")
	u := asking(t, upstreamConfig{RootCAs: server.Roots()}, server.URL())
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() { wantAddr(t, u) })
	}
	wg.Wait()
	transport := u.list[0].transport.(*httpsTransport)
	transport.mu.Lock()
	defer transport.mu.Unlock()
	if n := len(transport.conns); n > maxHTTPSConns {
		t.Errorf("%d connections are left, at most %d are allowed", n, maxHTTPSConns)
	}
}

func TestHTTPSConnectionThatDiedIsReplaced(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewHTTPSServer(t, dnstest.Zone(t, testAnswer), nil, "127.0.0.1")
	u := asking(t, upstreamConfig{RootCAs: server.Roots()}, server.URL())
	for range 5 {
		wantAddr(t, u)
		server.CloseConns()
	}
	wantAddr(t, u)
}
