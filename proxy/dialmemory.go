package proxy

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of what is remembered of failed dials.
const (
	failureKept = 10 * time.Second
	maxFailures = 4096
)

// failures remembers the destinations that could not be reached of late, so
// that those of a name that can are dialled first: RFC 8305 section 4 has
// history break ties. It never adds or leaves out an address. The zero value
// is ready, and safe for concurrent use.
type failures struct {
	mu sync.Mutex
	at map[netip.AddrPort]time.Time // at most maxFailures
}

// add remembers that addr failed now.
func (f *failures) add(addr netip.AddrPort, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil {
		f.at = make(map[netip.AddrPort]time.Time)
	}
	if len(f.at) >= maxFailures {
		for old := range f.at { // any: each is worth 10 s of order
			delete(f.at, old)
			break
		}
	}
	f.at[addr] = now
}

// has reports whether addr failed of late.
func (f *failures) has(addr netip.AddrPort, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.at[addr]
	if ok && now.Sub(at) >= failureKept {
		delete(f.at, addr)
		ok = false
	}
	return ok
}

// last gives the candidates with those behind that failed of late, each part
// in the order it had. may stays as it is.
func (f *failures) last(may []candidate, port uint16, now time.Time) []candidate {
	failed := func(c candidate) bool { return f.has(netip.AddrPortFrom(c.addr, port), now) }
	if len(may) < 2 || !slices.ContainsFunc(may, failed) {
		return may
	}
	sorted := make([]candidate, 0, len(may))
	var behind []candidate
	for _, c := range may {
		if failed(c) {
			behind = append(behind, c)
		} else {
			sorted = append(sorted, c)
		}
	}
	return append(sorted, behind...)
}
