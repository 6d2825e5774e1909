package firewall

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of a Wanted.
const (
	maxWanted = 32768            // questions remembered; the oldest give way
	wantedFor = 10 * time.Second // from the packet to the question that it was
)

// A Wanted remembers where questions over UDP were sent before they were
// redirected, by the client's address and port: UDP has no SO_ORIGINAL_DST. A
// client that asks two resolvers from one port within a minute gets another port
// for the second, as both would look alike behind the redirect: that one is not
// found.
// Safe for concurrent use; the zero Wanted is empty.
type Wanted struct {
	mu    sync.Mutex
	byAsk map[netip.AddrPort]int // index in ring of the latest of each client
	ring  []wantedEntry          // at most maxWanted, the oldest at next once full
	next  int
}

type wantedEntry struct {
	client   netip.AddrPort
	resolver netip.Addr
	time     time.Time
}

// Note remembers that client sent a question to resolver.
func (w *Wanted) Note(client netip.AddrPort, resolver netip.Addr, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.byAsk[client]; ok {
		w.ring[at].resolver, w.ring[at].time = resolver, now
		return
	}
	if w.byAsk == nil {
		w.byAsk = make(map[netip.AddrPort]int)
	}
	entry := wantedEntry{client, resolver, now}
	if len(w.ring) < maxWanted {
		w.byAsk[client] = len(w.ring)
		w.ring = append(w.ring, entry)
		return
	}
	delete(w.byAsk, w.ring[w.next].client)
	w.ring[w.next], w.byAsk[client] = entry, w.next
	w.next = (w.next + 1) % maxWanted
}

// Of gives the resolver that client's question was sent to, the zero Addr if
// nothing is known.
func (w *Wanted) Of(client netip.AddrPort, now time.Time) netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.byAsk[client]
	if !ok || now.Sub(w.ring[at].time) > wantedFor {
		return netip.Addr{}
	}
	return w.ring[at].resolver
}
