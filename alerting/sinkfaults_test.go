package alerting_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/alerting"
)

// A cutter is a receiver on a real socket that takes messages and breaks off
// before it answers while it is ill.
type cutter struct {
	ill   atomic.Bool
	mu    sync.Mutex
	posts []string // delivery id of each, as it was taken
	heads int      // probes
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	if r.Method == http.MethodHead {
		c.heads++
	} else if len(body) > 0 {
		c.posts = append(c.posts, r.Header.Get(alerting.HeaderWebhookID))
	}
	c.mu.Unlock()
	if c.ill.Load() {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close()
		}
	}
}

func (c *cutter) seen() (posts []string, heads int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.posts...), c.heads
}

// TestAReceiverThatBreaksOffGetsAMessageTwiceAtMost lets a receiver take
// messages and cut the connection, several times, before it is well.
func TestAReceiverThatBreaksOffGetsAMessageTwiceAtMost(t *testing.T) {
	t.Parallel()
	c := &cutter{}
	c.ill.Store(true)
	server := httptest.NewServer(c)
	defer server.Close()
	alerts := toWebhook()
	alerts.Webhook.URL = server.URL
	var mu sync.Mutex
	var states []any
	r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: alerts, Direct: true, System: func(event string, details map[string]any) {
		if event == alerting.SystemSinkFailing {
			mu.Lock()
			defer mu.Unlock()
			states = append(states, details["state"])
		}
	}}, nil)
	defer r.stop()
	r.Take(now(connect("203.0.113.9", 443)))
	eventually(t, "three probes", func() bool { _, heads := c.seen(); return heads >= 3 })
	if posts, _ := c.seen(); len(posts) != 1 {
		t.Errorf("%d posts while it broke off", len(posts))
	}
	c.ill.Store(false)
	eventually(t, "it is told again", func() bool { mu.Lock(); defer mu.Unlock(); return len(states) == 2 })
	posts, _ := c.seen()
	if len(posts) != 2 || posts[0] != posts[1] {
		t.Errorf("posts: %v", posts)
	}
	if states[0] != "failing" || states[1] != "recovered" {
		t.Errorf("states: %v", states)
	}
}

// TestARefusedConnectionNeedsNoProbe has nobody listen at first.
func TestARefusedConnectionNeedsNoProbe(t *testing.T) {
	t.Parallel()
	address, listen := shutPort(t)
	alerts := toWebhook()
	alerts.Webhook.URL = "http://" + address
	failed := make(chan struct{}, 8)
	r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: alerts, Direct: true, System: func(string, map[string]any) { failed <- struct{}{} }}, nil)
	defer r.stop()
	r.Take(now(connect("203.0.113.9", 443)))
	<-failed
	c := &cutter{}
	server := &http.Server{Handler: c}
	l := listen()
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	<-failed // recovered
	if posts, heads := c.seen(); len(posts) != 1 || heads != 0 {
		t.Errorf("%d posts, %d probes", len(posts), heads)
	}
}

// TestTenMinutesDownLoseNothing raises an alert a minute while every try fails
// in one way, for ten minutes.
func TestTenMinutesDownLoseNothing(t *testing.T) {
	t.Parallel()
	for what, answer := range map[string]func() (*http.Response, error){
		"500":                     func() (*http.Response, error) { return reply(500), nil },
		"502 with Retry-After":    func() (*http.Response, error) { return reply(502, "Retry-After", "20"), nil },
		"429":                     func() (*http.Response, error) { return reply(429), nil },
		"429 with Retry-After":    func() (*http.Response, error) { return reply(429, "Retry-After", "30"), nil },
		"a redirect":              func() (*http.Response, error) { return reply(302, "Location", "http://other.example"), nil },
		"a closed connection":     func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
		"30 s for each and a 200": func() (*http.Response, error) { time.Sleep(30 * time.Second); return reply(200), nil },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook()}, func(int) (*http.Response, error) {
					if time.Since(begun) < 10*time.Minute {
						return answer()
					}
					return nil, nil
				})
				for i := range 10 {
					r.Take(now(connect("203.0.113.9", uint16(1000+i))))
					r.Take(now(question([]string{"a", "b", "c", "d", "e"}[i%5] + ".example")))
					time.Sleep(time.Minute)
				}
				time.Sleep(20 * time.Minute)
				r.stop()
				_, bodies := r.got()
				if counts, sum := findingsIn(readPosts(t, bodies)); sum != 20 {
					t.Errorf("the last messages count %d of 20 findings: %v", sum, counts)
				}
			})
		})
	}
}

// shutPort binds a loopback port that refuses connections, which nobody else can
// take meanwhile, until listen is called.
func shutPort(t *testing.T) (address string, listen func() net.Listener) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "shut port")
	t.Cleanup(func() { file.Close() })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*unix.SockaddrInet4).Port), func() net.Listener {
		if err := unix.Listen(fd, 16); err != nil {
			t.Fatal(err)
		}
		l, err := net.FileListener(file)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
}

// TestAReceiverThatAnswersNoProbeGetsTheMessageAllTheSame, but not before a
// quarter of an hour.
func TestAReceiverThatAnswersNoProbeGetsTheMessageAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var posts []time.Time
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Deaf: true, Send: func(*http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			posts = append(posts, time.Now())
			return reply(http.StatusGatewayTimeout), nil
		}}, nil)
		defer r.stop()
		r.Take(now(connect("203.0.113.9", 443)))
		time.Sleep(30 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(posts) < 2 || posts[1].Sub(posts[0]) < 15*time.Minute {
			t.Errorf("posts at %v", posts)
		}
	})
}
