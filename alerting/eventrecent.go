package alerting

import (
	"hash/maphash"
	"sync"
)

// The bounds of recentEvents.
const (
	recentDecisions = 10_000
	recentBytes     = 16 << 20
	recentBlock     = 16 << 10
)

// recentEvents holds the lines of the last decisions by id, for people who ask
// why. Safe for concurrent use.
type recentEvents struct {
	seed  maphash.Seed
	mu    sync.Mutex       // guards the rest
	index map[uint64]int32 // place in ring, by the hash of an id: without pointers for the collector to follow
	ring  []recentLines    // count ids, oldest first, from head on
	head  int
	count int
	bytes int
	// block takes first lines, one behind the other: they are forgotten in the
	// order in which they came, and so is each block.
	block []byte
}

// recentLines are the first line of an id, which has the verdict, and its
// latest one, nil if there is no other. Two ids with one hash are one here; get
// tells them apart.
type recentLines struct {
	hash          uint64
	first, latest []byte
}

func newRecentEvents(limit int) *recentEvents {
	return &recentEvents{seed: maphash.MakeSeed(), index: make(map[uint64]int32), ring: make([]recentLines, limit)}
}

// add keeps a copy of a line and forgets the oldest ids beyond the bounds.
func (r *recentEvents) add(id string, line []byte) {
	if id == "" {
		return
	}
	hash := maphash.String(r.seed, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += len(line)
	if at, known := r.index[hash]; known {
		r.bytes -= len(r.ring[at].latest)
		r.ring[at].latest = append([]byte(nil), line...)
	} else {
		r.enter(hash, line)
	}
	for r.bytes > recentBytes {
		r.forgetOldest()
	}
}

// enter gives a new id the place behind the others.
func (r *recentEvents) enter(hash uint64, line []byte) {
	if r.count == len(r.ring) {
		r.forgetOldest()
	}
	if cap(r.block)-len(r.block) < len(line) {
		r.block = make([]byte, 0, max(recentBlock, len(line)))
	}
	begin := len(r.block)
	r.block = append(r.block, line...)
	at := (r.head + r.count) % len(r.ring)
	r.ring[at] = recentLines{hash: hash, first: r.block[begin:len(r.block):len(r.block)]}
	r.index[hash] = int32(at)
	r.count++
}

// forgetOldest drops the oldest id and its lines.
func (r *recentEvents) forgetOldest() {
	lines := &r.ring[r.head]
	r.bytes -= len(lines.first) + len(lines.latest)
	delete(r.index, lines.hash)
	*lines = recentLines{}
	r.head, r.count = (r.head+1)%len(r.ring), r.count-1
}

// snapshot is all there is, oldest first. Lines are never changed.
func (r *recentEvents) snapshot() []recentLines {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]recentLines, 0, r.count)
	end := r.head + r.count
	all = append(all, r.ring[r.head:min(end, len(r.ring))]...)
	if end > len(r.ring) {
		all = append(all, r.ring[:end-len(r.ring)]...)
	}
	return all
}

// get decodes the lines of an id.
func (r *recentEvents) get(id string) []Event {
	hash := maphash.String(r.seed, id)
	r.mu.Lock()
	at, ok := r.index[hash]
	lines := r.ring[at]
	r.mu.Unlock()
	if !ok {
		return nil
	}
	var events []Event
	for _, line := range [][]byte{lines.first, lines.latest} {
		if e, err := ParseEvent(line); line != nil && err == nil && e.ID == id {
			events = append(events, e)
		}
	}
	return events
}
