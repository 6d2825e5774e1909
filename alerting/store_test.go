package alerting_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/alerting"
)

func TestTheStoreIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	store, err := alerting.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	info, err := os.Stat(filepath.Join(dir, "alerts.jsonl"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	_, err = alerting.OpenStore(dir)
	if err == nil || !strings.Contains(err.Error(), "another process holds it") {
		t.Errorf("a second owner gets %v", err)
	}
}

func TestStoresKeepWhatIsCommitted(t *testing.T) {
	disk, err := alerting.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, store := range map[string]alerting.Store{"memory": &alerting.MemoryStore{}, "a file": disk} {
		t.Run(name, func(t *testing.T) {
			defer store.Close()
			commit := func(changes ...alerting.Change) {
				t.Helper()
				if err := store.Commit(changes); err != nil {
					t.Fatal(err)
				}
			}
			commit(alerting.Change{Kind: "position", Value: []byte("1")}, alerting.Change{Kind: "group", Key: "a", Value: []byte("2")},
				alerting.Change{Kind: "group", Key: "b", Value: []byte("3")})
			commit(alerting.Change{Kind: "group", Key: "a"}, alerting.Change{Kind: "position", Value: []byte("4")})
			got := ""
			for _, kind := range []string{"position", "group", "message"} {
				if err := store.Load(kind, func(_ string, value []byte) error { got += string(value); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if got != "43" {
				t.Errorf("it holds %q, want 43", got)
			}
		})
	}
}

// A mortal is a Store whose process may be killed: nothing reaches the disk
// after that.
type mortal struct {
	alerting.Store
	mu   sync.Mutex
	dead bool
}

func (m *mortal) Commit(changes []alerting.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errors.New("dead")
	}
	return m.Store.Commit(changes)
}

func (m *mortal) Close() error { return nil }

func (m *mortal) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	m.Store.Close()
}

// TestKillLosesNoAlert kills the correlator at random moments between a
// refusal and the end of its delivery, and starts another on what is left: the
// log, and the store.
func TestKillLosesNoAlert(t *testing.T) {
	t.Parallel()
	for trial := range 50 {
		t.Run(fmt.Sprint(trial), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { killOnce(t, dir, rand.New(rand.NewPCG(1, uint64(trial)))) })
		})
	}
}

func killOnce(t *testing.T, dir string, random *rand.Rand) {
	var mu sync.Mutex
	arrived := map[string]string{} // body by delivery id
	times := 0
	sendTo := func(killed *atomic.Bool) func(*http.Request) (*http.Response, error) {
		return func(q *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(q.Body)
			mu.Lock()
			way, back := time.Duration(random.IntN(200))*time.Millisecond, time.Duration(random.IntN(200))*time.Millisecond
			mu.Unlock()
			time.Sleep(way)
			if killed.Load() {
				return nil, io.EOF
			}
			mu.Lock()
			arrived[q.Header.Get(alerting.HeaderWebhookID)] = string(body)
			times++
			mu.Unlock()
			time.Sleep(back)
			return reply(200), nil
		}
	}
	open := func() *mortal {
		store, err := alerting.OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		return &mortal{Store: store}
	}
	start := alerting.Position{Dev: 1, Inode: 2, Offset: 100}
	log := []alerting.Event{now(question("evil.example")), now(connect("evil.example", 443)), now(connect("203.0.113.9", 443))}
	for i := range log {
		log[i].Pos = alerting.Position{Dev: 1, Inode: 2, Offset: 200 + int64(i)*100}
	}

	var killed atomic.Bool
	store := open()
	one := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Store: store, Send: sendTo(&killed)}, nil)
	one.Begin(start)
	for _, e := range log {
		one.Take(e)
		mu.Lock()
		wait := time.Duration(random.IntN(50)) * time.Millisecond
		mu.Unlock()
		time.Sleep(wait)
	}
	mu.Lock()
	life := time.Duration(random.IntN(2500)) * time.Millisecond
	mu.Unlock()
	time.Sleep(life)
	killed.Store(true)
	store.kill()
	one.stop()

	store = open()
	two := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Store: store, Send: sendTo(new(atomic.Bool))}, nil)
	from, ok := two.Resume()
	if !ok {
		t.Fatal("no place to resume from")
	}
	for _, e := range log {
		if e.Pos.Offset > from.Offset {
			two.Take(e)
		}
	}
	time.Sleep(2 * time.Minute)
	two.stop()
	store.kill()

	bodies := make([]string, 0, len(arrived))
	for _, body := range arrived {
		bodies = append(bodies, body)
	}
	// An alert may come twice, under ids that differ or not; what is told
	// without repeats adds up.
	counts := map[string]int{}
	for _, post := range readPosts(t, bodies) {
		for _, a := range post.Alerts {
			counts[a.Alert] += a.New
		}
	}
	if counts["denied-egress"] != 2 || counts["denied-then-direct"] != 1 {
		t.Errorf("arrived: %v", counts)
	}
	if times > len(arrived)+1 {
		t.Errorf("%d messages for %d", times, len(arrived))
	}
}

func TestAStoreThatDoesNotKeepIsSaidAndHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &mortal{Store: &alerting.MemoryStore{}}
		said := 0
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Store: store, System: func(event string, _ map[string]any) {
			if event == alerting.SystemStateFailed {
				said++
			}
		}}, nil)
		store.kill()
		r.Take(now(question("evil.example")))
		time.Sleep(time.Minute)
		if at, _ := r.got(); len(at) != 1 {
			t.Errorf("%d messages", len(at))
		}
		if said != 1 {
			t.Errorf("it is said %d times", said)
		}
		r.stop()
	})
}

// TestWhatAStoreRefusedIsKeptLater: what is found while nothing can be kept is
// in the store soon after it can, without anything new to keep.
func TestWhatAStoreRefusedIsKeptLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := &alerting.MemoryStore{}
		store := &mortal{Store: kept, dead: true}
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Store: store}, nil)
		defer r.stop()
		r.Take(now(question("evil.example")))
		time.Sleep(time.Minute) // it was told of, and nothing of it is under way
		store.mu.Lock()
		store.dead = false
		store.mu.Unlock()
		time.Sleep(2 * time.Second)
		if groups := recordsOf(t, kept, "group"); len(groups) != 1 {
			t.Errorf("kept: %v", groups)
		}
	})
}

// A slowStore is a Store that takes long to write.
type slowStore struct {
	alerting.Store
	takes time.Duration
}

func (s slowStore) Commit(changes []alerting.Change) error {
	time.Sleep(s.takes)
	return s.Store.Commit(changes)
}

// TestASlowStoreHoldsUpNoDetection holds what the log is told, and how long
// events wait, against a store that takes a minute.
func TestASlowStoreHoldsUpNoDetection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var lines []time.Time
		store := slowStore{&alerting.MemoryStore{}, time.Minute}
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Store: store, Emit: func(alerting.Event) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, time.Now())
		}}, nil)
		defer r.stop()
		r.Take(now(question("evil.example")))
		time.Sleep(10 * time.Second) // it is being kept
		begun := time.Now()
		r.Take(now(connect("169.254.169.254", 80, special)))
		if waited := time.Since(begun); waited > 0 {
			t.Errorf("the event waited %s", waited)
		}
		time.Sleep(2 * time.Second)
		mu.Lock()
		if len(lines) != 2 || lines[1].Sub(begun) > time.Second {
			t.Errorf("alert lines %v after %v", lines, begun)
		}
		mu.Unlock()
		time.Sleep(5 * time.Minute)
		_, bodies := r.got()
		if n := newOf(readPosts(t, bodies)); n != 2 {
			t.Errorf("%d of 2 findings arrived", n)
		}
	})
}

func TestTheSpoolOutlivesAnOrderlyStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &alerting.MemoryStore{}
		one := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Store: store}, func(int) (*http.Response, error) { return reply(503), nil })
		for i := range 3 {
			one.Take(now(connect(fmt.Sprintf("203.0.113.%d", i), 443)))
		}
		time.Sleep(10 * time.Second)
		begun := time.Now()
		one.stop()
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("stopping took %s", took)
		}
		two := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Store: store}, nil)
		time.Sleep(10 * time.Second)
		two.stop()
		_, bodies := two.got()
		if n := newOf(readPosts(t, bodies)); n != 3 {
			t.Errorf("%d of 3 arrive after the restart", n)
		}
	})
}
