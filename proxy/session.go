package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"sallyport/allowlists"
)

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
	by     Listener       // that took it
	// machine is the client's, allowlists.Subject.Machine: that of the beginning,
	// so that the session counts against one client as long as it lasts.
	machine netip.Addr
	place   *lease // among the connections
	// original is where a redirected connection wanted to go; zero for any other.
	// local is our side.
	original, local netip.AddrPort
	// ctx ends with the session; its cause is why, where we ended it.
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Only the serving goroutine uses these.
	last    *trip // the latest, whose record a panic completes
	lingers bool  // the client may still be sending: read on for a moment before closing
	known   knownAnswer
	meter   *meter // of the latest trip that carried bytes, maybe nil
	// upstream is the other side of the CONNECT or redirected connection that is
	// open, maybe nil. It is closed with the session.
	upstream *net.TCPConn
	// ambiguous is set where the host of a redirected request is one of several
	// that the book has.
	ambiguous bool

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

func newSession(s *Server, conn *net.TCPConn, by Listener) *session {
	sess := &session{server: s, conn: conn, in: newHeadReader(conn), by: by}
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		ap := unmapped(addr.AddrPort())
		sess.client = netip.AddrPortFrom(s.cfg.Client(ap.Addr()), ap.Port())
		sess.machine = s.cfg.Machine(by.Iface, sess.client.Addr())
	}
	if by.Transparent {
		if addr, ok := conn.LocalAddr().(*net.TCPAddr); ok {
			sess.local = unmapped(addr.AddrPort())
		}
		sess.original = s.cfg.Original(conn)
	}
	sess.ctx, sess.cancel = context.WithCancelCause(context.Background())
	return sess
}

// subject finds who the client is under a policy.
func (s *session) subject(policy *allowlists.Policy) (allowlists.Subject, *allowlists.Pool) {
	sub, pool := policy.Subject(s.client.Addr(), s.by.Iface, s.by.Pool)
	sub.Machine = s.machine
	return sub, pool
}

// serve carries the connection, and ends the session unless its tunnel was
// parked: then it goes on with resume.
func (s *session) serve() { s.goOn(s.begin) }

// goOn does what is to be done now, and ends the session unless that left a
// parked tunnel. A panic ends here.
func (s *session) goOn(do func() (parked bool)) {
	parked := false
	defer func() {
		if !parked { // else another goroutine may have it already
			s.over()
		}
	}()
	defer s.contain()
	parked = do()
}

// over closes what is open and gives the session's place back.
func (s *session) over() {
	s.close()
	s.server.gone(s)
	s.place.release()
	s.server.running.Done()
}

// begin carries the connection.
func (s *session) begin() (parked bool) {
	if s.by.Transparent {
		return s.redirected()
	}
	h := s.firstHead()
	if h != nil && h.form != formAuthority {
		h = s.carry(allowlists.Target{}, h)
	}
	return h != nil && s.connect(h)
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
	s.in.shared = true // net/http sends bodies from it
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

// turnAway hears a connection over a limit out for a moment, so that its
// record says where it wanted to go, and refuses it.
func (s *session) turnAway(err error) {
	defer s.close()
	defer s.contain()
	_ = s.conn.SetDeadline(time.Now().Add(refusalTime))
	if s.by.Transparent {
		s.newTrip(ViaTCP, nil, s.wanted()).refuse(err)
		return
	}
	h, _ := s.in.readHead(int(s.server.cfg.Limits.HeaderBytes))
	s.refuse(h, allowlists.Target{}, err)
}
