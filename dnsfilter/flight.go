package dnsfilter

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// errPanicked is the error of a question during which our own code panicked.
var errPanicked = errors.New("an internal error")

// stalePatience is how long a client waits for upstreams where a stale answer
// would do, RFC 8767 section 5.
const stalePatience = 1800 * time.Millisecond

// result is what the cache or the upstreams gave for one question.
type result struct {
	answer   answer
	upstream string
	cached   bool    // taken from the cache, fresh or stale
	entry    *cached // that it was taken from, where it is fresh
	err      error
}

// flights holds the questions that upstreams are being asked. Askers of the
// same question share one; it ends early only when the last of them has left.
// Their number is bounded by that of askers (maxWaiting), and of those that had
// a stale answer instead and left them behind for a few seconds.
type flights struct {
	mu     sync.Mutex // guards what follows, and wg.Add against wg.Wait
	byKey  map[flightKey]*flight
	closed bool
	wg     sync.WaitGroup
}

// flight is one question under way.
type flight struct {
	done   chan struct{} // closed once result stands
	result result
	ctx    context.Context // ends with the flight, and when nobody waits for it
	cancel context.CancelFunc
	askers int // guarded by flights.mu
}

// obtain answers a question from the cache or from upstream, on the account of
// one pool and client. The name has been allowed; admit has the last word before
// it goes upstream. If ctx ends first, its error comes back, and others who wait
// for the same answer go on waiting.
func (s *Server) obtain(ctx context.Context, key flightKey, by account, admit func() error) result {
	if a, entry := s.cache.get(key, time.Now()); entry != nil {
		return result{answer: a, upstream: entry.upstream, cached: true, entry: entry}
	}
	if !s.waiting.enter(by) {
		return result{err: errLimit}
	}
	defer s.waiting.leave(by)
	if err := admit(); err != nil {
		return result{err: err}
	}
	f, begun := s.join(key)
	if f == nil {
		return result{err: errUpstreamsClosed}
	}
	var patience <-chan time.Time // never, unless there is a stale answer
	if s.cache.stale > 0 {
		if _, _, ok := s.cache.getStale(key, time.Now()); ok {
			timer := time.NewTimer(stalePatience)
			defer timer.Stop()
			patience = timer.C
		}
	}
	switch {
	case !begun:
	case ctx == s.ctx && patience == nil: // no asker that may leave before the flight ends, as none over UDP does
		s.run(f, key, by)
	default:
		go s.run(f, key, by)
	}
	select {
	case <-f.done:
		s.part(key, f)
		return f.result
	case <-patience: // the flight goes on, for those who ask next
		return s.orStale(key, result{err: errUpstreamTimeout})
	case <-ctx.Done():
		s.part(key, f)
		return result{err: ended(ctx)}
	}
}

// join finds the flight for a question, or begins one, which the caller has to
// run then; nil after close.
func (s *Server) join(key flightKey) (f *flight, begun bool) {
	fs := &s.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return nil, false
	}
	if f := fs.byKey[key]; f != nil {
		f.askers++
		return f, false
	}
	f = &flight{done: make(chan struct{}), askers: 1}
	f.ctx, f.cancel = context.WithTimeout(s.ctx, s.cfg.QueryTimeout)
	fs.byKey[key] = f
	fs.wg.Add(1)
	return f, true
}

// run takes a flight that was begun to its end.
func (s *Server) run(f *flight, key flightKey, by account) {
	defer s.flights.wg.Done()
	defer f.cancel()
	f.result = s.fly(f.ctx, key, by)
	s.flights.forget(key, f)
	close(f.done)
}

// part takes one asker out, and ends the flight that nobody waits for.
func (s *Server) part(key flightKey, f *flight) {
	s.flights.mu.Lock()
	f.askers--
	last := f.askers == 0
	s.flights.mu.Unlock()
	if last {
		s.flights.forget(key, f)
		f.cancel()
	}
}

// forget makes the next asker begin anew.
func (fs *flights) forget(key flightKey, f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.byKey[key] == f {
		delete(fs.byKey, key)
	}
}

// close ends new flights; those under way end with the server's context.
func (fs *flights) close() {
	fs.mu.Lock()
	fs.closed = true
	fs.mu.Unlock()
	fs.wg.Wait()
}

// fly asks upstream when it is the account's turn, scrubs and keeps the answer.
func (s *Server) fly(ctx context.Context, key flightKey, by account) (r result) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("asking upstream panicked")
			r = result{err: errPanicked}
		}
	}()
	if !s.turns.take(ctx, by) {
		return s.orStale(key, result{err: ended(ctx)})
	}
	defer s.turns.giveBack(by)
	msg, upstream, err := s.ask(ctx, key.name+".", key.qtype, key.flags)
	if err != nil {
		return s.orStale(key, result{err: err})
	}
	a, err := scrub(msg, key.name+".", key, s.cfg.MaxTTL)
	if err != nil {
		return s.orStale(key, result{upstream: upstream, err: err})
	}
	s.cache.put(key, a, upstream, time.Now())
	return result{answer: a, upstream: upstream}
}

// orStale replaces a failure by an answer whose time is over, where dns.stale
// allows it (RFC 8767).
func (s *Server) orStale(key flightKey, failed result) result {
	if a, upstream, ok := s.cache.getStale(key, time.Now()); ok {
		return result{answer: a, upstream: upstream, cached: true}
	}
	return failed
}
