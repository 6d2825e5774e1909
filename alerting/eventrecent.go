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
	mu    sync.Mutex    // guards the rest
	index []int32       // places in ring, see find
	ring  []recentLines // count ids, oldest first, from head on
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
	slots := 4
	for slots < 3*limit {
		slots *= 2
	}
	return &recentEvents{seed: maphash.MakeSeed(), index: make([]int32, slots), ring: make([]recentLines, limit)}
}

// add keeps a copy of a line and forgets the oldest ids beyond the bounds.
func (r *recentEvents) add(id string, line []byte) {
	if id == "" {
		return
	}
	hash := maphash.String(r.seed, id)
	r.mu.Lock()
	r.bytes += len(line)
	if slot := r.find(hash); r.index[slot] != 0 {
		lines := &r.ring[r.index[slot]-1]
		r.bytes -= len(lines.latest)
		lines.latest = append([]byte(nil), line...)
	} else {
		r.enter(hash, line)
	}
	for r.bytes > recentBytes {
		r.forgetOldest()
	}
	r.mu.Unlock()
}

// find gives the slot of an id in index, which has its place in ring plus one,
// or 0 if it is not known. An id lies in the slot that its hash says, or in one
// of those behind it, and none of them is empty.
func (r *recentEvents) find(hash uint64) int {
	mask := len(r.index) - 1
	slot := int(hash) & mask
	for r.index[slot] != 0 && r.ring[r.index[slot]-1].hash != hash {
		slot = (slot + 1) & mask
	}
	return slot
}

// remove takes an id out of index, and moves others up so that find finds them.
func (r *recentEvents) remove(hash uint64) {
	mask := len(r.index) - 1
	gap := r.find(hash)
	for slot := (gap + 1) & mask; r.index[slot] != 0; slot = (slot + 1) & mask {
		wanted := int(r.ring[r.index[slot]-1].hash) & mask
		if (slot-wanted)&mask >= (slot-gap)&mask {
			r.index[gap], gap = r.index[slot], slot
		}
	}
	r.index[gap] = 0
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
	r.index[r.find(hash)] = int32(at) + 1
	r.count++
}

// forgetOldest drops the oldest id and its lines.
func (r *recentEvents) forgetOldest() {
	lines := &r.ring[r.head]
	r.bytes -= len(lines.first) + len(lines.latest)
	r.remove(lines.hash)
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
	var lines recentLines
	if at := r.index[r.find(hash)]; at != 0 {
		lines = r.ring[at-1]
	}
	r.mu.Unlock()
	var events []Event
	for _, line := range [][]byte{lines.first, lines.latest} {
		if e, err := ParseEvent(line); line != nil && err == nil && e.ID == id {
			events = append(events, e)
		}
	}
	return events
}
