package alerting_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log" //nolint:depguard // to silence it
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/alerting"
)

// A farEnd is a receiver of Slack messages and webhook posts, over TLS on pipes,
// so that a bubble's clock holds for it, with the client that sinks have.
type farEnd struct {
	ill    func(*farEnd, net.Conn) net.Conn // what becomes of a connection; nil: it is served
	until  time.Time                        // when it gets well
	good   tls.Certificate
	roots  *x509.CertPool
	server *http.Server
	conns  chan net.Conn

	mu     sync.Mutex
	hooks  []string // bodies of webhook posts that were taken
	slacks []string // of Slack messages
}

// newFarEnd makes one that is ill for ten minutes.
func newFarEnd(t *testing.T, ill func(*farEnd, net.Conn) net.Conn) *farEnd {
	t.Helper()
	certificate, _ := selfSigned(t)
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	must(t, err)
	f := &farEnd{ill: ill, until: time.Now().Add(10 * time.Minute), good: certificate, roots: x509.NewCertPool(), conns: make(chan net.Conn)}
	f.roots.AddCert(leaf)
	f.server = &http.Server{Handler: f, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = f.server.Serve(f) }()
	return f
}

// dial is the client's way to it.
func (f *farEnd) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	if f.ill != nil && time.Now().Before(f.until) {
		if far = f.ill(f, far); far == nil {
			return near, nil
		}
	} else {
		far = tls.Server(far, f.config(f.good))
	}
	f.conns <- far
	return near, nil
}

func (f *farEnd) config(certificate tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
}

// Accept, Addr and Close are a net.Listener's.
func (f *farEnd) Accept() (net.Conn, error) {
	c, ok := <-f.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (f *farEnd) Addr() net.Addr { return &net.TCPAddr{} }
func (f *farEnd) Close() error   { return nil }

// ServeHTTP takes what comes and answers, unless it is ill with silence.
func (f *farEnd) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	switch {
	case r.Method != http.MethodPost:
	case r.Header.Get(alerting.HeaderWebhookID) != "":
		f.hooks = append(f.hooks, string(body))
	default:
		f.slacks = append(f.slacks, string(body))
	}
	f.mu.Unlock()
	if time.Now().Before(f.until) {
		<-r.Context().Done()
	}
}

// TestTenMinutesOfAWayThatFailsLoseNothing raises alerts while no connection of
// Slack's or the webhook's comes about in one way or another, or is never
// answered: each is told once it is over, at most twice, and the metrics and an
// event say why it was not before.
func TestTenMinutesOfAWayThatFailsLoseNothing(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		cause string
		ill   func(*farEnd, net.Conn) net.Conn
		dial  error // what the client's dial gives after five seconds, instead
	}{
		"no TLS": {cause: "no TLS was spoken", ill: func(_ *farEnd, c net.Conn) net.Conn {
			go func() {
				_, _ = c.Read(make([]byte, 16<<10))
				_, _ = io.WriteString(c, "220 this is not TLS\r\n")
				c.Close()
			}()
			return nil
		}},
		"another's certificate": {cause: "the certificate was not accepted", ill: func(f *farEnd, c net.Conn) net.Conn {
			other, _ := selfSigned(t)
			return tls.Server(c, f.config(other))
		}},
		"closed in the handshake": {cause: "connection closed", ill: func(_ *farEnd, c net.Conn) net.Conn {
			go func() { _, _ = c.Read(make([]byte, 16<<10)); c.Close() }()
			return nil
		}},
		"a handshake that is never answered": {cause: "timed out", ill: func(_ *farEnd, c net.Conn) net.Conn {
			go func() { _, _ = io.Copy(io.Discard, c); c.Close() }()
			return nil
		}},
		"a request that is never answered": {cause: "timed out", ill: func(f *farEnd, c net.Conn) net.Conn {
			return tls.Server(c, f.config(f.good))
		}},
		"a SYN that is never answered": {cause: "timed out", dial: &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}},
		"a port that is shut":          {cause: "connection refused", dial: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFarEnd(t, c.ill)
				dial := f.dial
				if c.dial != nil {
					dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						if time.Now().Before(f.until) {
							time.Sleep(5 * time.Second)
							return nil, c.dial
						}
						return f.dial(ctx, network, address)
					}
				}
				alerts := toWebhook()
				alerts.Slack = toSlack().Slack
				alerts.Webhook.URL, alerts.Slack.WebhookURL = "https://127.0.0.1/hook", "https://127.0.0.1/slack"
				said := newSayings()
				registry := prometheus.NewRegistry()
				r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: alerts, Client: alerting.HTTPClient(dial, f.roots), Registerer: registry, System: said.system}, nil)
				for i := range 10 {
					r.Take(now(connect("203.0.113.9", uint16(1000+i))))
					r.Take(now(question([]string{"a", "b", "c", "d", "e"}[i%5] + ".example")))
					time.Sleep(59 * time.Second)
				}
				for _, sink := range []string{"slack", "webhook"} {
					if up, tries := sinkUp(t, registry, sink), delivered(t, registry, sink, "retried"); up != 0 || tries < 2 {
						t.Errorf("%s: sallyport_alert_sink_up is %v after %v tries", sink, up, tries)
					}
				}
				time.Sleep(40 * time.Minute)
				must(t, r.stop())
				close(f.conns)
				f.server.Close()
				for _, sink := range []string{"slack", "webhook"} {
					if got, want := said.of(sink), "failing "+c.cause+", recovered"; got != want {
						t.Errorf("%s: said %q, want %q", sink, got, want)
					}
					if up := sinkUp(t, registry, sink); up != 1 {
						t.Errorf("%s: sallyport_alert_sink_up is %v in the end", sink, up)
					}
				}
				f.check(t)
			})
		})
	}
}

// check holds what was taken: everything, and nothing three times.
func (f *farEnd) check(t *testing.T) {
	t.Helper()
	all, posts := readPosts(t, f.hooks), map[string]int{} // by id
	for _, post := range all {
		posts[post.ID]++
	}
	counts, sum := findingsIn(all)
	if sum != 20 {
		t.Errorf("the last posts count %d of 20 findings: %v", sum, counts)
	}
	for id, n := range posts {
		if n > 2 {
			t.Errorf("post %s came %d times", id, n)
		}
	}
	messages := map[string]int{}
	for _, body := range f.slacks {
		messages[body]++
	}
	for body, n := range messages {
		if n > 2 {
			t.Errorf("%d times: %s", n, body)
		}
	}
	for group := range counts {
		if !strings.Contains(strings.Join(f.slacks, "\n"), "group "+group) {
			t.Errorf("Slack was not told of group %s", group)
		}
	}
}

// sayings are what the correlator says of its sinks.
type sayings struct {
	mu   sync.Mutex
	said map[string][]string // by sink
}

func newSayings() *sayings { return &sayings{said: make(map[string][]string)} }

// system takes a system event.
func (s *sayings) system(event string, details map[string]any) {
	if event != alerting.SystemSinkFailing {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sink := fmt.Sprint(details["sink"])
	what := fmt.Sprint(details["state"])
	if cause := details["cause"]; cause != nil {
		what += " " + fmt.Sprint(cause)
	}
	s.said[sink] = append(s.said[sink], what)
}

// of is what was said of a sink.
func (s *sayings) of(sink string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.said[sink], ", ")
}

// sinkUp is sallyport_alert_sink_up of a sink.
func sinkUp(t *testing.T, registry *prometheus.Registry, sink string) float64 {
	t.Helper()
	families, err := registry.Gather()
	must(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "sallyport_alert_sink_up" && m.GetLabel()[0].GetValue() == sink {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}
