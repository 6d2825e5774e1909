package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"sallyport/allowlists"
)

// endGrace is how long a session that is told to end may take to say so to its
// client, before its connection is closed under it.
const endGrace = time.Second

// A session is one client connection, from its first byte to its last. serve
// is for one goroutine; end, drain, reclaim and policyChanged are safe for
// concurrent use and return at once.
//
//	head -> plain HTTP, request by request -> done
//	     \-> CONNECT -> tunnel             -> done
type session struct {
	server *Server
	conn   *net.TCPConn
	in     *headReader
	client netip.AddrPort // unmapped
	pool   string         // whose own listener took it; "" for a shared one
	// ctx ends with the session; its cause is why, where we ended it.
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Only the serving goroutine uses these.
	last    *trip // the latest, whose record a panic completes
	lingers bool  // the client may still be sending: read on for a moment before closing
	known   knownAnswer

	mu       sync.Mutex // guards all below
	open     *trip      // the CONNECT that is open, maybe nil
	forward  *forwarder // while plain HTTP is carried
	waiting  bool       // for the first byte
	draining bool
	closer   *time.Timer // closes the connection after end
}

// knownAnswer is the answer of the last look-up, for requests that use its
// connection again.
type knownAnswer struct {
	target allowlists.Target
	ids    []string
}

func newSession(s *Server, conn *net.TCPConn, listenerPool string) *session {
	sess := &session{server: s, conn: conn, in: newHeadReader(conn), pool: listenerPool}
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := addr.AddrPort()
		sess.client = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	sess.ctx, sess.cancel = context.WithCancelCause(context.Background())
	return sess
}

// subject finds who the client is under a policy.
func (s *session) subject(policy *allowlists.Policy) (allowlists.Subject, *allowlists.Pool) {
	return policy.Subject(s.client.Addr(), "", s.pool)
}

// serve carries the connection and closes it. A panic ends here.
func (s *session) serve() {
	defer s.close()
	defer s.contain()
	h := s.firstHead()
	if h == nil {
		return
	}
	if h.form != formAuthority {
		h = s.carry(allowlists.Target{}, h)
	}
	if h != nil {
		s.connect(h)
	}
}

// close closes the connection: with a reset if that is the answer, and not
// before the client had time to read another.
func (s *session) close() {
	var denial *allowlists.DeniedError
	if errors.As(context.Cause(s.ctx), &denial) && !s.lingers {
		_ = s.conn.SetLinger(0)
	}
	if s.lingers {
		s.linger()
	}
	s.cancel(nil)
	_ = s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closer != nil {
		s.closer.Stop()
	}
}

// linger reads on for a while, as closing with bytes unread would reset the
// connection and could take our answer away from the client.
func (s *session) linger() {
	_ = s.conn.CloseWrite()
	_ = s.conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, s.conn, lingerBytes)
}

// contain keeps a panic to this connection: its record says internal-error.
func (s *session) contain() {
	p := recover()
	if p == nil {
		return
	}
	s.server.cfg.Log.Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("a connection ended by a panic")
	defer func() { _ = recover() }() // the same trouble again
	err := refusal(allowlists.Decision{}, fmt.Errorf("%w: %v", errPanic, p))
	if s.last == nil {
		s.refuse(nil, allowlists.Target{}, err)
		return
	}
	s.last.abandon(err)
}

// firstHead waits for the first head. It gives nil if none came, or one that
// was refused. A connection that says nothing leaves no record.
func (s *session) firstHead() *head {
	limits := s.server.cfg.Limits
	if !s.await(limits.HeaderTimeout) {
		return nil
	}
	h, err := s.in.readHead(int(limits.HeaderBytes))
	_ = s.conn.SetReadDeadline(time.Time{})
	cause := context.Cause(s.ctx)
	switch {
	case err == nil:
		return h
	case h == nil || h.size == 0:
		return nil
	case cause != nil:
		err = cause
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = bad(errHeadSlow)
	case !isDenied(err):
		err = bad(err)
	}
	s.refuse(h, allowlists.Target{}, err)
	return nil
}

// await waits for the first byte, with a deadline for the whole head. It
// reports false if none comes.
func (s *session) await(limit time.Duration) bool {
	s.mu.Lock()
	_ = s.conn.SetReadDeadline(time.Now().Add(limit))
	if s.draining || s.ctx.Err() != nil {
		_ = s.conn.SetReadDeadline(past)
	}
	s.waiting = true
	s.mu.Unlock()
	_, err := s.in.Peek(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
	return err == nil
}

// carry carries plain HTTP: from the explicit port, or inside a CONNECT to
// inner. It gives the head of a CONNECT that follows on the explicit port.
func (s *session) carry(inner allowlists.Target, first *head) *head {
	limits := s.server.cfg.Limits
	f := &forwarder{
		conn: s.conn, in: s.in, gate: s, carrier: s.server.carrier, inner: inner, relay: s.relayUpgrade,
		limits: forwardLimits{headerBytes: int(limits.HeaderBytes), headerTimeout: limits.HeaderTimeout, idleTimeout: limits.IdleTimeout},
	}
	s.mu.Lock()
	s.forward = f
	draining := s.draining
	s.mu.Unlock()
	if draining {
		f.drain()
	}
	connect := f.serve(s.ctx, first)
	s.mu.Lock()
	s.forward = nil
	s.mu.Unlock()
	return connect
}

// setOpen says which CONNECT a policy change concerns.
func (s *session) setOpen(t *trip) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = t
}

// end ends the session for a reason, soon.
func (s *session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	if s.forward != nil {
		s.forward.drain()
	}
	s.cancel(why)
	_ = s.conn.SetReadDeadline(past)
	s.closer = time.AfterFunc(endGrace, func() { _ = s.conn.Close() })
}

// reclaim ends the session because another pool or client has less than its
// share.
func (s *session) reclaim() {
	s.end(refusal(allowlists.Decision{Reason: allowlists.LimitExceeded}, errTakenBack))
}

var errTakenBack = errors.New("the place was taken back for a pool or client with less than its share")

// drain lets what is open finish and nothing new begin.
func (s *session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	if s.waiting {
		_ = s.conn.SetReadDeadline(past)
	}
	if s.forward != nil {
		s.forward.drain()
	}
}

// policyChanged ends what the policy now in force does not allow.
func (s *session) policyChanged() {
	s.mu.Lock()
	open, forward := s.open, s.forward
	s.mu.Unlock()
	if open != nil {
		if err := open.still(); err != nil {
			s.end(err)
		}
	}
	if forward != nil {
		forward.policyChanged()
	}
}

// turnAway hears a connection over a limit out for a moment, so that its
// record says where it wanted to go, and refuses it.
func (s *session) turnAway(err error) {
	defer s.close()
	defer s.contain()
	_ = s.conn.SetDeadline(time.Now().Add(refusalTime))
	h, _ := s.in.readHead(int(s.server.cfg.Limits.HeaderBytes))
	s.refuse(h, allowlists.Target{}, err)
}
