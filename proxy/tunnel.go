package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/allowlists"
)

// A relay carries bytes both ways between two connections, each direction
// until its end of stream, which it passes on alone (half-close). It has two
// goroutines, that of run and one more, and none while it is parked. It closes
// neither connection.
type relay struct {
	client, upstream net.Conn
	early            []byte        // goes upstream first
	meter            *meter        // of what goes upstream; nil: none
	idle             time.Duration // without a byte either way
	crew             *crew         // of the second goroutine
	every            time.Duration // between calls of onProgress; 0 for none
	closes           bool          // both are closed as soon as run is over

	// Each may be nil. The first two are called for bytes that were written,
	// from one goroutine each; onProgress from a third, never after run.
	onSent, onReceived func(int)
	onProgress         func(sent, received int64)

	parking parking // zero: it is never parked

	ctx            context.Context // of run
	release        func() bool     // of ctx
	sent, received atomic.Int64
	active         atomic.Int64 // when a byte last moved, Unix nanoseconds
	stopped        atomic.Bool  // no read or write may wait any more
	upward, back   way

	mu    sync.Mutex // guards all below
	cause error      // why it was stopped
	over  bool
	watch *time.Timer
	next  time.Time // of onProgress
	alive time.Time // when the upstream is to be kept alive; zero once it is
	// splicing is set while the client's bytes are spliced, under a read deadline.
	splicing bool
}

// newRelay makes a relay with the limits of the configuration.
func (s *session) newRelay(client, upstream net.Conn) *relay {
	return &relay{client: client, upstream: upstream, crew: &s.server.crew, idle: s.server.cfg.Limits.IdleTimeout, every: s.server.cfg.Progress}
}

// A way is one direction of a relay.
type way struct {
	dst, src net.Conn
	meter    *meter // of what goes this way; nil: none
	total    *atomic.Int64
	on       func(int)
	state    atomic.Int32
}

// The states of a way.
const (
	wayMoves int32 = iota
	wayWaits       // for bytes to carry
	wayOver
)

// relayUpgrade carries what follows a 101 until both sides end, and closes
// upstream.
func (s *session) relayUpgrade(ctx context.Context, client, upstream net.Conn, sent, received func(int)) error {
	defer upstream.Close()
	r := s.newRelay(client, upstream)
	r.onSent, r.onReceived = sent, received
	_, err := r.run(ctx, nil) // it is none that may park
	return err
}

// run relays until both directions have ended, a connection breaks, no byte
// moves for the idle time, or ctx ends. prelude, if not nil, gives the bytes
// that go upstream first, while the other direction flows already; its error
// ends the relay. The error is a timed-out, the cause of ctx, prelude's, or
// that of the connection that broke. A relay that may park may return parked:
// it goes on by itself then, and is not to be touched.
func (r *relay) run(ctx context.Context, prelude func() ([]byte, error)) (parked bool, err error) {
	r.ctx = ctx
	r.upward.dst, r.upward.src, r.upward.meter, r.upward.total, r.upward.on = r.upstream, r.client, r.meter, &r.sent, r.onSent
	r.back.dst, r.back.src, r.back.total, r.back.on = r.client, r.upstream, &r.received, r.onReceived
	r.release = context.AfterFunc(ctx, func() { r.stop(context.Cause(ctx)) })
	r.begin()
	return r.goOn(prelude)
}

// resumed is run, going on where a parked relay is woken.
func (r *relay) resumed() (parked bool, err error) {
	r.unpark()
	return r.goOn(nil)
}

// goOn is run without its beginning.
func (r *relay) goOn(prelude func() ([]byte, error)) (parked bool, err error) {
	over := true // also if this panics
	defer func() {
		if over {
			r.end()
			r.release()
		}
	}()
	for !r.turn(prelude) {
		if over = false; r.park() {
			return true, nil
		}
		over, prelude = true, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// Whoever ends ctx may also wake the reads, whose time-outs then come first.
	if cause := context.Cause(r.ctx); cause != nil && !isDenied(r.cause) {
		return false, cause
	}
	return false, r.cause
}

// turn carries both ways until they are over, or agree that the relay is to be
// parked.
func (r *relay) turn(prelude func() ([]byte, error)) (over bool) {
	var down sync.WaitGroup
	if r.back.state.Load() != wayOver {
		down.Add(1)
		r.crew.do(func() {
			defer down.Done()
			defer r.contain()
			if r.direction(&r.back) {
				r.back.state.Store(wayOver)
			}
		})
	}
	defer down.Wait() // also when this side panics
	if r.upward.state.Load() != wayOver {
		func() {
			defer r.stopOnPanic()
			if r.up(prelude) {
				r.upward.state.Store(wayOver)
			}
		}()
	}
	down.Wait()
	return r.ways() == 0
}

// up carries the client's bytes, and reports false if the relay is to be parked.
func (r *relay) up(prelude func() ([]byte, error)) (over bool) {
	early := r.early
	if prelude != nil {
		var err error
		if early, err = prelude(); err != nil {
			r.stop(err)
			return true
		}
	}
	if len(early) > 0 {
		err := r.write(&r.upward, early)
		switch {
		case isDenied(err):
			r.stop(err)
			return true
		case err != nil:
			r.note(fmt.Errorf("writing to the upstream: %w", err))
			return true
		}
	}
	r.early = nil
	return r.direction(&r.upward)
}

// direction carries one way and passes its end on. A connection that breaks
// while it is read stops both ways; one that cannot be written to may still
// have something to say. A denial of the meter stops both ways, too. It reports
// false if the relay is to be parked.
func (r *relay) direction(w *way) (over bool) {
	err := r.carry(w)
	var broken *readError
	switch {
	case err == nil && r.closes && r.ways() == 1: // to close is to say it
	case err == nil:
		closeWrite(w.dst)
	case err == errParks:
		return false
	case errors.As(err, &broken):
		r.stop(broken.err)
	case isDenied(err):
		r.stop(err)
	default:
		r.note(err)
	}
	return true
}

// readError is a failure of the side that is read.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

// count takes note of bytes that were written.
func (r *relay) count(w *way, n int) {
	if n <= 0 {
		return
	}
	w.total.Add(int64(n))
	r.active.Store(time.Now().UnixNano())
	if w.on != nil {
		w.on(n)
	}
}

// note keeps the first trouble, without stopping anything.
func (r *relay) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause == nil {
		r.cause = err
	}
}

// stop ends both directions, wherever they wait. The first cause stays, but a
// denial of ours beats the trouble that came before it.
func (r *relay) stop(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	if r.cause == nil || isDenied(cause) && !isDenied(r.cause) {
		r.cause = cause
	}
	r.stopped.Store(true)
	_ = r.client.SetDeadline(past)
	_ = r.upstream.SetDeadline(past)
	r.stopParking()
}

// contain makes a panic of the second goroutine the end of the relay alone.
func (r *relay) contain() {
	if p := recover(); p != nil {
		r.back.state.Store(wayOver)
		r.stop(refusal(allowlists.Decision{}, fmt.Errorf("%w: %v", errPanic, p)))
	}
}

// stopOnPanic stops the other direction before the panic goes on.
func (r *relay) stopOnPanic() {
	if p := recover(); p != nil {
		r.stop(fmt.Errorf("%w: %v", errPanic, p))
		panic(p)
	}
}

// begin starts the watch over idle time and progress.
func (r *relay) begin() {
	now := time.Now()
	r.active.Store(now.UnixNano())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next, r.alive = now.Add(r.every), now.Add(keepAliveAfter)
	r.watch = time.AfterFunc(r.wait(now), r.look)
}

// end ends the watch; look does nothing after it.
func (r *relay) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.watch.Stop()
}

// wait says how long there is nothing to look at.
func (r *relay) wait(now time.Time) time.Duration {
	wait := time.Unix(0, r.active.Load()).Add(r.idle).Sub(now)
	if r.every > 0 && r.onProgress != nil {
		wait = min(wait, r.next.Sub(now))
	}
	if !r.alive.IsZero() {
		wait = min(wait, r.alive.Sub(now))
	}
	if due := r.parkingDue(); !due.IsZero() {
		wait = min(wait, due.Sub(now))
	}
	return max(wait, time.Millisecond)
}

// look is called when idle time, progress or keepAliveAfter may be due.
func (r *relay) look() {
	if r.lookAround() {
		d := allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.TimedOut}
		r.stop(refusal(d, errIdle))
	}
}

// lookAround reports whether the relay has been idle for too long. If not, it
// writes the progress that is due and comes again.
func (r *relay) lookAround() (idle bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return false
	}
	now := time.Now()
	if now.Sub(time.Unix(0, r.active.Load())) >= r.idle {
		return true
	}
	if r.every > 0 && r.onProgress != nil && !now.Before(r.next) {
		r.next = now.Add(r.every)
		r.onProgress(r.sent.Load(), r.received.Load())
	}
	if !r.alive.IsZero() && !now.Before(r.alive) {
		r.alive = time.Time{}
		keepUpstreamAlive(r.upstream)
	}
	r.offerParking(now)
	r.watch.Reset(r.wait(now))
	return false
}

// keepUpstreamAlive sets keepAlive on a connection that was dialled.
func keepUpstreamAlive(conn net.Conn) {
	for {
		switch c := conn.(type) {
		case *switchedConn:
			conn = c.Conn
		case *upstreamConn:
			conn = c.Conn
		case *net.TCPConn:
			_ = c.SetKeepAliveConfig(keepAlive) // one that is closed needs none
			return
		default:
			return
		}
	}
}

var errIdle = errors.New("no byte moved for limits.idle_timeout")

// closeWrite ends the stream towards conn, and where it cannot do that alone,
// the whole connection.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = conn.Close()
}
