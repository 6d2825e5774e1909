package proxy

import (
	"context"
	"errors"
	"time"

	"sallyport/allowlists"
)

// established is the answer to a CONNECT that may go on.
const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// connect carries one CONNECT, whose head is unread. Bytes that came with the
// head stay in the session's buffer and go to the target first.
func (s *session) connect(h *head) (parked bool) {
	t := s.newTrip(ViaConnect, h, h.target)
	if err := t.judge(); err != nil {
		t.refuse(err)
		return false
	}
	_, _ = s.in.Discard(h.size) // it is in the buffer whole
	if h.target.Port == 80 && !h.target.Addr.IsValid() && !t.mustBeTLS(t.by.Rule) {
		s.connectHTTP(t)
		return false
	}
	var err error
	if s.upstream, err = t.connectTo(s.ctx); err != nil {
		t.refuse(err)
		return false
	}
	t.peeks = t.mustBeTLS(t.by.Rule)
	s.setOpen(t)
	return s.establish(t) && s.tunnel(t)
}

// connectHTTP carries a CONNECT to port 80, inside of which plain HTTP is
// judged request by request. Nothing is dialled before a request wants it, but
// the addresses are judged, as they are before every 2xx. The bytes are in the
// records of the requests.
func (s *session) connectHTTP(t *trip) {
	may, err := t.resolve(s.ctx)
	if err != nil {
		t.refuse(err)
		return
	}
	t.edit(func(rec *ConnRecord) { rec.Addr, rec.Decision = may[0].addr, may[0].decision })
	s.setOpen(t)
	defer s.setOpen(nil)
	if !s.establish(t) {
		return
	}
	t.opened(may[0].addr)
	s.carry(t.target, nil)
	t.closed(0, 0, context.Cause(s.ctx))
}

// establish tells the client that its CONNECT may go on, or refuses it after
// all if the policy has changed since it was judged.
func (s *session) establish(t *trip) bool {
	if d := t.rejudge(); !d.Allowed() {
		t.refuse(&allowlists.DeniedError{Decision: d})
		return false
	}
	if err := context.Cause(s.ctx); err != nil {
		t.refuse(err)
		return false
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(refusalWrite))
	// A client that is gone shows in the relay.
	_, _ = s.conn.Write([]byte(established))
	_ = s.conn.SetDeadline(time.Time{})
	t.setup = time.Since(t.started)
	return true
}

// A tunnel is a relay for a trip, whose first bytes were judged where they matter.
type tunnel struct {
	t     *trip
	r     *relay
	first firstBytes
}

// tunnel judges the first bytes where they matter, and relays.
func (s *session) tunnel(t *trip) (parked bool) {
	r := s.newRelay(s.conn, s.upstream)
	r.meter = t.openMeter()
	r.meter.onChange(r.wakeSplice)
	sent, received := s.server.metrics.counters(t.subject.Pool)
	r.onSent = func(n int) { sent.Add(float64(n)) }
	r.onReceived = func(n int) { received.Add(float64(n)) }
	r.onProgress, r.closes = t.progress, true
	tn := &tunnel{t, r, firstBytes{t: t, conn: s.conn, in: s.in, address: t.rec.Addr}}
	r.mayPark(s.server.lot, s.server.cfg.ParkAfter, func() {
		s.server.crew.do(func() {
			s.goOn(func() bool { return tn.relayed(r.resumed()) })
		})
	})
	s.in = nil // a tunnel may live long; its buffer goes with the first bytes
	first := &tn.first
	switch {
	case t.peeks:
		var err error
		if r.early, err = first.needTLS(s.ctx); err != nil {
			return tn.relayed(false, err)
		}
		first.release()
		return tn.relayed(r.run(s.ctx, nil))
	case t.target.Addr.IsValid() && t.early == nil:
		return tn.relayed(r.run(s.ctx, func() ([]byte, error) {
			defer first.release()
			return first.listen(s.ctx)
		}))
	default:
		first.open()
		r.early = append(t.early, first.rest()...)
		first.release()
		return tn.relayed(r.run(s.ctx, nil))
	}
}

// relayed ends a tunnel whose relay has ended with err, unless it is parked.
func (tn *tunnel) relayed(parked bool, err error) bool {
	if parked {
		return true
	}
	t, r, s := tn.t, tn.r, tn.t.s
	r.meter.onChange(nil)
	tn.first.open()
	t.closed(r.sent.Load(), r.received.Load(), err)
	if err == nil {
		return false
	}
	if tn.first.tls && isDenied(err) && t.refusedByFirstBytes() {
		s.alert()
	}
	switch {
	case asDenial(err, nil).Decision.Reason == allowlists.TimedOut, errors.Is(err, errSaidNothing):
	case isDenied(err), r.stopped.Load():
		_ = s.upstream.SetLinger(0)
		_ = s.conn.SetLinger(0)
	default: // one side could not be written to, the other said all it had
		s.lingers = true
	}
	return false
}

// refusedByFirstBytes reports whether the record says so, for the alert that
// TLS has for it.
func (t *trip) refusedByFirstBytes() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.rec.Decision.Reason {
	case allowlists.SNIMismatch, allowlists.SNIMissing, allowlists.NotTLS, allowlists.ECHNotAllowed,
		allowlists.ResolverBypass, allowlists.DeniedByRule:
		return true
	default:
		return false
	}
}

// accessDenied is the fatal TLS alert access_denied, RFC 8446 section 6.2, in
// the record version that every client takes.
var accessDenied = []byte{21, 3, 3, 0, 2, 2, 49}

// alert sends access_denied.
func (s *session) alert() {
	_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = s.conn.Write(accessDenied)
}
