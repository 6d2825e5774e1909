package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/allowlists"
)

// halfCloseGrace is how long a client that closed its sending side may wait
// for its answer: one that went away looks the same.
const halfCloseGrace = 2 * time.Second

var (
	errClientGone = errors.New("the client went away")
	errSwitched   = errors.New("the upstream switched protocols") // tells goproxy that there is no response for it
	errUnasked    = errors.New("the upstream switched to a protocol that was not asked for")
	errPanic      = errors.New("a panic while carrying the request")
)

// exchangeKey finds the exchange in a request's context.
type exchangeKey struct{}

// An exchange is one request on its way and the response to it.
type exchange struct {
	f       *forwarder
	head    *head
	target  allowlists.Target
	pass    passage
	ctx     context.Context
	void    context.CancelCauseFunc // of ctx; only cancel calls it
	req     *http.Request
	body    *requestBody
	res     *response
	upgrade string // the protocols the client asks for, "" for none
	addr    netip.Addr
	over    bool // reading from the client was stopped
	done    chan struct{}
	// others are the goroutines beside the serving one: what sends a body, and
	// the watch for the client's end.
	others   sync.WaitGroup
	uploaded chan bool // whether the body went out whole; nil without one

	mu          sync.Mutex // guards carrying and interrupted
	carrying    bool
	interrupted bool

	sent, received atomic.Int64

	reused   bool           // the upstream connection has waited
	heard    bool           // the upstream has said something
	whole    bool           // its answer was read to the end
	last     bool           // that answer is the last of its connection
	switched *http.Response // a 101, which goproxy does not see
	bill     *bill          // of what goes upstream
	err      error          // why there is no response
	cut      error          // why the response's body is not whole
}

// newExchange consumes the request's head and makes the request that goes out.
func (f *forwarder) newExchange(ctx context.Context, h *head, target allowlists.Target, pass passage) (*exchange, error) {
	req, err := http.ReadRequest(f.in.Reader)
	if err != nil {
		return nil, bad(err) // our grammar is stricter; FuzzHead holds it to that
	}
	x := &exchange{f: f, head: h, target: target, pass: pass, done: make(chan struct{})}
	x.ctx, x.void = context.WithCancelCause(context.WithValue(ctx, exchangeKey{}, x))
	if h.minor == 1 && !h.hasBody() {
		x.upgrade = upgradeWanted(req.Header)
	}
	x.body = newRequestBody(x, req)
	x.res = &response{ctx: x.ctx, extend: x.body.extend, conn: f.conn, idle: f.limits.idleTimeout, head: h, received: &x.received, length: -1}
	x.res.keep = func() bool { return !req.Close && x.body.ended() && !f.isDraining() }
	if x.req, err = x.outgoing(req); err != nil {
		x.cancel(err)
		return nil, bad(err)
	}
	return x, nil
}

// outgoing makes the request for the upstream: the same path, but a host
// spelled in the one way that was judged.
func (x *exchange) outgoing(req *http.Request) (*http.Request, error) {
	path := x.head.path
	switch {
	case x.head.form == formAsterisk, path == "" && x.head.method == "OPTIONS":
		path = "*" // RFC 9112 section 3.2.4
	case path == "" || path[0] == '?':
		path = "/" + path
	}
	req = req.WithContext(x.ctx)
	stripHopByHop(req.Header) // goproxy drops Connection, but not what it names
	authority := x.target.String()
	req.URL.Scheme, req.URL.Host = "http", authority
	if req.URL.RequestURI() != path {
		// net/url would spell it differently: keep it as it was written.
		if strings.HasPrefix(path, "//") {
			return nil, errTarget
		}
		req.URL.Opaque, req.URL.RawQuery, req.URL.ForceQuery = path, "", false
	}
	if x.head.host != nil && *x.head.host != x.target { // in audit only
		authority = x.head.host.String()
	}
	req.Host = strings.TrimSuffix(authority, ":80")
	if !x.head.hasBody() {
		req.Body, req.ContentLength = http.NoBody, 0
		x.body.finished.Store(true)
	} else {
		req.Body = x.body
	}
	return req, nil
}

// run carries the exchange, opened and closed in the record, and reports
// whether the connection may carry another.
func (x *exchange) run() (keep bool) {
	x.bill = &bill{ctx: x.ctx, meter: x.pass.openMeter(), end: x.cancel}
	x.pass.opened(x.addr)
	defer x.res.release()
	defer func() {
		if p := recover(); p != nil {
			keep = false
			x.f.hold(nil)
			x.stopReading()
			err := &allowlists.DeniedError{Err: fmt.Errorf("%w: %v", errPanic, p)}
			x.close(err)
			x.giveUp(err)
		}
	}()
	x.carry()
	switch {
	case x.switched != nil:
		err := x.relay()
		if cause := context.Cause(x.ctx); cause != nil {
			err = cause
		}
		x.close(err)
		x.giveUp(err)
		return false
	case x.err != nil:
		err := x.gone(x.err)
		x.f.hold(nil)
		x.stopReading()
		x.close(err)
		x.giveUp(err)
		return false
	}
	keep = x.res.finish(x.cut)
	x.settle()
	x.stopReading()
	switch cause := context.Cause(x.ctx); {
	case x.res.err == nil && !errors.Is(cause, errUploadLimit): // whole, whatever came too late to end it
		x.close(nil)
	case cause != nil:
		x.close(cause)
		x.giveUp(cause)
		return false
	case x.cut != nil:
		x.close(x.gone(x.cut))
	default:
		x.close(fmt.Errorf("%w: %w", errClientGone, x.res.err))
	}
	if !keep {
		x.linger()
	}
	return keep
}

// giveUp tells the client that there is no response, or no more of it: by one
// of ours if none has begun and the reason has a status, by a reset if it has
// none.
func (x *exchange) giveUp(err error) {
	var denial *allowlists.DeniedError
	if !errors.As(err, &denial) {
		return
	}
	if denial.Decision.Reason.Status() != 0 && !x.res.began {
		x.pass.answer(err)
		x.linger()
		return
	}
	if tcp, ok := x.f.conn.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0)
	}
}

// Bounds of what linger reads from a client that still sends.
const (
	lingerBytes = 256 << 10
	lingerTime  = 500 * time.Millisecond
)

// linger reads on for a while after a response that ends the connection, where
// the client has not sent its whole body: closing at once would reset the
// connection and could take the response away from it.
func (x *exchange) linger() {
	if x.body.ended() {
		return
	}
	if half, ok := x.f.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = x.f.conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, x.f.in, lingerBytes)
}

// carry lets goproxy do its part.
func (x *exchange) carry() {
	x.setCarrying(true)
	defer x.setCarrying(false)
	if x.body.ended() {
		x.watch()
	}
	x.f.carrier.ServeHTTP(x.res, x.req)
}

// close writes the close record. Of a body that a limit cut, only what passed
// counts as sent.
func (x *exchange) close(err error) {
	sent := x.sent.Load()
	if errors.Is(err, errUploadLimit) && x.switched == nil {
		sent = min(sent, max(0, x.bill.written.Load()-int64(x.head.size)))
	}
	x.pass.closed(sent, x.received.Load(), err)
}
