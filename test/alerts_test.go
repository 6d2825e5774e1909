package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// A slack is a stand-in for Slack's incoming webhooks: it holds every payload
// against Slack's documented limits and keeps it.
type slack struct {
	url string

	mu       sync.Mutex
	messages []slackMessage
	// answer, where set, decides the status of each delivery, numbered from 1.
	answer func(n int, w http.ResponseWriter)
	tries  int
}

type slackMessage struct {
	at   time.Time
	text string // every string of the payload
}

// slackCanary stands in the path of the webhook URL; it may appear nowhere else.
const slackCanary = "T0SECRETCANARY"

func newSlack(t *testing.T) *slack {
	t.Helper()
	s := &slack{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			return // whether we answer
		}
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tries++
		if s.answer != nil {
			if status := (&statusRecorder{ResponseWriter: w}); true {
				s.answer(s.tries, status)
				if status.code >= 300 {
					return
				}
			}
		}
		checkSlackLimits(t, body)
		s.messages = append(s.messages, slackMessage{time.Now(), string(body)})
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	s.url = "http://" + l.Addr().String() + "/services/" + slackCanary
	return s
}

type statusRecorder struct {
	http.ResponseWriter
	code int
}

func (s *statusRecorder) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

func (s *slack) received() []slackMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]slackMessage(nil), s.messages...)
}

// mentions is in how many messages a name stands.
func (s *slack) mentions(name string) (n int) {
	for _, m := range s.received() {
		if strings.Contains(m.text, name) {
			n++
		}
	}
	return n
}

// checkSlackLimits: docs.slack.dev, "Blocks": 50 blocks a message, 3,000
// characters a text object, 150 a header.
func checkSlackLimits(t *testing.T, body []byte) {
	type block struct {
		Type string
		Text struct{ Text string }
	}
	var m struct {
		Blocks      []block
		Attachments []struct{ Blocks []block }
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Errorf("Slack got no JSON: %v %q", err, body)
		return
	}
	for _, a := range m.Attachments {
		m.Blocks = append(m.Blocks, a.Blocks...)
	}
	if len(m.Blocks) == 0 || len(m.Blocks) > 50 {
		t.Errorf("%d blocks", len(m.Blocks))
	}
	for _, b := range m.Blocks {
		limit := 3000
		if b.Type == "header" {
			limit = 150
		}
		if len([]rune(b.Text.Text)) > limit {
			t.Errorf("a %s of %d characters", b.Type, len(b.Text.Text))
		}
	}
}

// deliverTo has a daemon deliver to s, from the next write and start on.
func (d *daemon) deliverTo(s *slack) {
	d.env = append(d.env, "TEST_SLACK="+s.url)
	d.extra += fmt.Sprintf("\nalerts: {state_dir: %s, slack: {webhook_url: \"${TEST_SLACK}\"}}\n", d.path("state"))
}

const alertPools = `
  build:
    sources: [127.0.0.0/8]
    allow: [github.com]
`

// alertDaemon starts a daemon that delivers to s.
func alertDaemon(t *testing.T, s *slack, extra string) *daemon {
	t.Helper()
	d := prepare(t, config{env: []string{"TEST_SLACK=" + s.url}})
	d.extra = fmt.Sprintf("\nalerts: {state_dir: %s, thresholds: {fold_groups: 1000}, slack: {webhook_url: \"${TEST_SLACK}\", min_severity: info}}\n%s", d.path("state"), extra)
	d.write(newZone(t).addr, alertPools)
	d.run()
	return d
}

// TestFirstMessageWithinTwoSeconds of the refusal.
func TestFirstMessageWithinTwoSeconds(t *testing.T) {
	s := newSlack(t)
	d := alertDaemon(t, s, "")
	asked := time.Now()
	r := connect(t, d.proxy, "evil.example:443")
	eventually(t, "the message", func() bool { return len(s.received()) > 0 }, d.dump)
	m := s.received()[0]
	if late := m.at.Sub(asked); late > 2*time.Second {
		t.Errorf("the first message came after %v", late)
	}
	for _, want := range []string{"evil.example", "build", r.header.Get("Sallyport-Id")} {
		if !strings.Contains(m.text, want) {
			t.Errorf("the message lacks %q: %s", want, m.text)
		}
	}
}

// TestRetryStorm sends 10,000 identical refusals in about 10 s: at most two
// messages in the first minute, and no refusal goes uncounted in the log.
func TestRetryStorm(t *testing.T) {
	t.Parallel() // it mostly waits
	s := newSlack(t)
	d := alertDaemon(t, s, "\nlimits: {dns_per_client: 100000}\n")
	const storm = 10_000
	began := time.Now()
	var work sync.WaitGroup
	for range 20 {
		work.Go(func() {
			for range storm / 20 {
				raw, err := net.Dial("tcp", d.proxy)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(raw, "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n")
				_, _ = io.Copy(io.Discard, raw)
				raw.Close()
			}
		})
	}
	work.Wait()
	t.Logf("%d refusals in %v", storm, time.Since(began))
	refused := 0
	for _, e := range d.events() {
		if e.text("kind") == "conn" && e.text("phase") == "refused" {
			refused++
		}
	}
	if refused != storm {
		t.Errorf("%d refusals in the log, want %d", refused, storm)
	}
	// The digest after 30 s carries the rest; then the counts add up.
	deadline := time.Now().Add(45 * time.Second)
	for len(s.received()) < 2 && time.Now().Before(deadline) {
		<-time.After(100 * time.Millisecond)
	}
	messages := s.received()
	if len(messages) != 2 {
		t.Fatalf("%d messages, want the first and one digest", len(messages))
	}
	d.wait("the alert's line that counts them all", func(e event) bool {
		return e.text("alert") == "denied-egress" && e.number("count") == storm
	})
	if !strings.Contains(messages[1].text, "10000") && !strings.Contains(messages[1].text, "10,000") && !strings.Contains(messages[1].text, "9999") {
		t.Errorf("the digest does not say how many: %s", messages[1].text)
	}
	<-time.After(time.Until(began.Add(60 * time.Second)))
	if n := len(s.received()); n > 2 {
		t.Errorf("%d messages in the first minute", n)
	}
}

// TestRetryAfterIsHonoured: Slack says 429 and 3 s; no try comes sooner.
func TestRetryAfterIsHonoured(t *testing.T) {
	s := newSlack(t)
	var first time.Time
	s.answer = func(n int, w http.ResponseWriter) {
		if n == 1 {
			first = time.Now()
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}
	d := alertDaemon(t, s, "")
	connect(t, d.proxy, "evil.example:443")
	eventually(t, "the delivery after 429", func() bool { return len(s.received()) > 0 }, d.dump)
	if early := s.received()[0].at.Sub(first); early < 3*time.Second {
		t.Errorf("tried again after %v, Retry-After was 3 s", early)
	}
}

// TestKilledBetweenRefusalAndDelivery kills the daemon at 50 random moments
// after a refusal: each alert is delivered once or twice, never lost.
func TestKilledBetweenRefusalAndDelivery(t *testing.T) {
	t.Parallel()
	s := newSlack(t)
	f := newFaultRun(t, alertDaemon(t, s, "\n"), s)
	for i := range 50 {
		f.ask(fmt.Sprintf("evil%d.example", i))
		f.chance.pause(1200 * time.Millisecond)
		f.killed()
		if i%10 == 9 {
			f.told()
		}
	}
	f.atMostTwice()
}

// TestTheWebhookURLIsNowhere searches everything a person or program can read
// for the secret of the webhook URL, after each kind of failure.
func TestTheWebhookURLIsNowhere(t *testing.T) {
	s := newSlack(t)
	s.answer = func(n int, w http.ResponseWriter) {
		switch n {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			w.Header().Set("Location", s.url)
			w.WriteHeader(http.StatusFound)
		default:
			w.WriteHeader(http.StatusGone)
		}
	}
	d := alertDaemon(t, s, "")
	connect(t, d.proxy, "evil.example:443")
	eventually(t, "three deliveries", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.tries >= 2 }, d.dump)
	r := connect(t, d.proxy, "evil2.example:443")
	raw, err := os.ReadFile(d.path("events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"the event log": string(raw), "our own messages": d.stderr.String(), "the metrics": d.metrics(), "a refusal": r.body + r.status,
	} {
		if strings.Contains(text, slackCanary) {
			t.Errorf("the webhook URL shows in %s", what)
		}
	}
}
