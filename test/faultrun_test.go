package test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A faultRun is a daemon whose alerts go to a stand-in for Slack while the test
// breaks what it writes to.
// Several tests do that in their ways; what must hold is the same: each name
// that was refused stands in one message or in two.
type faultRun struct {
	*daemon
	s      *slack
	chance *chance
	names  []string // refused, in order
	seen   int      // events that says passes by
}

// newFaultRun takes a daemon that runs. What is left to chance has a seed, which
// SALLYPORT_SEED sets.
func newFaultRun(t *testing.T, d *daemon, s *slack) *faultRun {
	t.Helper()
	return &faultRun{daemon: d, s: s, chance: newChance(t)}
}

// A chance is a source of random numbers for several goroutines.
type chance struct {
	mu   sync.Mutex
	rand *rand.Rand
}

// newChance says its seed, for a test that fails.
func newChance(t *testing.T) *chance {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("SALLYPORT_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SALLYPORT_SEED=%d", seed)
	return &chance{rand: rand.New(rand.NewPCG(seed, 0))}
}

// below is a number from 0 to n-1.
func (c *chance) below(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rand.IntN(n)
}

// pause waits for a time below most.
func (c *chance) pause(most time.Duration) {
	<-time.After(time.Duration(c.below(int(most))))
}

// ask asks for a name that is refused.
func (f *faultRun) ask(name string) {
	f.t.Helper()
	f.names = append(f.names, name)
	if r := connect(f.t, f.proxy, name+":443"); r.code != 403 {
		f.t.Fatal(r.status)
	}
}

// told waits until everything asked for has been told.
func (f *faultRun) told() {
	f.t.Helper()
	for _, name := range f.names {
		eventually(f.t, "an alert for "+name, func() bool { return f.s.mentions(name) > 0 }, f.dump)
	}
}

// killed ends the daemon with kill -9 and starts it again.
func (f *faultRun) killed() {
	f.t.Helper()
	f.kill()
	f.run()
}

// says waits for a system event with a state, behind those seen.
func (f *faultRun) says(what, state string) {
	f.t.Helper()
	f.waitSince(f.seen, what+" "+state, func(e event) bool { return e.text("event") == what && state == stateOf(e) })
}

// shows waits for a line on the metrics page.
func (f *faultRun) shows(line string) {
	f.t.Helper()
	eventually(f.t, line, func() bool { return strings.Contains(f.metrics(), "\n"+line+"\n") }, f.dump)
}

// atMostTwice holds in how many messages each name stands.
func (f *faultRun) atMostTwice() {
	f.t.Helper()
	for _, name := range f.names {
		if n := f.s.mentions(name); n < 1 || n > 2 {
			f.t.Errorf("%s is in %d messages", name, n)
		}
	}
}

// stateOf is what a system event's details call the state.
func stateOf(e event) string {
	details, _ := e["details"].(map[string]any)
	state, _ := details["state"].(string)
	return state
}
