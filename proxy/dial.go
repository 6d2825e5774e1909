package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"sallyport/allowlists"
)

// stagger is how long an attempt has before the next address is tried beside
// it: the Connection Attempt Delay of RFC 8305 section 5.
const stagger = 250 * time.Millisecond

// keepAlive finds peers that vanished without a word. Accepted connections have
// it from the start; dialled ones once a relay over them is keepAliveAfter old, as
// most never are, and whatever else waits on one has a deadline.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4}

// keepAliveAfter is how old a relay is before its upstream is asked whether it
// is still there.
const keepAliveAfter = 30 * time.Second

// dialled is the outcome of dialling one candidate.
type dialled struct {
	candidate
	conn *net.TCPConn
	err  error
}

// dialFirst dials the candidates in their order, those that failed of late
// last, each a little after the one before or at once when that failed, and
// gives the first that answers. The others are closed before it returns. No
// name is looked up: candidates are addresses. The error is a denial:
// limit-exceeded, upstream-failed, timed-out, or what the last look at an
// address said.
func (t *trip) dialFirst(ctx context.Context, may []candidate) (*net.TCPConn, candidate, error) {
	ctx = t.s.server.dialLimit(ctx)
	may = t.s.server.failed.last(may, t.target.Port, time.Now())
	first, rest := t.attemptFirst(ctx, may)
	switch {
	case first.err == nil:
		return first.conn, first.candidate, nil
	case rest.err == nil:
		return rest.conn, rest.candidate, nil
	default:
		return nil, candidate{}, t.dialTrouble(worse(first.err, rest.err), may[0].addr)
	}
}

// dialLimit is ctx with the deadline of one look-up or dial.
func (s *Server) dialLimit(ctx context.Context) context.Context {
	return until{ctx, time.Now().Add(s.cfg.Limits.DialTimeout)}
}

// until is a context with a deadline for which it has no timer: who waits in it
// keeps it. A dialer sets it on its socket, and a resolver that has the answer
// already does not wait.
type until struct {
	context.Context
	at time.Time
}

// Deadline is context.Context's.
func (u until) Deadline() (time.Time, bool) { return u.at, true }

// attemptFirst dials the first candidate on this goroutine, as it mostly is the
// one that answers, and races the others against it if it takes long. One at
// most of the two that it gives is connected.
func (t *trip) attemptFirst(ctx context.Context, may []candidate) (first, rest dialled) {
	if len(may) == 1 {
		first = t.attempt(ctx, may[0])
		return first, dialled{err: first.err}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	others := make(chan dialled, 1)
	late := time.AfterFunc(stagger, func() {
		t.s.server.crew.do(func() {
			won := t.race(ctx, may[1:])
			if won.err == nil {
				cancel() // the first
			}
			others <- won
		})
	})
	first = t.attempt(ctx, may[0])
	switch {
	case !late.Stop(): // they race already
		if first.err == nil {
			cancel()
		}
		rest = <-others
	case first.err == nil:
		return first, dialled{err: errNotTried}
	default:
		rest = t.race(ctx, may[1:])
	}
	switch {
	case rest.err != nil:
	case first.err == nil:
		_ = rest.conn.Close()
		rest = dialled{err: errNotTried}
	default: // overtaken, and perhaps never to answer
		t.s.server.failed.add(netip.AddrPortFrom(first.addr, t.target.Port), time.Now())
	}
	return first, rest
}

var errNotTried = errors.New("another address answered first")

// race dials candidates as dialFirst does, on goroutines of their own. may is
// not empty.
func (t *trip) race(ctx context.Context, may []candidate) dialled {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan dialled, len(may)) // room for all: no attempt waits for us
	started, ended := 0, 0
	defer func() {
		cancel()
		for ; ended < started; ended++ {
			if late := <-results; late.conn != nil {
				_ = late.conn.Close()
			}
		}
	}()
	start := func() {
		c := may[started]
		started++
		t.s.server.crew.do(func() { results <- t.attempt(ctx, c) })
	}
	start()
	next := time.NewTimer(stagger)
	defer next.Stop()
	var failure error
	for ended < started {
		select {
		case got := <-results:
			ended++
			if got.err == nil {
				return got
			}
			failure = worse(failure, got.err)
		case <-next.C:
		}
		if started < len(may) && ctx.Err() == nil {
			start()
			next.Reset(stagger)
		}
	}
	return dialled{err: failure}
}

// worse keeps a refusal of ours over a failure of the world, else the first.
func worse(a, b error) error {
	var denial *allowlists.DeniedError
	if a == nil || errors.As(b, &denial) && !isDenied(a) {
		return b
	}
	return a
}

// attempt dials one candidate and nothing else. A panic is an internal-error.
func (t *trip) attempt(ctx context.Context, c candidate) (got dialled) {
	got.candidate = c
	defer func() {
		if p := recover(); p != nil {
			got.err = refusal(allowlists.Decision{}, fmt.Errorf("%w: %v", errPanic, p))
		}
	}()
	place, err := t.s.server.limits.dial(t.subject)
	if err != nil {
		got.err = err
		return got
	}
	defer place.release()
	dialer := net.Dialer{
		KeepAlive:     -1,
		FallbackDelay: -1,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			return t.control(c, address)
		},
	}
	dialer.SetMultipathTCP(false)
	// DialTCP would bind even without a local address, and a bound port serves
	// one destination only: they would run out at some 28,000 a minute.
	to := netip.AddrPortFrom(c.addr, t.target.Port)
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		if ctx.Err() == nil && !isDenied(err) {
			t.s.server.failed.add(to, time.Now())
		}
		got.err = err
		return got
	}
	got.conn = conn.(*net.TCPConn) // "tcp" gives nothing else
	return got
}

// control is the last look at an address, when the socket is made and the SYN
// is not sent: it must be the one that was judged, and pass once more.
func (t *trip) control(c candidate, address string) error {
	asked, err := netip.ParseAddrPort(address)
	if err != nil || asked.Addr().Unmap() != c.addr.Unmap() || asked.Port() != t.target.Port {
		return refusal(allowlists.Decision{}, fmt.Errorf("%w: %s", errNoDial, address))
	}
	if d := t.decideAddr(t.pool, t.by, asked.Addr().Unmap(), time.Now()); !d.Allowed() {
		return &allowlists.DeniedError{Decision: d, Addr: c.addr}
	}
	return nil
}

// dialTrouble makes the denial of a dial that failed, addr being the first tried.
func (t *trip) dialTrouble(err error, addr netip.Addr) error {
	if cause := context.Cause(t.s.ctx); cause != nil {
		err = cause
	}
	denial := *asDenial(err, t.by.Rule)
	if !denial.Addr.IsValid() {
		denial.Addr = addr
	}
	return &denial
}
