package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/allowlists"
)

// someone is client n of a pool.
func someone(pool string, n int) allowlists.Subject {
	return allowlists.Subject{Pool: pool, Client: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})}
}

// takeAll takes places for sub until it is refused, and says how many.
func takeAll(p *places, sub allowlists.Subject) int {
	n := 0
	for {
		if _, err := p.take(sub, func() {}); err != nil {
			return n
		}
		n++
	}
}

func TestPlacesAlone(t *testing.T) {
	p := newPlaces(16, 16, time.Now)
	if n := takeAll(&p, someone("a", 1)); n != 16 {
		t.Errorf("a lone client gets %d of 16 places", n)
	}
	p = newPlaces(16, 5, time.Now)
	if n := takeAll(&p, someone("a", 1)); n != 5 {
		t.Errorf("connections_per_client 5 gives %d", n)
	}
}

func TestPlacesRefusal(t *testing.T) {
	l := newLimits(limitCounts{connections: 1, connectionsPerClient: 1, dials: 1}, time.Now)
	first, err := l.dial(someone("a", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.dial(someone("a", 1)); reasonOf(err) != allowlists.LimitExceeded {
		t.Errorf("a second dial gives %v", err)
	}
	first.release()
	first.release()
	checkPlaces(t, &l.dials)
	if _, err := l.dial(someone("a", 1)); err != nil {
		t.Errorf("after the release: %v", err)
	}
	if _, err := l.dial(someone("a", 1)); err == nil {
		t.Error("a place released twice counts twice")
	}
}

func TestPlacesSharedBetweenPools(t *testing.T) {
	clock := time.Unix(1000, 0)
	p := newPlaces(16, 16, func() time.Time { return clock })
	if _, err := p.take(someone("b", 9), nil); err != nil {
		t.Fatal(err)
	}
	if n := takeAll(&p, someone("a", 1)); n != 8 {
		t.Errorf("while b holds a place, a gets %d of 16", n)
	}
	p = newPlaces(16, 16, func() time.Time { return clock })
	lone, _ := p.take(someone("b", 9), nil)
	lone.release()
	if n := takeAll(&p, someone("a", 1)); n != 8 {
		t.Errorf("just after b asked, a gets %d of 16", n)
	}
	clock = clock.Add(asksFor)
	if n := takeAll(&p, someone("a", 1)); n != 8 {
		t.Errorf("when b no longer asks, a gets %d more", n)
	}
}

func TestPlacesTakenBack(t *testing.T) {
	p := newPlaces(16, 16, time.Now)
	var closed []int
	for i := range 16 {
		if _, err := p.take(someone("a", 1), func() { closed = append(closed, i) }); err != nil {
			t.Fatal(err)
		}
	}
	if n := takeAll(&p, someone("b", 2)); n != 8 {
		t.Errorf("b gets %d of the 16 places that a holds", n)
	}
	if fmt.Sprint(closed) != "[15 14 13 12 11 10 9 8]" {
		t.Errorf("closed were %v, want the newest first, once each", closed)
	}
	if _, err := p.take(someone("a", 1), nil); err == nil {
		t.Error("a gets a place beyond its half")
	}
}

func TestPlacesTakenBackWithinAPool(t *testing.T) {
	p := newPlaces(16, 16, time.Now)
	if n := takeAll(&p, someone("a", 1)); n != 16 {
		t.Fatalf("a lone client gets %d", n)
	}
	if n := takeAll(&p, someone("a", 2)); n != 4 {
		t.Errorf("a second client gets %d of its pool's 16, want a quarter", n)
	}
}

// TestNoPoolStarvesAnother lets a greedy pool do what it likes at random, and
// asks at every step for one place for a pool that holds less than its half.
func TestNoPoolStarvesAnother(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	clock := time.Unix(1000, 0)
	for round := range 60 {
		size := 2 + rnd.IntN(40)
		p := newPlaces(size, size, func() time.Time { return clock })
		var mine []*lease
		for step := range 200 {
			clock = clock.Add(time.Duration(rnd.IntN(3000)) * time.Millisecond)
			for range rnd.IntN(size + 1) {
				_, _ = p.take(someone("greedy", rnd.IntN(30)), func() {})
			}
			if len(mine) < size/2 {
				le, err := p.take(someone("meek", step), nil)
				if err != nil {
					t.Fatalf("round %d, step %d: with %d of %d places the meek pool is refused: %v", round, step, len(mine), size, err)
				}
				mine = append(mine, le)
			}
			if rnd.IntN(3) == 0 {
				i := rnd.IntN(len(mine))
				mine[i].release()
				mine = append(mine[:i], mine[i+1:]...)
			}
			checkPlaces(t, &p)
		}
	}
}

// checkPlaces adds up what is held.
func checkPlaces(t *testing.T, p *places) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	total := 0
	for _, pool := range p.pools {
		inPool := 0
		for _, c := range pool.clients {
			inPool += c.used
			if c.used <= 0 || c.leases.Len() > c.used {
				t.Fatalf("client %v holds %d places, %d in its list", c.key, c.used, c.leases.Len())
			}
		}
		if inPool != pool.used || pool.used <= 0 {
			t.Fatalf("pool %s counts %d places, its clients %d", pool.name, pool.used, inPool)
		}
		total += inPool
	}
	if total != p.used || total > p.max {
		t.Fatalf("%d places are counted, %d held, of %d", p.used, total, p.max)
	}
}

func TestPlacesRace(t *testing.T) {
	const size = 50
	p := newPlaces(size, 20, time.Now)
	var open atomic.Int64
	var all sync.WaitGroup
	for g := range 32 {
		all.Go(func() {
			sub := someone(string(rune('a'+g%3)), g)
			for range 500 {
				var once sync.Once
				gone := func() { once.Do(func() { open.Add(-1) }) }
				open.Add(1)
				le, err := p.take(sub, gone)
				if err != nil {
					gone()
					continue
				}
				gone()
				le.release()
			}
		})
	}
	all.Wait()
	checkPlaces(t, &p)
	if p.used != 0 || len(p.pools) != 0 || open.Load() != 0 {
		t.Errorf("%d places, %d pools, %d open are left", p.used, len(p.pools), open.Load())
	}
}

func BenchmarkPlaces(b *testing.B) {
	p := newPlaces(16384, 2048, time.Now)
	sub := someone("a", 1)
	for b.Loop() {
		le, _ := p.take(sub, func() {})
		le.release()
	}
}
