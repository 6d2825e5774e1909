package dnsfilter

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/dnsfilter/dnstest"
)

func TestStreamIsSharedAndPipelined(t *testing.T) {
	noLeaks(t)
	zone := dnstest.Zone(t, testAnswer)
	server := dnstest.NewServer(t, zone)
	u := asking(t, upstreamConfig{}, "tcp://"+server.Addr().String())
	wantAddr(t, u)
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() { wantAddr(t, u) })
	}
	wg.Wait()
	if n := server.Packets(); n > maxStreams {
		t.Errorf("%d connections, at most %d are allowed", n, maxStreams)
	}
}

func TestQuestionsDoNotWaitForEachOther(t *testing.T) {
	noLeaks(t)
	u := asking(t, upstreamConfig{}, "tcp://"+outOfOrderServer(t))
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if reply, _, err := ask(t, u, fmt.Sprintf("n%d.example", i)); err != nil || reply.Question[0].Name != fmt.Sprintf("n%d.example.", i) {
				t.Errorf("got %v, %v", reply, err)
			}
		})
	}
	wg.Wait()
}

// outOfOrderServer answers the second question of a connection before the first,
// after a message that answers neither.
func outOfOrderServer(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-done })
	go func() {
		defer close(done)
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		defer raw.Close()
		conn := &dns.Conn{Conn: raw}
		first, err1 := conn.ReadMsg()
		second, err2 := conn.ReadMsg()
		if err1 != nil || err2 != nil {
			return
		}
		stray := new(dns.Msg).SetReply(first)
		stray.Question[0].Name = "forged.example."
		for _, reply := range []*dns.Msg{stray, new(dns.Msg).SetReply(second), new(dns.Msg).SetReply(first)} {
			_ = conn.WriteMsg(reply)
		}
	}()
	return listener.Addr().String()
}

func TestBrokenConnectionIsRetriedOnce(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewTLSServer(t, dnstest.Zone(t, testAnswer), "127.0.0.1")
	u := asking(t, upstreamConfig{RootCAs: server.Roots(), Timeout: 5 * time.Second}, "tls://"+server.Addr().String())
	for range 5 {
		wantAddr(t, u)
		server.CloseConns()
	}
	wantAddr(t, u)
	if s := u.status()[0]; s.LastError != "" {
		t.Errorf("the upstream is blamed for closing an idle connection: %s", s.LastError)
	}
}

func TestServerThatHangsUpAfterEachAnswer(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{HangUp: true})
	u := asking(t, upstreamConfig{}, "tcp://"+server.Addr().String())
	for range 20 {
		wantAddr(t, u)
	}
}

func TestDeadConnectionIsGivenUp(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	u := asking(t, upstreamConfig{Timeout: 400 * time.Millisecond}, "tcp://"+server.Addr().String())
	wantAddr(t, u)
	server.SetFaults(dnstest.Faults{Silent: true})
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Await(func(s *dnstest.Server) bool { return len(s.Queries()) == 2 })
		server.SetFaults(dnstest.Faults{})
	}()
	wantAddr(t, u)
	<-done
	if n := server.Packets(); n != 2 {
		t.Errorf("%d connections, want a second one in place of the dead", n)
	}
}

func TestTLSNameIsPinned(t *testing.T) {
	for name, suffix := range map[string]string{
		"a certificate for another name is refused":          "#other.example",
		"a certificate without the address is refused":       "",
		"a certificate by an unknown authority is refused":   "#dns.example",
		"a certificate for a name below the pin is no match": "#example",
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			server := dnstest.NewTLSServer(t, dnstest.Zone(t, testAnswer), "dns.example")
			cfg := upstreamConfig{RootCAs: server.Roots()}
			if strings.Contains(name, "unknown") {
				cfg.RootCAs = dnstest.NewTLSServer(t, nil, "dns.example").Roots()
			}
			u := asking(t, cfg, "tls://"+server.Addr().String()+suffix)
			if _, _, err := ask(t, u, "www.example"); err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("got %v", err)
			}
			if n := len(server.Queries()); n != 0 {
				t.Errorf("%d questions reached the impostor", n)
			}
		})
	}
}

func TestHTTPSRefusesBadResponses(t *testing.T) {
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
		"is longer than 65535 bytes": body(dnsMessageType, 200, maxMessage+1),
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
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
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
	if _, _, err := ask(t, u, "www.example"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
	if n := len(server.Queries()); n != 0 {
		t.Errorf("%d questions reached the impostor", n)
	}
}
