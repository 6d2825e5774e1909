package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"sallyport/allowlists"
)

// forwardLimits are the bounds of one client connection.
type forwardLimits struct {
	headerBytes   int
	headerTimeout time.Duration
	idleTimeout   time.Duration
}

// A forwarder carries the plain HTTP of one client connection: each request is
// read, judged and recorded by itself, then carried by goproxy over upstream
// connections that no other client shares. serve is for one goroutine; the
// other methods are safe for concurrent use.
type forwarder struct {
	conn    net.Conn
	in      *headReader
	gate    forwardGate
	carrier http.Handler // newCarrier's, shared by every connection
	limits  forwardLimits
	// inner is the target of the CONNECT that the requests came inside of, the
	// only one they may name; zero on the explicit port.
	inner allowlists.Target
	// relay carries bytes both ways until both sides end or ctx does, and
	// closes upstream. It is the tunnel's.
	relay func(ctx context.Context, client, upstream net.Conn, sent, received func(int)) error

	ctx context.Context // serve's

	mu       sync.Mutex    // guards all below
	up       *upstreamConn // of the last request, maybe nil; only serve sets it
	waiting  bool          // for the first byte of a request
	draining bool          // no further request
	current  *exchange     // in flight, maybe nil
	stale    bool          // the policy changed while current was in flight
}

// serve carries requests until the connection is finished, beginning with
// first, whose bytes are unread, or with the next to come if first is nil. It
// does not close the client's connection. It gives the head of a CONNECT that
// follows on the explicit port, its bytes unread; nil when the connection is
// finished.
func (f *forwarder) serve(ctx context.Context, first *head) (connect *head) {
	f.ctx = ctx
	defer f.hold(nil)
	defer context.AfterFunc(ctx, func() { f.end(context.Cause(ctx)) })()
	h := first
	if h == nil {
		h = f.next()
	}
	for h != nil {
		if h.form == formAuthority && f.inner.Port == 0 {
			return h
		}
		if !f.one(ctx, h) {
			return nil
		}
		h = f.next()
	}
	return nil
}

// drain lets the request in flight finish, and no other begin.
func (f *forwarder) drain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.draining = true
	if f.waiting {
		_ = f.conn.SetReadDeadline(past)
	}
}

// policyChanged ends the request in flight if the policy now in force does not
// allow it. The connection that waits upstream is closed, now or after that
// request: it was judged by a policy that no later request is judged by.
func (f *forwarder) policyChanged() {
	f.mu.Lock()
	current, up := f.current, f.up
	f.stale = current != nil
	f.mu.Unlock()
	switch {
	case current != nil:
		if err := current.pass.still(); err != nil {
			current.cancel(err)
		}
	default:
		_ = up.Close()
	}
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// next waits for the next request, as long as the connection may be idle for
// its first byte and header_timeout for the rest. It gives nil if none comes,
// or one that is refused.
func (f *forwarder) next() *head {
	if !f.await() {
		return nil
	}
	if !f.in.holdsHead() { // else nothing is waited for
		_ = f.conn.SetReadDeadline(time.Now().Add(f.limits.headerTimeout))
	}
	h, err := f.in.readHead(f.limits.headerBytes)
	switch {
	case err == nil:
		return h
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = bad(errHeadSlow)
	}
	if isDenied(err) {
		f.gate.refuse(h, allowlists.Target{}, err)
	}
	return nil
}

// errHeadSlow is inside the bad-request for a head that does not end.
var errHeadSlow = errors.New("the request head did not come within limits.header_timeout")

// await waits for a first byte. It reports false if none comes.
func (f *forwarder) await() bool {
	f.mu.Lock()
	if f.draining {
		f.mu.Unlock()
		return false
	}
	f.waiting = true
	_ = f.conn.SetReadDeadline(time.Now().Add(f.limits.idleTimeout))
	f.mu.Unlock()
	_, err := f.in.Peek(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = false
	return err == nil && !f.draining
}

var (
	errOriginForm = errors.New("a proxy wants an absolute URI")
	errNested     = errors.New("CONNECT inside a tunnel")
)

// destination says where a request wants to go.
func (f *forwarder) destination(h *head) (allowlists.Target, error) {
	switch {
	case f.inner.Port == 0 && h.form == formAbsolute:
		return h.target, nil
	case f.inner.Port == 0:
		return allowlists.Target{}, bad(errOriginForm)
	case h.form == formAuthority:
		return f.inner, bad(errNested)
	default:
		return f.inner, nil
	}
}

// one carries one request and reports whether another may follow.
func (f *forwarder) one(ctx context.Context, h *head) bool {
	target, err := f.destination(h)
	if err != nil {
		f.gate.refuse(h, target, err)
		return false
	}
	pass, err := f.gate.admit(ctx, h, target)
	if err != nil {
		f.gate.refuse(h, target, err)
		return false
	}
	x, err := f.newExchange(ctx, h, target, pass)
	if err != nil {
		pass.refuse(err)
		return false
	}
	defer x.cancel(context.Canceled)
	if err := f.connect(x); err != nil {
		x.stopReading()
		pass.refuse(err)
		return false
	}
	f.setCurrent(x)
	defer f.setCurrent(nil)
	return x.run()
}

// hold replaces the upstream connection, and closes the one before.
func (f *forwarder) hold(up *upstreamConn) {
	f.mu.Lock()
	before := f.up
	f.up = up
	f.mu.Unlock()
	_ = before.Close()
}

// connect finds the upstream connection for x: the one that waits if this very
// request may use it, else a new one. One that waited may be dead already, so
// it is for requests only that can be sent again: idempotent, without a body.
func (f *forwarder) connect(x *exchange) error {
	if f.up.fits(x) && x.repeatable() && f.up.resume() && x.pass.reusable(f.up.addr) {
		x.addr, x.reused = f.up.addr, true
		return nil
	}
	f.hold(nil)
	if err := x.dial(); err != nil {
		return x.gone(err)
	}
	return nil
}

// repeatable reports whether the request may be sent twice, RFC 9110 section
// 9.2.2, and can be.
func (x *exchange) repeatable() bool {
	switch x.head.method {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return !x.head.hasBody() && x.upgrade == ""
	default:
		return false
	}
}

func isDenied(err error) bool {
	var denial *allowlists.DeniedError
	return errors.As(err, &denial)
}
