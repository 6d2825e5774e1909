package dnsfilter

import (
	"sync"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// sweeper runs at most one sweep at a time, and one more after it if the
// policy changed meanwhile.
type sweeper struct {
	mu      sync.Mutex // guards what follows, and wg.Add against wg.Wait
	running bool
	again   bool
	closed  bool
	wg      sync.WaitGroup
}

// PolicyChanged has what the policy of now would not allow dropped in the
// background: names in the book, targets of SRV answers, and answers in the
// cache that no pool may have any more. That is for memory's sake: each of them
// is judged again whenever it is used, so nothing depends on when it is gone.
func (s *Server) PolicyChanged() {
	s.answers.clear()
	s.refusals.clear()
	w := &s.sweeper
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.again = w.running; w.running || w.closed {
		return
	}
	w.running = true
	w.wg.Go(func() {
		for {
			s.sweep()
			w.mu.Lock()
			w.running, w.again = w.again && !w.closed, false
			done := !w.running
			w.mu.Unlock()
			if done {
				return
			}
		}
	})
}

// close waits for the sweep that runs.
func (w *sweeper) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wg.Wait()
}

// sweep drops what the policy of now does not allow.
func (s *Server) sweep() {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
		}
	}()
	now := time.Now()
	policy := s.cfg.Policy()
	stands := standsUnder(policy, now)
	s.book.keepOnly(now, stands)
	s.follows.keepOnly(now, stands)
	s.cache.keepOnly(func(key flightKey) bool {
		for _, pool := range policy.Pools() {
			if s.judge(policy, pool, key.name+".", key.qtype, dns.ClassINET, now).decision.Allowed() {
				return true
			}
		}
		return false
	})
}

// standsUnder makes the test whether a pool still is there, and allows a name.
func standsUnder(policy *allowlists.Policy, now time.Time) func(pool string, h allowlists.Host) bool {
	return func(pool string, h allowlists.Host) bool { return policy.Pool(pool).DecideName(h, now).Allowed() }
}
