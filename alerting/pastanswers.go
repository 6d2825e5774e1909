package alerting

import (
	"net/netip"
	"time"
)

// The bounds of pastAnswers.
const (
	pastMost = 16384          // addresses of one half
	pastFor  = 24 * time.Hour // that an answer is remembered, at least, where there is room
)

// pastAnswers remembers which name an address was last given for, beyond the
// time that the answer is good, so that an alert can tell an address that was
// kept for too long from one that the job has from elsewhere. It is two halves:
// when the newer is full, or pastFor old, it takes the place of the older. A
// restart begins anew.
type pastAnswers struct {
	newer, older map[pastKey]pastAnswer
	begun        time.Time // of newer
}

// A pastKey is an address that a pool was given.
type pastKey struct {
	pool string
	addr netip.Addr
}

// A pastAnswer is the last that gave it.
type pastAnswer struct {
	host, id string
	time     time.Time
}

// observe remembers the answers of a question.
func (p *pastAnswers) observe(e *Event) {
	if e.Kind != KindDNS || e.Refused() || e.Host == "" || e.Reverse() {
		return
	}
	for _, addr := range e.Answers {
		if p.newer == nil || len(p.newer) >= pastMost {
			p.turn(e.Time)
		}
		p.newer[pastKey{e.Pool, addr.Unmap()}] = pastAnswer{e.Host, e.ID, e.Time}
	}
}

// turn begins a new half.
func (p *pastAnswers) turn(now time.Time) {
	p.older, p.newer, p.begun = p.newer, make(map[pastKey]pastAnswer), now
}

// last gives the last answer that gave a pool the address.
func (p *pastAnswers) last(pool string, addr netip.Addr) (pastAnswer, bool) {
	key := pastKey{pool, addr.Unmap()}
	if a, ok := p.newer[key]; ok {
		return a, true
	}
	a, ok := p.older[key]
	return a, ok
}

// expire forgets what is old.
func (p *pastAnswers) expire(now time.Time) {
	if now.Sub(p.begun) >= pastFor {
		p.turn(now)
	}
}
