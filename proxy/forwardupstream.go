package proxy

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/allowlists"
)

// pooledFor is how long an upstream connection may wait for the client's next
// request to the same destination.
const pooledFor = 30 * time.Second

// upstreamBuffer is the size of each buffer of an upstream connection, in bytes.
const upstreamBuffer = 4096

var (
	errNoBill     = errors.New("bytes that nobody counts")
	errAnswerHead = errors.New("the head of the answer is larger than limits.header_bytes")
)

// An upstreamConn is a connection to one destination, for one client
// connection, one policy generation and one rule: what was judged for one
// request is not used for another that was judged differently. It carries one
// request at a time, and ends when no byte went either way for the idle time.
// Its deadlines and Close are safe for concurrent use.
type upstreamConn struct {
	net.Conn
	target     allowlists.Target
	generation uint64
	rule       *allowlists.Rule
	addr       netip.Addr // unmapped
	idle       time.Duration
	expiry     *time.Timer // closes it while it waits; nil before it has waited
	raw        syscall.RawConn

	in  *bufio.Reader // of one goroutine, that of the exchange
	out *bufio.Writer // of that which sends the request
	// fresh is set where the deadline of a read was set by the write before.
	fresh bool
	// mayRead bounds what is read until the answer's head is whole; negative:
	// nothing does.
	mayRead int
	bill    *bill // of the exchange under way; nil before the first

	closed atomic.Bool
	ended  atomic.Bool // by a deadline that is over
}

// newUpstreamConn takes over conn, dialled for x.
func newUpstreamConn(x *exchange, conn net.Conn, idle time.Duration) *upstreamConn {
	c := &upstreamConn{
		Conn: conn, target: x.target, generation: x.pass.generation(), rule: x.pass.decision().Rule,
		idle: idle, mayRead: -1,
	}
	switch addr := conn.RemoteAddr().(type) {
	case *net.TCPAddr:
		c.addr = addr.AddrPort().Addr().Unmap()
	}
	if tcp, ok := conn.(syscall.Conn); ok {
		c.raw, _ = tcp.SyscallConn()
	}
	c.in, c.out = bufio.NewReaderSize(c, upstreamBuffer), bufio.NewWriterSize(c, upstreamBuffer)
	return c
}

// fits reports whether the connection may carry x, but for its address. Nil
// fits nothing.
func (c *upstreamConn) fits(x *exchange) bool {
	return c != nil && c.target == x.target && c.generation == x.pass.generation() && c.rule == x.pass.decision().Rule
}

// wait has the connection wait for another request, not for long: never beyond
// its deadline.
func (c *upstreamConn) wait() {
	rest := min(pooledFor, c.idle)
	if c.expiry == nil {
		c.expiry = time.AfterFunc(rest, func() { _ = c.Close() })
		return
	}
	c.expiry.Reset(rest)
}

// resume ends the wait. It reports whether the connection can carry a request:
// one whose peer has closed it, or said something that nobody asked for, cannot.
func (c *upstreamConn) resume() bool {
	if c.expiry == nil || !c.expiry.Stop() || c.closed.Load() || c.ended.Load() {
		return false
	}
	return c.in.Buffered() == 0 && isSilent(c.raw)
}

// isSilent reports whether a connection is open and has nothing to read. It
// does not wait. One that cannot be asked, as no socket is beneath it, passes.
func isSilent(raw syscall.RawConn) bool {
	if raw == nil {
		return true
	}
	silent := false
	err := raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		silent = err == syscall.EAGAIN
		return true // do not wait for what is to be read
	})
	return err == nil && silent
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

// Read reads no more than mayRead.
func (c *upstreamConn) Read(p []byte) (int, error) {
	if c.mayRead == 0 {
		return 0, errAnswerHead
	}
	if c.mayRead > 0 {
		p = p[:min(len(p), c.mayRead)]
	}
	if !c.fresh {
		c.keepAlive(c.Conn.SetReadDeadline)
	}
	c.fresh = false
	n, err := c.Conn.Read(p)
	if c.mayRead > 0 {
		c.mayRead -= n
	}
	return n, err
}

// Write keeps a read that waits alive, too. Heads, framing and bodies all go on
// the bill.
func (c *upstreamConn) Write(p []byte) (int, error) {
	c.keepAlive(c.Conn.SetDeadline)
	if c.bill == nil {
		return 0, errNoBill
	}
	return c.bill.write(c.Conn, p)
}

// CloseWrite closes the sending side, if the connection knows how to.
func (c *upstreamConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close may be called more than once, and of nil.
func (c *upstreamConn) Close() error {
	if c == nil {
		return nil
	}
	c.closed.Store(true)
	return c.Conn.Close()
}
