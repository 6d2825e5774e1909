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

// keepAlive finds peers that vanished without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4}

// dialled is the outcome of dialling one candidate.
type dialled struct {
	candidate
	conn *net.TCPConn
	err  error
}

// dialFirst dials the candidates in their order, each a little after the one
// before or at once when that failed, and gives the first that answers. The
// others are closed before it returns. No name is looked up: candidates are
// addresses. The error is a denial: limit-exceeded, upstream-failed, timed-out,
// or what the last look at an address said.
func (t *trip) dialFirst(ctx context.Context, may []candidate) (*net.TCPConn, candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, t.s.server.cfg.Limits.DialTimeout)
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
		go func() { results <- t.attempt(ctx, c) }()
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
				return got.conn, got.candidate, nil
			}
			failure = worse(failure, got.err)
		case <-next.C:
		}
		if started < len(may) && ctx.Err() == nil {
			start()
			next.Reset(stagger)
		}
	}
	return nil, candidate{}, t.dialTrouble(failure, may[0].addr)
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
		KeepAliveConfig: keepAlive,
		FallbackDelay:   -1,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			return t.control(c, address)
		},
	}
	dialer.SetMultipathTCP(false)
	got.conn, got.err = dialer.DialTCP(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(c.addr, t.target.Port))
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
