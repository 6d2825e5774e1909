package dnsfilter

import (
	"context"
	"net/netip"
	"sync"
)

// Bounds on questions that wait for upstreams. A pool may hold half of each, so
// that another always finds room, and a client a quarter of its pool's.
const (
	maxWaiting = 4096
	maxTurns   = maxInFlight
)

// account is who a question counts against.
type account struct {
	pool   string
	client netip.Addr // allowlists.Subject.Key
}

// shares counts how much of a bounded thing each pool and client holds. Safe
// for concurrent use; its maps hold only those who hold something.
type shares struct {
	total, perPool, perClient int

	mu      sync.Mutex
	held    int
	pools   map[string]int
	clients map[account]int
}

// newShares divides total: half for a pool, a quarter of that for a client.
func newShares(total int) *shares {
	return &shares{
		total: total, perPool: max(1, total/2), perClient: max(1, total/8),
		pools: make(map[string]int), clients: make(map[account]int),
	}
}

// enter takes one share; false if there is none for this account.
func (s *shares) enter(by account) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held >= s.total || s.pools[by.pool] >= s.perPool || s.clients[by] >= s.perClient {
		return false
	}
	s.held++
	s.pools[by.pool]++
	s.clients[by]++
	return true
}

// leave gives one share back.
func (s *shares) leave(by account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held--
	if s.pools[by.pool]--; s.pools[by.pool] == 0 {
		delete(s.pools, by.pool)
	}
	if s.clients[by]--; s.clients[by] == 0 {
		delete(s.clients, by)
	}
}

// turns is like shares, but makes its users wait: a question whose client or
// pool has its fill upstream is asked when another has ended.
type turns struct {
	perPool, perClient int

	mu      sync.Mutex
	pools   map[string]*turn
	clients map[account]*turn
}

// turn is one account's places, and how many hold or want one.
type turn struct {
	places chan struct{}
	users  int // guarded by turns.mu
}

// newTurns divides total as newShares does.
func newTurns(total int) *turns {
	return &turns{
		perPool: max(1, total/2), perClient: max(1, total/8),
		pools: make(map[string]*turn), clients: make(map[account]*turn),
	}
}

// take waits for a turn of the client and then of its pool; false if ctx ended first.
func (t *turns) take(ctx context.Context, by account) bool {
	client, pool := t.want(by)
	select {
	case client.places <- struct{}{}:
	case <-ctx.Done():
		t.unwant(by)
		return false
	}
	select {
	case pool.places <- struct{}{}:
		return true
	case <-ctx.Done():
		<-client.places
		t.unwant(by)
		return false
	}
}

// giveBack ends a turn that was taken.
func (t *turns) giveBack(by account) {
	t.mu.Lock()
	client, pool := t.clients[by], t.pools[by.pool]
	t.mu.Unlock()
	<-pool.places
	<-client.places
	t.unwant(by)
}

func (t *turns) want(by account) (client, pool *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if client = t.clients[by]; client == nil {
		client = &turn{places: make(chan struct{}, t.perClient)}
		t.clients[by] = client
	}
	if pool = t.pools[by.pool]; pool == nil {
		pool = &turn{places: make(chan struct{}, t.perPool)}
		t.pools[by.pool] = pool
	}
	client.users++
	pool.users++
	return client, pool
}

func (t *turns) unwant(by account) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients[by].users--; t.clients[by].users == 0 {
		delete(t.clients, by)
	}
	if t.pools[by.pool].users--; t.pools[by.pool].users == 0 {
		delete(t.pools, by.pool)
	}
}
