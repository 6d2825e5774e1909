package proxy

import (
	"context"
	"time"
)

// setCurrent says which exchange a policy change, or the end of the session,
// concerns, nil for none. One that came before is caught here, and what a change
// left is closed.
func (f *forwarder) setCurrent(x *exchange) {
	f.mu.Lock()
	f.current = x
	stale, up := f.stale, f.up
	f.stale = false
	f.mu.Unlock()
	switch {
	case x != nil:
		if err := x.pass.still(); err != nil {
			x.cancel(err)
		}
		if f.ctx.Err() != nil {
			x.cancel(context.Cause(f.ctx))
		}
	case stale:
		_ = up.Close()
	}
}

// end cancels the request in flight for a cause.
func (f *forwarder) end(cause error) {
	f.mu.Lock()
	current := f.current
	f.mu.Unlock()
	if current != nil {
		current.cancel(cause)
	}
}

// interruptUpstream ends for good what the upstream connection waits for. It is
// safe for concurrent use.
func (f *forwarder) interruptUpstream() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.up != nil {
		_ = f.up.SetDeadline(past)
	}
}

// cancel ends the exchange for a cause, and what waits for the client to read or
// for the upstream. Only the first cause counts. It is safe for concurrent use.
func (x *exchange) cancel(cause error) {
	x.void(cause)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.carrying {
		x.interrupt()
	}
}

// interrupt ends what waits. The caller holds mu.
func (x *exchange) interrupt() {
	x.interrupted = true
	_ = x.f.conn.SetWriteDeadline(past)
	x.f.interruptUpstream()
}

// setCarrying says whether there is something that cancel must interrupt. What
// came before it is caught here.
func (x *exchange) setCarrying(carrying bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.carrying = carrying
	switch {
	case carrying && x.ctx.Err() != nil:
		x.interrupt()
	case !carrying && x.interrupted: // the answer that says so may be written
		_ = x.f.conn.SetWriteDeadline(time.Now().Add(x.f.limits.idleTimeout))
	}
}
