package proxy

import (
	"context"
	"errors"
	"net"
	"time"

	"sallyport/allowlists"
)

// Bounds of the accept loop.
const (
	acceptPause    = 5 * time.Millisecond // after a failure, doubled up to acceptPauseMax
	acceptPauseMax = time.Second
	// refusalsAtOnce bounds the connections over a limit that are heard out
	// before they are told so; the others are told unheard.
	refusalsAtOnce = 64
	refusalTime    = time.Second // for one of them
)

// accept takes connections from l until ctx ends. It never stops for an error,
// such as too many open files: it waits a little and goes on.
func (s *Server) accept(ctx context.Context, l boundListener) {
	pause := acceptPause
	for ctx.Err() == nil {
		conn, err := l.AcceptTCP()
		if err == nil {
			pause = acceptPause
			s.take(conn, l.Listener)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.cfg.Log.Warn().Err(err).Dur("pause", pause).Msg("accepting a connection")
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, acceptPauseMax)
	}
}

// take begins a session for a connection that there is a place for.
func (s *Server) take(conn *net.TCPConn, l Listener) {
	sess := newSession(s, conn, l)
	sub, _ := sess.subject(s.cfg.Policy())
	place, err := s.limits.connection(sub, sess.reclaim)
	if err != nil {
		s.turnAway(sess, err)
		return
	}
	s.mu.Lock()
	s.sessions[sess] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	sess.place = place
	s.crew.do(sess.serve)
}

// turnAway answers a connection that there is no place for, with little effort.
func (s *Server) turnAway(sess *session, err error) {
	select {
	case s.refusing <- struct{}{}:
	default:
		_ = sess.conn.SetDeadline(time.Now().Add(acceptPause))
		if sess.by.Transparent {
			sess.newTrip(ViaTCP, nil, sess.wanted()).refuse(err)
		} else {
			sess.refuse(nil, allowlists.Target{}, err)
		}
		_ = sess.conn.Close()
		sess.cancel(err)
		return
	}
	s.running.Go(func() {
		defer func() { <-s.refusing }()
		sess.turnAway(err)
	})
}
