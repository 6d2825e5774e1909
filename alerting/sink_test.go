package alerting_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sallyport/alerting"
	"sallyport/allowlists"
)

const canary = "https://hooks.canary.example/services/T0CANARY/B0CANARY/SeCrEtCaNaRy"

// A stand is what messages are sent to: it answers as told and keeps them.
type stand struct {
	mu     sync.Mutex
	answer func(n int) (*http.Response, error) // nil, or gives nil: 200
	at     []time.Time
	bodies []string
}

func (s *stand) send(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.at, s.bodies = append(s.at, time.Now()), append(s.bodies, string(body))
	n := len(s.at)
	s.mu.Unlock()
	if s.answer != nil {
		if response, err := s.answer(n); response != nil || err != nil {
			return response, err
		}
	}
	return reply(200), nil
}

func (s *stand) got() ([]time.Time, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[:len(s.at):len(s.at)], s.bodies[:len(s.bodies):len(s.bodies)]
}

func reply(status int, headers ...string) *http.Response {
	r := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("ok"))}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// toWebhook and toSlack are configurations with one sink.
func toWebhook() allowlists.Alerts {
	return allowlists.Alerts{GroupInterval: 5 * time.Minute, Webhook: allowlists.Webhook{URL: canary, HMACSecret: "secret-canary"}}
}

func toSlack() allowlists.Alerts {
	return allowlists.Alerts{GroupInterval: 5 * time.Minute, Slack: allowlists.Slack{WebhookURL: canary, MinSeverity: "medium"}}
}

// A running correlator, in a bubble of synctest.
type running struct {
	alerting.Correlator
	*stand
	stop  func() error
	begun time.Time
}

func runCorrelator(t *testing.T, setup alerting.CorrelatorSetup, answer func(int) (*http.Response, error)) *running {
	t.Helper()
	s := &stand{answer: answer}
	if setup.Send == nil {
		setup.Send = s.send
	}
	r := &running{Correlator: newCorrelator(t, setup), stand: s, begun: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	return r
}

// now makes an event happen now.
func now(e alerting.Event) alerting.Event {
	e.Time = time.Now()
	return e
}

// posted are the alerts of webhook bodies.
type posted struct {
	ID     string
	Alerts []struct {
		ID, Alert, Severity, Pool string
		Key, Closed               string
		Count, New                int
		Repeat                    bool
	}
}

func readPosts(t *testing.T, bodies []string) []posted {
	t.Helper()
	var posts []posted
	for _, body := range bodies {
		var p posted
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		posts = append(posts, p)
	}
	return posts
}

func newOf(posts []posted) (sum int) {
	for _, p := range posts {
		for _, a := range p.Alerts {
			sum += a.New
		}
	}
	return sum
}

// findingsIn is how many findings posts tell of, by group what the last one says,
// and in all.
func findingsIn(posts []posted) (counts map[string]int, sum int) {
	counts = make(map[string]int)
	for _, p := range posts {
		for _, a := range p.Alerts {
			counts[a.ID] = a.Count
		}
	}
	for _, count := range counts {
		sum += count
	}
	return counts, sum
}

func TestTenThousandRefusalsAreTwoMessagesAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook()}, nil)
		defer r.stop()
		for range 10_000 {
			r.Take(now(connect("evil.example", 443)))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Second)
		at, bodies := r.got()
		if len(at) != 2 {
			t.Fatalf("%d messages in the first minute, want 2", len(at))
		}
		if first := at[0].Sub(r.begun); first > 2*time.Second {
			t.Errorf("the first message came after %s", first)
		}
		if digest := at[1].Sub(r.begun); digest < 30*time.Second || digest > 32*time.Second {
			t.Errorf("the first digest came after %s", digest)
		}
		posts := readPosts(t, bodies)
		if newOf(posts) != 10_000 || posts[1].Alerts[0].Count != 10_000 || !posts[1].Alerts[0].Repeat {
			t.Errorf("counts add up to %d; the digest says %+v", newOf(posts), posts[1])
		}
		if posts[0].Alerts[0].ID != posts[1].Alerts[0].ID {
			t.Error("the digest does not name the group of the first message")
		}
		r.Take(now(connect("evil.example", 443)))
		time.Sleep(6 * time.Minute)
		at, _ = r.got()
		if len(at) != 3 || at[2].Sub(at[1]) < 5*time.Minute {
			t.Errorf("the next digest: %d messages, at %v", len(at), at)
		}
	})
}

func TestRetryAfterIsHonouredAndCountsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook()}, func(n int) (*http.Response, error) {
			if n == 1 {
				return reply(429, "Retry-After", "40"), nil
			}
			return nil, nil
		})
		defer r.stop()
		for range 20 {
			r.Take(now(connect("evil.example", 443)))
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Minute)
		at, bodies := r.got()
		if len(at) != 2 || at[1].Sub(at[0]) < 40*time.Second || at[1].Sub(at[0]) > 45*time.Second {
			t.Fatalf("messages at %v", at)
		}
		if n := newOf(readPosts(t, bodies[1:])); n != 20 {
			t.Errorf("the message after the wait counts %d of 20", n)
		}
	})
}

func TestWhatMayHaveArrivedComesAgainUnderItsID(t *testing.T) {
	for _, c := range []struct {
		when   string
		answer func() (*http.Response, error)
	}{
		{"status 503", func() (*http.Response, error) { return reply(503), nil }},
		{"time-out", func() (*http.Response, error) {
			return nil, &url.Error{Op: "Post", URL: canary, Err: context.DeadlineExceeded}
		}},
		{"closed connection", func() (*http.Response, error) { return nil, &url.Error{Op: "Post", URL: canary, Err: io.EOF} }},
	} {
		t.Run(c.when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook()}, func(n int) (*http.Response, error) {
					if n < 5 {
						return c.answer()
					}
					return nil, nil
				})
				defer r.stop()
				r.Take(now(connect("evil.example", 443)))
				time.Sleep(10 * time.Minute)
				at, bodies := r.got()
				if len(at) != 5 {
					t.Fatalf("%d tries, want 5", len(at))
				}
				posts := readPosts(t, bodies)
				for i := 1; i < 5; i++ {
					least := time.Second << (i - 1) / 2
					if wait := at[i].Sub(at[i-1]); wait < least || wait > 2*least+2*time.Second {
						t.Errorf("try %d came after %s", i+1, wait)
					}
					if posts[i].ID != posts[0].ID {
						t.Errorf("try %d has the id %s, the first had %s", i+1, posts[i].ID, posts[0].ID)
					}
				}
			})
		})
	}
}

func TestAPermanentRefusalStopsTheSinkAndIsToldElsewhere(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 403, 404, 410} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				alerts := toWebhook()
				alerts.Slack = toSlack().Slack
				var slack, hook stand
				var said safeBuffer
				var stopped []map[string]any
				registry := prometheus.NewRegistry()
				r := runCorrelator(t, alerting.CorrelatorSetup{
					Alerts: alerts, Registerer: registry, Log: zerolog.New(&said),
					Send: func(q *http.Request) (*http.Response, error) {
						if q.Header.Get(alerting.HeaderWebhookID) != "" {
							return hook.send(q)
						}
						slack.send(q)
						return reply(status), nil
					},
					System: func(event string, details map[string]any) {
						if event == alerting.SystemSinkStopped {
							stopped = append(stopped, details)
						}
					},
				}, nil)
				defer r.stop()
				r.Take(now(connect("evil.example", 443)))
				time.Sleep(time.Hour)
				if at, _ := slack.got(); len(at) != 1 {
					t.Errorf("%d messages to a sink that has stopped", len(at))
				}
				if said := said.text(); !strings.Contains(said, `"kept_hours":24,`) {
					t.Errorf("nobody can tell how long alerts are kept: %s", said)
				}
				_, bodies := hook.got()
				if all := strings.Join(bodies, ""); !strings.Contains(all, "alerts no longer reach the sink slack") {
					t.Errorf("the other sink was not told: %s", all)
				}
				if len(stopped) != 1 || stopped[0]["sink"] != "slack" {
					t.Errorf("system events: %v", stopped)
				}
				if n := delivered(t, registry, "slack", "failed"); n != 1 {
					t.Errorf("the metric says %v", n)
				}
				time.Sleep(22 * time.Hour)
				if n := r.OpenGroups(); n == 0 {
					t.Error("the alert is no longer kept after 23 hours")
				}
				time.Sleep(3 * time.Hour)
				if n := r.OpenGroups(); n != 0 {
					t.Errorf("%d groups are kept after 26 hours", n)
				}
			})
		})
	}
}

func delivered(t *testing.T, registry *prometheus.Registry, sink, outcome string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if family.GetName() == "sallyport_alert_deliveries_total" && labels["sink"] == sink && labels["outcome"] == outcome {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestAtMostOneMessageASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alerts := toSlack()
		alerts.Slack.Routes = []allowlists.SlackRoute{{Pools: []string{"deploy"}, MinSeverity: "medium", WebhookURL: canary + "2"}}
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: alerts}, nil)
		defer r.stop()
		for i := range 100 {
			pool := []string{"build", "deploy"}[i%2]
			r.Take(now(connect(fmt.Sprintf("203.0.113.%d", i), 443, inPool(pool), client(fmt.Sprintf("10.20.0.%d", i)))))
		}
		time.Sleep(time.Minute)
		at, _ := r.got()
		if len(at) < 13 {
			t.Fatalf("%d messages for 100 groups", len(at))
		}
		for i := 1; i < len(at); i++ {
			if at[i].Sub(at[i-1]) < time.Second {
				t.Errorf("message %d came %s after the one before", i, at[i].Sub(at[i-1]))
			}
		}
	})
}

func TestANoisyPoolDoesNotDelayACriticalAlert(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook()}, nil)
		defer r.stop()
		for i := range 100_000 {
			r.Take(now(question(fmt.Sprintf("n%d.example", i), client(fmt.Sprintf("10.%d.%d.9", i>>8&255, i&255)), inPool("noisy"))))
			if i%1000 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		begun := time.Now()
		r.Take(now(question("evil.example", quiet)))
		r.Take(now(connect("203.0.113.9", 443)))
		time.Sleep(5 * time.Second)
		at, bodies := r.got()
		for i, post := range readPosts(t, bodies) {
			for _, a := range post.Alerts {
				if a.Severity != "critical" {
					continue
				}
				if late := at[i].Sub(begun); late > 2*time.Second {
					t.Errorf("the critical alert came after %s", late)
				}
				return
			}
		}
		t.Error("the critical alert did not come")
	})
}

func TestPoolsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toSlack()}, nil)
		defer r.stop()
		for i := range 60 {
			r.Take(now(connect(fmt.Sprintf("203.0.113.%d", i), 443, inPool("a-noisy"), client(fmt.Sprintf("10.20.1.%d", i)))))
		}
		for i := range 2 {
			r.Take(now(connect(fmt.Sprintf("203.0.114.%d", i), 443, inPool("quiet"))))
		}
		time.Sleep(3 * time.Second)
		_, bodies := r.got()
		if !strings.Contains(bodies[0]+bodies[min(1, len(bodies)-1)], "203.0.114.1:443") {
			t.Error("the quiet pool waits behind all groups of the noisy one")
		}
	})
}

func TestRoutesAndSeverities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alerts := toSlack()
		alerts.Slack.MinSeverity = "high"
		alerts.Slack.Routes = []allowlists.SlackRoute{
			{Pools: []string{"deploy"}, MinSeverity: "medium", WebhookURL: canary + "/deploy"},
			{MinSeverity: "critical", WebhookURL: canary + "/page"},
		}
		r, sent := runWithRoutes(t, alerts)
		r.Take(now(question("medium.example")))
		r.Take(now(connect("203.0.113.1", 443, client("10.20.0.9"))))
		r.Take(now(question("deploy.example", inPool("deploy"))))
		r.Take(now(connect("203.0.113.2", 443)))
		time.Sleep(10 * time.Second)
		r.stop()
		for _, c := range []struct {
			to, has string
			want    bool
		}{
			{"", "203.0.113.1:443", true}, {"", "medium.example was", false}, {"", "denied-then-direct", false},
			{"/deploy", "deploy.example", true}, {"/deploy", "203.0.113", false}, {"/page", "denied-then-direct", true}, {"/page", "direct-ip", false},
		} {
			if got := strings.Contains(sent[c.to], c.has); got != c.want {
				t.Errorf("%q is at the sink %q: %t, want %t", c.has, c.to, got, c.want)
			}
		}
	})
}

// runWithRoutes runs a correlator whose messages come to rest in sent, by the
// path they were posted to; sent may be read once it has stopped.
func runWithRoutes(t *testing.T, alerts allowlists.Alerts) (r *running, sent map[string]string) {
	t.Helper()
	sent = make(map[string]string)
	var mu sync.Mutex
	r = runCorrelator(t, alerting.CorrelatorSetup{Alerts: alerts, Send: func(q *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(q.Body)
		mu.Lock()
		defer mu.Unlock()
		sent[strings.TrimPrefix(q.URL.String(), canary)] += string(body)
		return reply(200), nil
	}}, nil)
	return r, sent
}

// A safeBuffer is a bytes.Buffer that several may write to.
type safeBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *safeBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func TestTheURLAndSecretShowNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out safeBuffer
		alerts := toWebhook()
		alerts.Slack = toSlack().Slack
		alerts.Alertmanager = allowlists.Alertmanager{URL: canary, Token: "token-canary"}
		registry := prometheus.NewRegistry()
		r := runCorrelator(t, alerting.CorrelatorSetup{
			Alerts: alerts, Registerer: registry, Log: zerolog.New(&out),
			Emit: func(e alerting.Event) {
				line, _ := e.MarshalJSON()
				out.Write(line)
			},
			System: func(event string, details map[string]any) { fmt.Fprintln(&out, event, details) },
		}, func(n int) (*http.Response, error) {
			switch n % 5 {
			case 0:
				return nil, &url.Error{Op: "Post", URL: canary, Err: errors.New("dial tcp: lookup hooks.canary.example: " + canary)}
			case 1:
				return nil, &url.Error{Op: "parse", URL: canary, Err: url.EscapeError(canary)}
			case 2:
				return reply(302, "Location", canary), nil
			case 3:
				return &http.Response{StatusCode: 500, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(canary))}, nil
			default:
				return &http.Response{StatusCode: 404, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("canary"))}, nil
			}
		})
		r.Take(now(connect("203.0.113.1", 443)))
		time.Sleep(time.Hour)
		r.stop()
		families, _ := registry.Gather()
		_, bodies := r.got()
		if len(bodies) < 4 {
			t.Fatalf("only %d messages", len(bodies))
		}
		text := strings.ToLower(out.String() + fmt.Sprint(families) + strings.Join(bodies, ""))
		if strings.Contains(text, "canary") {
			t.Errorf("the canary sings: %s", text)
		}
		if !strings.Contains(text, "comes again") {
			t.Error("nothing was logged, so nothing was tested")
		}
	})
}

func withCancel() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}
