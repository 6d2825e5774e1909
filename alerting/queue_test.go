package alerting_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// TestCountsAddUpWhateverHappens lets groups open, fold and spill while a sink
// refuses, fails and accepts by chance, and adds up what arrived.
func TestCountsAddUpWhateverHappens(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(seed, 7))
			intn := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			arrived := map[int]bool{}
			r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Groups: 30}, func(n int) (*http.Response, error) {
				time.Sleep(time.Duration(intn(1000)) * time.Millisecond)
				switch intn(4) {
				case 0:
					return reply(429, "Retry-After", "1"), nil
				case 1:
					return reply(503), nil
				}
				mu.Lock()
				defer mu.Unlock()
				arrived[n-1] = true
				return nil, nil
			})
			const total = 2000
			defer r.stop()
			for range total {
				r.Take(now(question(fmt.Sprintf("h%d.example", intn(200)), client(fmt.Sprintf("10.20.0.%d", intn(40))), inPool(fmt.Sprintf("p%d", intn(3))))))
				time.Sleep(time.Duration(intn(50)) * time.Millisecond)
			}
			time.Sleep(time.Hour)
			_, bodies := r.got()
			mu.Lock()
			defer mu.Unlock()
			sum := 0
			for i, post := range readPosts(t, bodies) {
				if arrived[i] {
					sum += newOf([]posted{post})
				}
			}
			if sum != total {
				t.Errorf("seed %d: messages count %d of %d", seed, sum, total)
			}
		})
	}
}

// TestALogWithoutSinksCountsToo adds up the alert lines of a daemon that has
// no sink.
func TestALogWithoutSinksCountsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		lines := map[string]int{}
		n := 0
		r := runCorrelator(t, alerting.CorrelatorSetup{Emit: func(e alerting.Event) {
			mu.Lock()
			defer mu.Unlock()
			n++
			lines[e.Key] = e.Count
		}}, nil)
		for range 5000 {
			r.Take(now(question("evil.example")))
			time.Sleep(10 * time.Millisecond)
		}
		r.stop()
		if lines["denied-egress/build/evil.example"] != 5000 || n > 4 {
			t.Errorf("%d lines: %v", n, lines)
		}
	})
}

func TestAQuietGroupCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook()}, nil)
		defer r.stop()
		r.Take(now(question("evil.example")))
		time.Sleep(29 * time.Minute)
		if r.OpenGroups() != 1 {
			t.Fatal("the group closed before six intervals")
		}
		time.Sleep(5 * time.Minute)
		if r.OpenGroups() != 0 {
			t.Fatal("the group is still open")
		}
		r.Take(now(question("evil.example")))
		time.Sleep(2 * time.Second)
		_, bodies := r.got()
		posts := readPosts(t, bodies)
		if len(posts) != 2 || posts[1].Alerts[0].Repeat || posts[0].Alerts[0].ID == posts[1].Alerts[0].ID {
			t.Errorf("after it closed a new one begins: %+v", posts)
		}
	})
}

func special(e *alerting.Event) { e.Reason = allowlists.SpecialAddress }

func TestAGroupThatBecomesCriticalIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook()}, nil)
		defer r.stop()
		r.Take(now(connect("169.254.169.254", 80, special)))
		time.Sleep(5 * time.Second)
		r.Take(now(connect("169.254.169.254", 80, special, func(e *alerting.Event) { e.Via, e.Method = "http", "GET" })))
		time.Sleep(2 * time.Second)
		_, bodies := r.got()
		posts := readPosts(t, bodies)
		if len(posts) != 2 || posts[1].Alerts[0].Severity != "critical" || posts[1].Alerts[0].ID != posts[0].Alerts[0].ID {
			t.Errorf("posts: %+v", posts)
		}
	})
}

func TestACriticalAlertOvertakesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toSlack()}, nil)
		defer r.stop()
		for i := range 60 {
			r.Take(now(connect(fmt.Sprintf("203.0.113.%d", i), 443)))
		}
		time.Sleep(500 * time.Millisecond)
		r.Take(now(question("evil.example", quiet, inPool("deploy"))))
		r.Take(now(connect("203.0.114.1", 443, inPool("deploy"))))
		begun := time.Now()
		time.Sleep(5 * time.Second)
		at, bodies := r.got()
		for i, body := range bodies {
			if strings.Contains(body, alerting.AlertDeniedThenDirect) {
				if late := at[i].Sub(begun); late > 2*time.Second {
					t.Errorf("it came after %s", late)
				}
				if strings.Contains(body, alerting.AlertDirectIP) {
					t.Error("it shares its message")
				}
				return
			}
		}
		t.Error("it did not come")
	})
}
