package webui

import (
	"net/netip"
	"sync"
	"time"
)

// The bounds of guessing: so many wrong tokens of one client at once, then one
// each guessEvery. A token has 16 characters or more: this keeps guesses from
// being worth a try, and the log readable.
const (
	guessesAtOnce = 10
	guessEvery    = 3 * time.Second
	maxGuessers   = 1024 // who are remembered; beyond, the one who may soonest guess again is forgotten
)

// guesses are the wrong tokens that clients have shown of late. The zero value
// is ready, and safe for concurrent use.
type guesses struct {
	mu sync.Mutex
	// clean is when a client has its guesses back, all of them.
	clean map[netip.Prefix]time.Time
}

// tooMany reports whether a client has no guess left.
func (g *guesses) tooMany(client string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clean[guesser(client)].Sub(now) > (guessesAtOnce-1)*guessEvery
}

// count counts a wrong token of a client.
func (g *guesses) count(client string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.clean == nil {
		g.clean = make(map[netip.Prefix]time.Time)
	}
	who := guesser(client)
	clean, known := g.clean[who]
	if !known && len(g.clean) >= maxGuessers {
		g.forget(now)
	}
	if clean.Before(now) {
		clean = now
	}
	g.clean[who] = clean.Add(guessEvery)
}

// forget makes room: of those who have all guesses back, else of the one who
// has next.
func (g *guesses) forget(now time.Time) {
	var first netip.Prefix
	for who, clean := range g.clean {
		if clean.Before(now) {
			delete(g.clean, who)
		} else if least, ok := g.clean[first]; !ok || clean.Before(least) {
			first = who
		}
	}
	if len(g.clean) >= maxGuessers {
		delete(g.clean, first)
	}
}

// guesser is who a client's guesses are counted for: its address, or of IPv6
// the /64 that one machine may have whole. All who have no address are one.
func guesser(client string) netip.Prefix {
	at, err := netip.ParseAddrPort(client)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := at.Addr().Unmap().WithZone(""), 64
	if addr.Is4() {
		bits = 32
	}
	who, _ := addr.Prefix(bits)
	return who
}
