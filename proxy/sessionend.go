package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"sallyport/allowlists"
)

// endGrace is how long a session that is told to end may take to say so to its
// client, before its connection is closed under it.
const endGrace = time.Second

var errTakenBack = errors.New("the place was taken back for a pool or client with less than its share")

// close closes the connection: with a reset if that is the answer, and not
// before the client had time to read another.
func (s *session) close() {
	if s.upstream != nil {
		_ = s.upstream.Close()
		s.setOpen(nil)
	}
	var denial *allowlists.DeniedError
	if errors.As(context.Cause(s.ctx), &denial) && !s.lingers {
		_ = s.conn.SetLinger(0)
	}
	if s.lingers {
		s.linger()
	}
	s.cancel(nil)
	s.meter.close()
	_ = s.conn.Close()
	s.in.release()
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
