package proxy

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Times after which a relay on which nothing moves is parked: it is soon, so
// that a rush of tunnels does not pile their stacks up, and later each time,
// as one that goes on again and again is worth its goroutines.
const (
	parkAfter    = 250 * time.Millisecond
	parkAtLatest = 8 * time.Second
)

// errParks is how a way tells that its goroutine is to go.
var errParks = errors.New("the relay is to be parked")

// parking is how a relay does without goroutines while nothing moves. The
// watch offers it when both ways wait for their first byte, and wakes them by
// their read deadlines. Either takes the offer back if a byte was quicker;
// else both agree, their goroutines end, and the lot watches the
// connections. The zero parking never parks.
type parking struct {
	lot    *parkingLot
	resume func() // has goOn called, on a goroutine of its own

	offered atomic.Bool

	// Guarded by the relay's mu.
	agreed  int           // ways that took the offer
	changed sync.Cond     // agreed, offered, or the relay's stopped
	after   time.Duration // of quiet
	next    time.Time     // no offer before
	spot    *parkingSpot  // while it is parked
}

// mayPark has the relay parked in lot while nothing moves, for at least after
// at first. Then run returns, and resume is called when something does; it must
// not wait. Call it before run, for relays between two sockets.
func (r *relay) mayPark(lot *parkingLot, after time.Duration, resume func()) {
	if lot == nil {
		return
	}
	r.parking.lot, r.parking.after, r.parking.resume = lot, after, resume
	r.parking.changed.L = &r.mu
}

// parkingDue says when to offer it next, zero for not now. The caller holds mu.
func (r *relay) parkingDue() time.Time {
	p := &r.parking
	if p.lot == nil || p.spot != nil || p.offered.Load() {
		return time.Time{}
	}
	due := time.Unix(0, r.active.Load()).Add(p.after)
	if due.Before(p.next) {
		return p.next
	}
	return due
}

// offerParking offers it if that is due and nothing moves. The caller holds mu.
func (r *relay) offerParking(now time.Time) {
	due := r.parkingDue()
	if due.IsZero() || now.Before(due) {
		return
	}
	p := &r.parking
	p.next = now.Add(p.after) // if it comes to nothing
	if !r.quiet() {
		return
	}
	p.agreed = 0
	p.offered.Store(true)
	if !r.quiet() { // a way that moves now will not have seen the offer
		p.offered.Store(false)
		return
	}
	_ = r.client.SetReadDeadline(past)
	_ = r.upstream.SetReadDeadline(past)
}

// quiet reports whether each way waits or is over.
func (r *relay) quiet() bool {
	return r.upward.state.Load() != wayMoves && r.back.state.Load() != wayMoves
}

// refuseParking takes the offer back, for a way on which something moved.
func (r *relay) refuseParking() {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.parking
	if !p.offered.Load() {
		return
	}
	p.offered.Store(false)
	if !r.stopped.Load() {
		r.clearReadDeadlines()
		r.watch.Reset(r.wait(time.Now())) // for the next offer
	}
	p.changed.Broadcast()
}

// wokenEarly is for a way whose wait has ended by its deadline. It gives
// errParks if the relay is to be parked, nil if the way is to wait on, else what
// err means.
func (r *relay) wokenEarly(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.parking
	if p.offered.Load() && !r.stopped.Load() {
		p.agreed++
		p.changed.Broadcast()
		for p.offered.Load() && !r.stopped.Load() && p.agreed < r.ways() {
			p.changed.Wait()
		}
		if p.offered.Load() && !r.stopped.Load() {
			return errParks
		}
	}
	if p.lot == nil || r.stopped.Load() || r.ctx.Err() != nil {
		return &readError{err}
	}
	r.clearReadDeadlines() // the offer was taken back when this way was awake already
	return nil
}

// ways counts those that are not over.
func (r *relay) ways() int {
	n := 0
	for _, w := range []*way{&r.upward, &r.back} {
		if w.state.Load() != wayOver {
			n++
		}
	}
	return n
}

// clearReadDeadlines takes those of the offer away. The caller holds mu and has
// found the relay not stopped.
func (r *relay) clearReadDeadlines() {
	_ = r.client.SetReadDeadline(time.Time{})
	_ = r.upstream.SetReadDeadline(time.Time{})
}

// park leaves the connections to the lot, once both ways have agreed. If it
// reports true the relay may go on already, on another goroutine.
func (r *relay) park() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.parking
	p.offered.Store(false)
	if r.stopped.Load() {
		return false
	}
	r.clearReadDeadlines()
	var conns []*net.TCPConn
	for _, w := range []*way{&r.upward, &r.back} {
		if w.state.Load() != wayOver { // what is over would wake it at once
			conns = append(conns, w.src.(*net.TCPConn))
		}
	}
	spot, err := p.lot.park(p.resume, conns...)
	if err != nil {
		p.lot = nil
		return false
	}
	p.spot = spot
	p.after = min(2*p.after, parkAtLatest)
	return true
}

// unpark is the beginning of what goes on after park.
func (r *relay) unpark() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parking.spot = nil
	if !r.over {
		r.watch.Reset(r.wait(time.Now()))
	}
}

// stopParking wakes a relay that is stopped. The caller holds mu.
func (r *relay) stopParking() {
	if r.parking.lot == nil {
		return
	}
	r.parking.changed.Broadcast()
	if r.parking.spot != nil {
		r.parking.spot.leave()
	}
}
