package alerting_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
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
				who, where := client(fmt.Sprintf("10.20.0.%d", intn(40))), inPool(fmt.Sprintf("p%d", intn(3)))
				switch intn(4) {
				case 0:
					who = client(fmt.Sprintf("10.21.0.%d", intn(40))) // nothing was refused to it before
					r.Take(now(connect(fmt.Sprintf("8.0.0.%d", intn(200)), 443, who, where)))
				case 1:
					answer := []string{"0.0.0.0", "10.0.0.9"}[intn(2)]
					r.Take(now(question(fmt.Sprintf("h%d.pages.example", intn(200)), gave(answer), who, where)))
				default:
					r.Take(now(question(fmt.Sprintf("h%d.example", intn(200)), who, where)))
				}
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
		for i := range 60 { // of 60 clients, so that they do not fold
			r.Take(now(connect(fmt.Sprintf("203.0.113.%d", i), 443, client(fmt.Sprintf("10.20.1.%d", i)))))
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

// floods are what a job may do to hide an alert behind others of its pool.
var floods = []struct {
	what  string
	alert string
	of    int
	event func(i int) alerting.Event
}{
	{"refused addresses", alerting.AlertDirectIP, 2000, func(i int) alerting.Event {
		return connect(fmt.Sprintf("8.%d.%d.9", i/250, i%250), 443)
	}},
	{"names that lead into private networks", alerting.AlertRebinding, 5000, func(i int) alerting.Event {
		return question(fmt.Sprintf("n%d.pages.example", i), gave("10.0.0.9"))
	}},
}

// flooded runs a correlator with one Slack sink under a flood, each event of
// which change alters, then takes e, and tells how long its alert took.
func flooded(t *testing.T, flood int, setup alerting.CorrelatorSetup, change func(int, *alerting.Event), e func() alerting.Event, alert string) (took time.Duration) {
	t.Helper()
	took = -1
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, setup, nil)
		defer r.stop()
		for i := range floods[flood].of {
			f := now(floods[flood].event(i))
			change(i, &f)
			r.Take(f)
		}
		time.Sleep(2500 * time.Millisecond)
		begun := time.Now()
		r.Take(now(e()))
		for took < 0 && time.Since(begun) < 20*time.Minute {
			time.Sleep(time.Second)
			at, bodies := r.got()
			if i := slices.IndexFunc(bodies, func(body string) bool { return strings.Contains(body, alert) }); i >= 0 {
				took = at[i].Sub(begun)
			}
		}
	})
	return took
}

func TestAFloodDoesNotHoldUpMetadataAccess(t *testing.T) {
	unfolded := toSlack()
	unfolded.Thresholds = map[string]allowlists.Threshold{"fold_groups": 100_000}
	for _, how := range []struct {
		name   string
		alerts allowlists.Alerts
		change func(int, *alerting.Event)
	}{
		{"of one client", toSlack(), func(int, *alerting.Event) {}},
		{"of unknown clients", toSlack(), func(_ int, e *alerting.Event) { e.Client = netip.Addr{} }},
		{"that does not fold", unfolded, func(int, *alerting.Event) {}},
		{"of a client each", toSlack(), func(i int, e *alerting.Event) {
			e.Client = netip.AddrFrom4([4]byte{10, 30, byte(i >> 8), byte(i)})
		}},
	} {
		for i, flood := range floods {
			t.Run(flood.what+" "+how.name, func(t *testing.T) {
				t.Parallel()
				metadata := func() alerting.Event { return connect("169.254.169.254", 80, special) }
				took := flooded(t, i, alerting.CorrelatorSetup{Alerts: how.alerts, Groups: 10_000}, how.change, metadata, alerting.AlertMetadataAccess)
				if took < 0 || took > 2*time.Second {
					t.Errorf("the alert came after %s", took)
				}
			})
		}
	}
}

func TestAFloodOfOneKindDoesNotHoldUpAnother(t *testing.T) {
	alerts := toSlack()
	alerts.Thresholds = map[string]allowlists.Threshold{"fold_groups": 100_000}
	for i, flood := range floods {
		t.Run(flood.what, func(t *testing.T) {
			t.Parallel()
			resolver := func() alerting.Event { return question("dns.example", reason(allowlists.ResolverBypass)) }
			took := flooded(t, i, alerting.CorrelatorSetup{Alerts: alerts, Groups: 10_000}, func(int, *alerting.Event) {}, resolver, alerting.AlertForeignResolver)
			if took < 0 || took > 2*time.Second {
				t.Errorf("the alert came after %s", took)
			}
		})
	}
}

// TestAFoldIsToldAtOnce waits until the groups of a client were told, and then
// for the digest that the fold must not wait for.
func TestAFoldIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook()}, nil)
		defer r.stop()
		flood := floods[0]
		for i := range 5 {
			r.Take(now(flood.event(i)))
		}
		time.Sleep(5 * time.Second)
		for i := range 5 {
			r.Take(now(flood.event(i)))
		}
		time.Sleep(5 * time.Second)
		r.Take(now(flood.event(5)))
		time.Sleep(2 * time.Second)
		_, bodies := r.got()
		posts := readPosts(t, bodies)
		if n := newOf(posts); n != 11 {
			t.Errorf("%d findings of 11 are told: %+v", n, posts)
		}
	})
}
