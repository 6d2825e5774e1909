package alerting_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// A server is a real HTTP stand-in for Slack or a webhook.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
	answer   func(n int, w http.ResponseWriter, r *http.Request)
}

func newServer(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *server {
	s := &server{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.requests, s.bodies = append(s.requests, r), append(s.bodies, string(body))
		n := len(s.requests)
		s.mu.Unlock()
		if s.answer != nil {
			s.answer(n, w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// runReal runs a correlator with the real client.
func runReal(t *testing.T, alerts allowlists.Alerts, out io.Writer) alerting.Correlator {
	t.Helper()
	c := newCorrelator(t, alerting.CorrelatorSetup{Alerts: alerts, Log: zerolog.New(out)})
	done := make(chan error, 1)
	ctx, cancel := withCancel()
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func TestTheFirstMessageComesWithinTwoSeconds(t *testing.T) {
	s := newServer(t, nil)
	c := runReal(t, allowlists.Alerts{Slack: allowlists.Slack{WebhookURL: s.URL + "/services/x"}}, io.Discard)
	begun := time.Now()
	c.Take(now(question("evil.example")))
	eventually(t, "the first message", func() bool { return s.count() == 1 })
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	checkSlack(t, []byte(s.bodies[0]))
}

func TestRealRefusalsRetriesAndRedirects(t *testing.T) {
	t.Parallel()
	elsewhere := newServer(t, nil)
	for _, c := range []struct {
		when   string
		answer func(n int, w http.ResponseWriter, r *http.Request)
		least  int
		log    string
	}{
		{"429 with Retry-After", func(n int, w http.ResponseWriter, _ *http.Request) {
			if n == 1 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(429)
			}
		}, 2, "HTTP status 429"},
		{"410", func(_ int, w http.ResponseWriter, _ *http.Request) { http.Error(w, "channel_is_archived", 410) }, 1, "channel_is_archived"},
		{"a redirect", func(_ int, w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, 307) }, 2, "not followed"},
		{"a connection that closes", func(n int, w http.ResponseWriter, _ *http.Request) {
			if n == 1 {
				panic(http.ErrAbortHandler)
			}
		}, 2, "connection closed"},
	} {
		t.Run(c.when, func(t *testing.T) {
			var out safeBuffer
			s := newServer(t, c.answer)
			cor := runReal(t, allowlists.Alerts{Slack: allowlists.Slack{WebhookURL: s.URL + "/services/canary"}}, &out)
			cor.Take(now(connect("203.0.113.9", 443)))
			eventually(t, c.when, func() bool {
				return s.count() >= c.least && strings.Contains(out.text(), c.log)
			})
			if out := out.text(); strings.Contains(out, "canary") || strings.Contains(out, s.URL) {
				t.Errorf("the log holds the URL: %s", out)
			}
		})
	}
	if elsewhere.count() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestAServerThatHangsHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	slack := newServer(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	hook := newServer(t, nil)
	c := runReal(t, allowlists.Alerts{
		Slack: allowlists.Slack{WebhookURL: slack.URL}, Webhook: allowlists.Webhook{URL: hook.URL},
	}, io.Discard)
	begun := time.Now()
	c.Take(now(connect("203.0.113.9", 443)))
	eventually(t, "both got it", func() bool { return slack.count() == 1 && hook.count() == 1 })
	c.Take(now(connect("203.0.113.10", 443)))
	eventually(t, "the webhook gets the next", func() bool { return hook.count() == 2 })
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	close(release)
}

func TestAnEndlessReplyIsNotRead(t *testing.T) {
	s := newServer(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	c := runReal(t, allowlists.Alerts{Webhook: allowlists.Webhook{URL: s.URL}}, io.Discard)
	c.Take(now(connect("203.0.113.9", 443)))
	c.Take(now(connect("203.0.113.10", 443)))
	eventually(t, "the next message", func() bool { return s.count() >= 1 })
}

func TestAWebhookPostIsSigned(t *testing.T) {
	s := newServer(t, nil)
	c := runReal(t, allowlists.Alerts{Webhook: allowlists.Webhook{URL: s.URL, HMACSecret: "secret"}}, io.Discard)
	c.Take(now(connect("203.0.113.9", 443)))
	eventually(t, "the post", func() bool { return s.count() == 1 })
	headers, body := s.requests[0].Header, []byte(s.bodies[0])
	stamp, signature := headers.Get("Sallyport-Timestamp"), headers.Get("Sallyport-Signature")
	verify := func(secret, stamp, signature string, body []byte, at time.Time) error {
		return alerting.VerifyWebhook([]byte(secret), stamp, signature, body, at, 5*time.Minute)
	}
	if err := verify("secret", stamp, signature, body, time.Now()); err != nil || !strings.HasPrefix(signature, "v1=") {
		t.Errorf("%q is not verified: %v", signature, err)
	}
	for what, err := range map[string]error{
		"another secret":    verify("Secret", stamp, signature, body, time.Now()),
		"another body":      verify("secret", stamp, signature, append(body, ' '), time.Now()),
		"another time":      verify("secret", stamp+"0", signature, body, time.Now()),
		"a replay":          verify("secret", stamp, signature, body, time.Now().Add(time.Hour)),
		"no signature":      verify("secret", stamp, "", body, time.Now()),
		"another algorithm": verify("secret", stamp, strings.Replace(signature, "v1", "v0", 1), body, time.Now()),
	} {
		if err == nil {
			t.Errorf("%s is verified", what)
		}
	}
	var post map[string]any
	if err := json.Unmarshal(body, &post); err != nil || post["v"] != 1.0 || post["id"] != headers.Get("Sallyport-Delivery") {
		t.Errorf("%v in %s", err, body)
	}
}

func TestAURLThatIsNoneIsRefusedWithoutShowingIt(t *testing.T) {
	for _, address := range []string{"hooks.canary.example", "ftp://canary", "https://", "http://canary\x7f/"} {
		_, err := alerting.NewCorrelator(alerting.CorrelatorSetup{Alerts: allowlists.Alerts{Webhook: allowlists.Webhook{URL: address}}})
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
