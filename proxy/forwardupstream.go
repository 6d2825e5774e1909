package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/allowlists"
)

// pooledFor is how long an upstream connection may wait for the client's next
// request to the same destination.
const pooledFor = 30 * time.Second

// continueFor is how long an upstream may take to say 100 Continue before the
// body is sent all the same.
const continueFor = time.Second

// An upstream holds at most one idle connection to one destination, for one
// client connection, one policy generation and one rule: what was judged for
// one request is not used for another that was judged differently. A nil
// upstream fits nothing and holds nothing.
type upstream struct {
	target     allowlists.Target
	generation uint64
	rule       *allowlists.Rule
	idle       time.Duration
	transport  *http.Transport

	mu    sync.Mutex
	ready net.Conn // dialled for the coming request, not yet the transport's
	last  *upstreamConn
	over  bool
}

func newUpstream(x *exchange, limits forwardLimits) *upstream {
	u := &upstream{
		target: x.target, generation: x.pass.generation(), rule: x.pass.decision().Rule,
		idle: limits.idleTimeout,
	}
	u.transport = newTransport(u.dial, limits)
	return u
}

// newTransport makes a transport that knows HTTP/1 over the connections that
// dial gives it, and nothing of the environment.
func newTransport(dial func(context.Context, string, string) (net.Conn, error), limits forwardLimits) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  nil, // the zero value; proxy variables mean nothing here
		DialContext:            dial,
		DialTLSContext:         refuseDial, // only http comes here
		Protocols:              protocols,
		DisableCompression:     true, // bodies go through as they are
		MaxIdleConns:           1,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        min(pooledFor, limits.idleTimeout),
		ExpectContinueTimeout:  continueFor,
		MaxResponseHeaderBytes: int64(limits.headerBytes),
	}
}

var errNoDial = errors.New("a connection that nobody judged")

// refuseDial is the dialer of what must never dial.
func refuseDial(context.Context, string, string) (net.Conn, error) { return nil, errNoDial }

// fits reports whether a pooled connection could carry x.
func (u *upstream) fits(x *exchange) bool {
	return u != nil && u.target == x.target && u.generation == x.pass.generation() && u.rule == x.pass.decision().Rule
}

// pooled gives the remote address of the connection that waits, if one does.
func (u *upstream) pooled() (netip.Addr, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil || u.last.closed.Load() {
		return netip.Addr{}, false
	}
	return u.last.addr, true
}

// dropIdle closes the connection that waits.
func (u *upstream) dropIdle() {
	u.transport.CloseIdleConnections()
	u.mu.Lock()
	last := u.last
	u.last = nil
	u.mu.Unlock()
	if last != nil {
		_ = last.Close()
	}
}

// offer holds a dialled connection ready for the transport, which asks for one
// as it has none idle, and gives its remote address.
func (u *upstream) offer(conn net.Conn) netip.Addr {
	wrapped := u.wrap(conn)
	u.mu.Lock()
	unused := u.ready
	u.ready = wrapped
	u.mu.Unlock()
	if unused != nil {
		_ = unused.Close()
	}
	return wrapped.addr
}

// dial is the transport's DialContext: the connection offered, or, if the
// pooled one died under the request, another to an address judged for it.
func (u *upstream) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	if x == nil || x.up != u || addr != u.target.String() {
		return nil, errNoDial
	}
	u.mu.Lock()
	conn := u.ready
	u.ready = nil
	u.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	fresh, err := x.pass.dial(ctx)
	if err != nil {
		return nil, err
	}
	wrapped := u.wrap(fresh)
	u.mu.Lock()
	over := u.over
	u.mu.Unlock()
	if over {
		_ = wrapped.Close()
		return nil, net.ErrClosed
	}
	return wrapped, nil
}

func (u *upstream) wrap(conn net.Conn) *upstreamConn {
	wrapped := &upstreamConn{Conn: conn, idle: u.idle}
	if ap, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		wrapped.addr = ap.Addr().Unmap()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = wrapped
	return wrapped
}

// close closes every connection and lets the transport go.
func (u *upstream) close() {
	if u == nil {
		return
	}
	u.mu.Lock()
	u.over = true
	ready, last := u.ready, u.last
	u.ready = nil
	u.mu.Unlock()
	if ready != nil {
		_ = ready.Close()
	}
	u.transport.CloseIdleConnections()
	if last != nil {
		_ = last.Close()
	}
}

// An upstreamConn ends when no byte went either way for the idle time, and
// knows whether it is closed.
type upstreamConn struct {
	net.Conn
	addr   netip.Addr // unmapped
	idle   time.Duration
	closed atomic.Bool
	ended  atomic.Bool // by a deadline that is over
	// onClose is called with each Close, by whoever closes; nil: nothing is.
	onClose atomic.Pointer[func()]
	// bill is that of the exchange under way; nil before the first.
	bill atomic.Pointer[bill]
}

// setOnClose has f called when the connection is closed, at once if it is.
func (c *upstreamConn) setOnClose(f func()) {
	c.onClose.Store(&f)
	if c.closed.Load() {
		f()
	}
}

// SetDeadline with a time that is over ends reads and writes for good: the idle
// time of those that are about to begin does not undo it.
func (c *upstreamConn) SetDeadline(at time.Time) error {
	if !at.IsZero() && !at.After(time.Now()) {
		c.ended.Store(true)
	}
	return c.Conn.SetDeadline(at)
}

// keepAlive moves on the deadline that set is for.
func (c *upstreamConn) keepAlive(set func(time.Time) error) {
	_ = set(time.Now().Add(c.idle))
	if c.ended.Load() {
		_ = c.Conn.SetDeadline(past)
	}
}

func (c *upstreamConn) Read(p []byte) (int, error) {
	c.keepAlive(c.Conn.SetReadDeadline)
	return c.Conn.Read(p)
}

// Write keeps a read that waits alive, too. Heads, framing and bodies all go on
// the bill.
func (c *upstreamConn) Write(p []byte) (int, error) {
	c.keepAlive(c.Conn.SetDeadline)
	b := c.bill.Load()
	if b == nil {
		return 0, errNoDial
	}
	return b.write(c.Conn, p)
}

// CloseWrite closes the sending side, if the connection knows how to.
func (c *upstreamConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close may be called more than once.
func (c *upstreamConn) Close() error {
	c.closed.Store(true)
	if f := c.onClose.Load(); f != nil {
		(*f)()
	}
	return c.Conn.Close()
}
