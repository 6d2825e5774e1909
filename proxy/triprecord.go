package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"sallyport/allowlists"
)

// write changes the record, counts it, and hands it over in a phase.
func (t *trip) write(phase string, change, count func(*ConnRecord)) ConnRecord {
	t.mu.Lock()
	change(&t.rec)
	t.rec.Phase, t.rec.Time = phase, time.Now()
	t.rec.Took = t.rec.Time.Sub(t.started)
	if phase == PhaseOpen && t.setup > 0 { // the first bytes may have taken longer
		t.rec.Took = t.setup
	}
	if count != nil {
		count(&t.rec)
	}
	rec := t.rec
	rec.DNSIDs, rec.Names = slices.Clone(rec.DNSIDs), slices.Clone(rec.Names)
	t.mu.Unlock()
	t.s.server.cfg.Observe(rec)
	return rec
}

// blame puts a denial into a record: its decision, and the failure beneath.
func (rec *ConnRecord) blame(denial *allowlists.DeniedError) {
	rec.Decision, rec.Err = denial.Decision, ""
	if denial.Addr.IsValid() {
		rec.Addr = denial.Addr
	}
	if denial.Err != nil {
		rec.Err = denial.Err.Error()
	}
}

// names lists what the pool was answered with for an address, if it is one.
func (t *trip) names(addr netip.Addr) []string {
	if !addr.IsValid() {
		return nil
	}
	return t.s.server.cfg.Resolver.Names(t.subject, addr.Unmap())
}

// refuse writes the refused record, then answers the client.
func (t *trip) refuse(err error) {
	denial := asDenial(err, t.by.Rule)
	addr := denial.Addr
	if !addr.IsValid() {
		addr = t.target.Addr
	}
	names := t.names(addr)
	if !addr.IsValid() {
		names = t.answered
	}
	rec := t.write(PhaseRefused, func(rec *ConnRecord) {
		rec.blame(denial)
		rec.Names = names
	}, t.s.server.metrics.decided)
	t.s.answer(&rec, t, denial)
}

// opened writes the open record. upstream is zero if nothing is dialled.
func (t *trip) opened(upstream netip.Addr) {
	names := t.names(upstream)
	rec := t.write(PhaseOpen, func(rec *ConnRecord) {
		if upstream.IsValid() && !rec.Addr.IsValid() { // a connection of an earlier request
			rec.Addr = upstream
			rec.Decision = t.judged(upstream)
		}
		if rec.DNSIDs == nil && t.s.known.target == t.target {
			rec.DNSIDs = t.s.known.ids
		}
		rec.Names = names
	}, t.s.server.metrics.opened)
	t.s.known = knownAnswer{t.target, rec.DNSIDs}
}

// progress writes how much a tunnel has carried.
func (t *trip) progress(sent, received int64) {
	t.write(PhaseProgress, func(rec *ConnRecord) { rec.Sent, rec.Received = sent, received }, nil)
}

// closed writes the close record. err is nil for a regular end; one that is no
// denial leaves the decision as it was.
func (t *trip) closed(sent, received int64, err error) {
	t.write(PhaseClose, func(rec *ConnRecord) {
		rec.Sent, rec.Received = sent, received
		if err == nil {
			return
		}
		if denial := (*allowlists.DeniedError)(nil); errors.As(err, &denial) {
			rec.blame(denial)
		} else {
			rec.Err = err.Error()
		}
	}, t.s.server.metrics.closed)
}

// abandon completes the records of a trip that a panic ended.
func (t *trip) abandon(err error) {
	t.mu.Lock()
	phase, sent, received := t.rec.Phase, t.rec.Sent, t.rec.Received
	t.mu.Unlock()
	switch phase {
	case "":
		t.refuse(err)
	case PhaseOpen, PhaseProgress:
		_ = t.s.conn.SetLinger(0)
		t.closed(sent, received, err)
	}
}

// The rest makes a trip the passage of a plain HTTP request, and a session the
// gate of those.

// decision is what admitted the request.
func (t *trip) decision() allowlists.Decision { return t.by }

// generation numbers the policy that decided.
func (t *trip) generation() uint64 { return t.policy.Generation() }

// reusable reports whether an open connection to addr may carry the request.
func (t *trip) reusable(addr netip.Addr) bool {
	t.reused = candidate{addr, t.decideAddr(t.pool, t.by, addr, time.Now())}
	return t.reused.decision.Allowed()
}

// judged is what reusable found of an address, or is now if it was not asked.
func (t *trip) judged(addr netip.Addr) allowlists.Decision {
	if t.reused.addr == addr {
		return t.reused.decision
	}
	return t.decideAddr(t.pool, t.by, addr, time.Now())
}

// dial connects to the request's host. A panic is an internal-error, as this may
// run on a goroutine of net/http.
func (t *trip) dial(ctx context.Context) (dialled net.Conn, err error) {
	defer func() {
		if p := recover(); p != nil {
			dialled, err = nil, refusal(allowlists.Decision{}, fmt.Errorf("%w: %v", errPanic, p))
		}
	}()
	conn, err := t.connectTo(ctx)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// answer tells the client what err says, without a record.
func (t *trip) answer(err error) {
	t.mu.Lock()
	rec := t.rec
	t.mu.Unlock()
	t.s.answer(&rec, t, asDenial(err, t.by.Rule))
}

// admit judges one plain HTTP request.
func (s *session) admit(_ context.Context, h *head, target allowlists.Target) (passage, error) {
	t := s.newTrip(ViaHTTP, h, target)
	if err := t.judge(); err != nil {
		return nil, err
	}
	return t, nil
}

// refuse writes one refused record and answers it. h may be nil.
func (s *session) refuse(h *head, target allowlists.Target, err error) {
	t := s.last
	if t == nil || t.head != h || h == nil || t.rec.Phase != "" {
		via := ViaHTTP
		if (h == nil || h.form == formAuthority) && !s.by.Transparent {
			via = ViaConnect
		}
		t = s.newTrip(via, h, target)
	}
	t.refuse(err)
}
