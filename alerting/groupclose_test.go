package alerting_test

import (
	"fmt"
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

// A policyWorld is a running correlator whose policy a test may change, with
// the alert lines that it wrote.
type policyWorld struct {
	*running
	mu     sync.Mutex
	policy *allowlists.Policy
	lines  []alerting.Event
}

// poolAllowing makes a policy with one pool, build, and an allow list of the lines given.
func poolAllowing(t *testing.T, mode string, lines ...string) *allowlists.Policy {
	t.Helper()
	text := "pools:\n  build:\n    mode: " + mode + "\n    sources: [10.20.0.0/24]\n    allow: [" + strings.Join(lines, ", ") + "]\n"
	file, report := allowlists.Load([]allowlists.Source{{Name: "sallyport.yaml", Text: []byte(text)}}, func(string) (string, bool) { return "", false }, time.Now())
	if file == nil {
		t.Fatal(report)
	}
	return file.Policy
}

// underPolicy runs a correlator with a webhook, in a bubble of synctest.
func underPolicy(t *testing.T, store alerting.Store) *policyWorld {
	w := &policyWorld{policy: poolAllowing(t, "enforce")}
	w.running = runCorrelator(t, alerting.CorrelatorSetup{
		Alerts: toWebhook(), Store: store,
		Policy: func() *allowlists.Policy { w.mu.Lock(); defer w.mu.Unlock(); return w.policy },
		Emit:   func(e alerting.Event) { w.mu.Lock(); defer w.mu.Unlock(); w.lines = append(w.lines, e) },
	}, nil)
	return w
}

// reload puts another policy in force and says so.
func (w *policyWorld) reload(p *allowlists.Policy) {
	w.mu.Lock()
	w.policy = p
	w.mu.Unlock()
	w.Take(now(alerting.Event{Kind: alerting.KindSystem, Event: alerting.SystemReloaded}))
}

// at gives a connection the address that was judged.
func at(ip string) func(*alerting.Event) {
	return func(e *alerting.Event) { e.IP = netip.MustParseAddr(ip) }
}

// closings are the alert lines that say that a group is closed.
func (w *policyWorld) closings() (closed []alerting.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.lines {
		if e.Closed != "" {
			closed = append(closed, e)
		}
	}
	return closed
}

// TestAReloadClosesWhatItAllows has a case a line: what was refused, what is
// allowed then, and whether that closes the alert.
func TestAReloadClosesWhatItAllows(t *testing.T) {
	name := func(r allowlists.Reason) alerting.Event { return question("mirror.example", reason(r)) }
	many := func(n int) (events []alerting.Event) {
		for i := range n {
			events = append(events, question(fmt.Sprintf("h%02d.mirror.example", i)))
		}
		return events
	}
	for _, c := range []struct {
		what    string
		refused []alerting.Event
		mode    string
		allow   []string
		closes  bool
	}{
		{"a name", many(1), "enforce", []string{`"*.mirror.example"`}, true},
		{"another name", many(1), "enforce", []string{"other.example"}, false},
		{"a name that an audit lets pass", many(1), "audit", nil, false},
		{"a name and its connection", []alerting.Event{name(allowlists.NotInAllowlist), connect("mirror.example", 443)}, "enforce", []string{"mirror.example"}, true},
		{"a name, but another port of it", []alerting.Event{name(allowlists.NotInAllowlist), connect("mirror.example", 22)}, "enforce", []string{"mirror.example"}, false},
		{"a name, but a port of it that came first", []alerting.Event{connect("mirror.example", 22), connect("mirror.example", 443)}, "enforce", []string{"mirror.example"}, false},
		{"a name that was denied by a rule", []alerting.Event{name(allowlists.DeniedByRule)}, "enforce", []string{"mirror.example"}, true},
		{"a name that was denied for its address", []alerting.Event{connect("mirror.example", 443, reason(allowlists.DeniedByRule), at("198.51.100.9"))}, "enforce", []string{"mirror.example"}, false},
		{"a name whose address is special", []alerting.Event{connect("mirror.example", 443, special, at("10.0.0.9"))}, "enforce", []string{"mirror.example"}, false},
		{"a connection without TLS", []alerting.Event{connect("mirror.example", 443, reason(allowlists.NotTLS))}, "enforce", []string{"mirror.example"}, false},
		{"an address", []alerting.Event{connect("203.0.113.9", 443)}, "enforce", []string{"{cidr: 203.0.113.0/24, ports: [443]}"}, true},
		{"an address, but another port of it", []alerting.Event{connect("203.0.113.9", 443), connect("203.0.113.9", 22)}, "enforce", []string{"{cidr: 203.0.113.0/24, ports: [443]}"}, false},
		{"all of a fold", many(8), "enforce", []string{`"*.mirror.example"`}, true},
		{"all of a fold but one", append(many(8), question("evil.example")), "enforce", []string{`"*.mirror.example"`}, false},
		{"a fold of more than it lists", many(40), "enforce", []string{`"*.mirror.example"`}, false},
		{"the way around the resolver", []alerting.Event{question("mirror.example", quiet), connect("203.0.113.9", 443)}, "enforce", []string{"mirror.example", "{cidr: 203.0.113.0/24, ports: [443]}"}, false},
		{"the metadata service", []alerting.Event{connect("169.254.169.254", 80, special)}, "enforce", []string{"{cidr: 169.254.169.254/32, ports: [80]}"}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := underPolicy(t, nil)
				defer w.stop()
				for _, e := range c.refused {
					w.Take(now(e))
				}
				time.Sleep(3 * time.Second)
				w.reload(poolAllowing(t, c.mode, c.allow...))
				time.Sleep(3 * time.Second)
				if closed := len(w.closings()) > 0; closed != c.closes {
					t.Errorf("closed: %v; alerts are %q", closed, summarise(w.Alerts()))
				}
			})
		})
	}
}

// TestALookalikeStaysOpen though its domain is allowed now: who allowed it may
// have been taken in, too.
func TestALookalikeStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := underPolicy(t, nil)
		defer w.stop()
		w.reload(poolAllowing(t, "enforce", "terraform.io"))
		w.Take(now(question("terrafrom.io")))
		time.Sleep(3 * time.Second)
		w.reload(poolAllowing(t, "enforce", "terraform.io", "terrafrom.io"))
		time.Sleep(3 * time.Second)
		if got := summarise(w.Alerts()); got != "lookalike:medium:1" || len(w.closings()) > 0 {
			t.Errorf("alerts are %q, %d of them closed", got, len(w.closings()))
		}
	})
}

// TestAClosedGroupIsToldOfOnceAndCountsOnInANewOne follows one destination
// through refusal, a reload that allows it, and another that does not.
func TestAClosedGroupIsToldOfOnceAndCountsOnInANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := underPolicy(t, nil)
		defer w.stop()
		w.Take(now(question("mirror.example")))
		time.Sleep(3 * time.Second)
		w.Take(now(question("mirror.example"))) // its digest is not due yet
		allowing := poolAllowing(t, "enforce", "mirror.example")
		w.reload(allowing)
		w.reload(allowing)
		time.Sleep(3 * time.Second)
		w.reload(poolAllowing(t, "enforce"))
		w.Take(now(question("mirror.example")))
		time.Sleep(10 * time.Minute)

		_, bodies := w.got()
		posts := readPosts(t, bodies)
		var told []string
		for _, p := range posts {
			for _, a := range p.Alerts {
				told = append(told, fmt.Sprintf("%d of %d, closed %v", a.New, a.Count, a.Closed != ""))
			}
		}
		want := []string{"1 of 1, closed false", "1 of 2, closed true", "1 of 1, closed false"}
		if !slices.Equal(told, want) {
			t.Fatalf("told: %q", told)
		}
		first, closing, later := posts[0].Alerts[0], posts[1].Alerts[0], posts[2].Alerts[0]
		if closing.ID != first.ID || closing.Key != first.Key || later.ID == first.ID || later.Key != first.Key {
			t.Errorf("groups: %+v, %+v, %+v", first, closing, later)
		}
		if lines := w.closings(); len(lines) != 1 || lines[0].Count != 2 || !strings.HasPrefix(lines[0].Closed, "allowed since policy generation ") {
			t.Errorf("lines: %+v", lines)
		}
	})
}

func TestAGroupThatNobodyWasToldOfIsClosedInTheLogOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := underPolicy(t, nil)
		defer w.stop()
		w.Take(now(question("mirror.example"))) // it gathers for half a second
		w.reload(poolAllowing(t, "enforce", "mirror.example"))
		time.Sleep(10 * time.Minute)
		if at, bodies := w.got(); len(at) != 0 {
			t.Errorf("messages: %s", bodies)
		}
		if lines := w.closings(); len(lines) != 1 || lines[0].Count != 1 {
			t.Errorf("lines: %+v", lines)
		}
		if n := w.OpenGroups(); n != 0 {
			t.Errorf("%d groups are left", n)
		}
	})
}

// TestAClosingOutlivesARestart stops between the reload and the message.
func TestAClosingOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &alerting.MemoryStore{}
		one := underPolicy(t, store)
		one.Take(now(question("mirror.example")))
		time.Sleep(3 * time.Second)
		one.stop()
		two := underPolicy(t, store)
		defer two.stop()
		two.policy = poolAllowing(t, "enforce", "mirror.example")
		two.Take(now(started(true)))
		time.Sleep(3 * time.Second)
		_, bodies := two.got()
		posts := readPosts(t, bodies)
		if len(posts) != 1 || posts[0].Alerts[0].Closed != "allowed since the restart" {
			t.Errorf("posts: %+v", posts)
		}
	})
}
