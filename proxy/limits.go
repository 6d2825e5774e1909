package proxy

import (
	"container/list"
	"errors"
	"net/netip"
	"sync"
	"time"

	"sallyport/allowlists"
)

// asksFor is how long a pool or client counts as asking after its last
// request for a place, granted or not.
const asksFor = 5 * time.Second

// retryAfter is what a client that met a limit is told to wait, in seconds.
const retryAfter = "2"

var (
	errFull       = errors.New("every place is taken")
	errPoolFull   = errors.New("the pool holds its share while another pool asks")
	errClientFull = errors.New("the client holds its share")
)

// limitCounts are the bounds of DESIGN section 4 that places are given out by.
type limitCounts struct {
	connections          int // of the daemon
	connectionsPerClient int
	dials                int // in flight, of the daemon
}

// limits admits connections and dials. It is safe for concurrent use; every
// call is O(1), and it remembers nothing of who holds no place but the last
// two that asked.
type limits struct {
	connections, dials places
}

// newLimits makes empty tables. now is the clock.
func newLimits(counts limitCounts, now func() time.Time) *limits {
	return &limits{
		connections: newPlaces(counts.connections, counts.connectionsPerClient, now),
		dials:       newPlaces(counts.dials, counts.dials, now),
	}
}

// connection takes a place for one client connection. The pool of sub may be
// "", which counts as a pool. reclaim is called, without a lock and at most
// once, if the place is taken back for a pool or client that has less than its
// share: it must close the connection soon and return at once. It may be nil:
// such a place is never taken back. The error is a limit-exceeded.
func (l *limits) connection(sub allowlists.Subject, reclaim func()) (*lease, error) {
	return l.connections.take(sub, reclaim)
}

// dial takes a place for one dial in flight. The error is a limit-exceeded.
func (l *limits) dial(sub allowlists.Subject) (*lease, error) {
	return l.dials.take(sub, nil)
}

// places is one bounded supply. A pool may hold all of it alone, but half
// while another pool holds or asks; a client all of its pool's share, but a
// quarter while another client of the pool holds or asks.
type places struct {
	max, perClient int
	now            func() time.Time

	mu     sync.Mutex // guards all below, and every holder and lease
	used   int
	pools  map[string]*poolPlaces // those that hold a place
	askers askers[string]
	hog    *poolPlaces // the pool that last grew beyond half, maybe nil
}

// poolPlaces is what one pool holds.
type poolPlaces struct {
	name    string
	used    int
	clients map[netip.Addr]*clientPlaces // those that hold a place
	askers  askers[netip.Addr]
	hog     *clientPlaces // the client that last grew beyond a quarter, maybe nil
	leases  list.List     // of *lease that can be taken back, oldest first
}

// clientPlaces is what one client holds.
type clientPlaces struct {
	key    netip.Addr
	used   int
	leases list.List // of *lease that can be taken back, oldest first
}

// A lease is one place held.
type lease struct {
	from     *places
	pool     *poolPlaces
	client   *clientPlaces
	reclaim  func()
	inPool   *list.Element
	inClient *list.Element
	over     bool
}

func newPlaces(count, perClient int, now func() time.Time) places {
	return places{max: count, perClient: perClient, now: now, pools: make(map[string]*poolPlaces)}
}

// take finds a place for sub, taking one back where another holds too much.
func (p *places) take(sub allowlists.Subject, reclaim func()) (*lease, error) {
	p.mu.Lock()
	got, victim, err := p.admit(sub, reclaim)
	p.mu.Unlock()
	if victim != nil {
		victim.reclaim()
	}
	if err != nil {
		return nil, &allowlists.DeniedError{Decision: allowlists.Decision{Reason: allowlists.LimitExceeded}, Err: err}
	}
	return got, nil
}

// admit is take with the lock held. The victim has lost its place already.
func (p *places) admit(sub allowlists.Subject, reclaim func()) (got, victim *lease, err error) {
	now, key := p.now(), sub.Key()
	p.askers.note(sub.Pool, now)
	pool := p.pools[sub.Pool]
	if pool == nil {
		pool = &poolPlaces{name: sub.Pool, clients: make(map[netip.Addr]*clientPlaces)}
	}
	pool.askers.note(key, now)
	client := pool.clients[key]
	if client == nil {
		client = &clientPlaces{key: key}
	}
	poolShare, clientShare := p.shares(pool, client, now)
	switch {
	case client.used >= min(clientShare, p.perClient):
		return nil, nil, errClientFull
	case pool.used >= poolShare:
		if victim = pool.newestOfHog(clientShare, client); victim == nil {
			return nil, nil, errPoolFull
		}
	case p.used >= p.max:
		if victim = p.newestOfHog(pool); victim == nil {
			return nil, nil, errFull
		}
	}
	if victim != nil {
		victim.end()
	}
	return p.give(pool, client, reclaim), victim, nil
}

// shares says how much the pool may hold, and the client of it.
func (p *places) shares(pool *poolPlaces, client *clientPlaces, now time.Time) (ofPool, ofClient int) {
	ofPool = p.max
	if p.used > pool.used || p.askers.besides(pool.name, now) {
		ofPool = (p.max + 1) / 2
	}
	ofClient = ofPool
	if pool.used > client.used || pool.askers.besides(client.key, now) {
		ofClient = (ofPool + 3) / 4
	}
	return ofPool, ofClient
}

// newestOfHog finds the place to take back from a pool that holds more than
// half: the newest, which has done least. It gives nil if no other pool does.
func (p *places) newestOfHog(asking *poolPlaces) *lease {
	if p.hog == nil || p.hog == asking || p.hog.used <= (p.max+1)/2 {
		return nil
	}
	return newest(&p.hog.leases)
}

// newestOfHog is the same for a client of the pool that holds more than share.
func (pool *poolPlaces) newestOfHog(share int, asking *clientPlaces) *lease {
	if pool.hog == nil || pool.hog == asking || pool.hog.used <= share {
		return nil
	}
	return newest(&pool.hog.leases)
}

func newest(leases *list.List) *lease {
	if last := leases.Back(); last != nil {
		return last.Value.(*lease)
	}
	return nil
}

// give makes the lease and counts it.
func (p *places) give(pool *poolPlaces, client *clientPlaces, reclaim func()) *lease {
	le := &lease{from: p, pool: pool, client: client, reclaim: reclaim}
	p.used++
	pool.used++
	client.used++
	p.pools[pool.name] = pool
	pool.clients[client.key] = client
	if reclaim != nil {
		le.inPool, le.inClient = pool.leases.PushBack(le), client.leases.PushBack(le)
	}
	if pool.used > (p.max+1)/2 {
		p.hog = pool
	}
	if 4*client.used > pool.used {
		pool.hog = client
	}
	return le
}

// release gives the place back. It may be called more than once, and on nil.
func (le *lease) release() {
	if le == nil {
		return
	}
	le.from.mu.Lock()
	defer le.from.mu.Unlock()
	le.end()
}

// end is release with the lock held.
func (le *lease) end() {
	if le.over {
		return
	}
	le.over = true
	p, pool, client := le.from, le.pool, le.client
	p.used--
	pool.used--
	client.used--
	if le.inPool != nil {
		pool.leases.Remove(le.inPool)
		client.leases.Remove(le.inClient)
	}
	if client.used == 0 {
		delete(pool.clients, client.key)
		if pool.hog == client {
			pool.hog = nil
		}
	}
	if pool.used == 0 {
		delete(p.pools, pool.name)
		if p.hog == pool {
			p.hog = nil
		}
	}
}
