package alerting

import "sync"

// The bounds of recentEvents.
const (
	recentDecisions = 10_000
	recentBytes     = 16 << 20
)

// recentEvents holds the lines of the last decisions by id, for people who ask
// why. Safe for concurrent use.
type recentEvents struct {
	mu    sync.Mutex
	lines map[string]recentLines
	order []string // a ring: count ids, oldest first, from head on
	head  int
	count int
	bytes int
}

// recentLines are the first line of an id, which has the verdict, and its
// latest one, nil if there is no other.
type recentLines struct{ first, latest []byte }

func newRecentEvents(limit int) *recentEvents {
	return &recentEvents{lines: make(map[string]recentLines), order: make([]string, limit)}
}

// add keeps a copy of a line and forgets the oldest ids beyond the bounds.
func (r *recentEvents) add(id string, line []byte) {
	if id == "" {
		return
	}
	kept := append([]byte(nil), line...)
	r.mu.Lock()
	defer r.mu.Unlock()
	lines, known := r.lines[id]
	if known {
		r.bytes -= len(lines.latest)
		lines.latest = kept
	} else {
		lines.first = kept
		r.enter(id)
	}
	r.lines[id] = lines
	r.bytes += len(kept)
	for r.bytes > recentBytes {
		r.forgetOldest()
	}
}

// enter gives a new id its place in order.
func (r *recentEvents) enter(id string) {
	if r.count == len(r.order) {
		r.forgetOldest()
	}
	r.order[(r.head+r.count)%len(r.order)] = id
	r.count++
}

// forgetOldest drops the oldest id and its lines.
func (r *recentEvents) forgetOldest() {
	id := r.order[r.head]
	lines := r.lines[id]
	r.bytes -= len(lines.first) + len(lines.latest)
	delete(r.lines, id)
	r.head, r.count = (r.head+1)%len(r.order), r.count-1
}

// get decodes the lines of an id.
func (r *recentEvents) get(id string) []Event {
	r.mu.Lock()
	lines, ok := r.lines[id]
	r.mu.Unlock()
	if !ok {
		return nil
	}
	var events []Event
	for _, line := range [][]byte{lines.first, lines.latest} {
		if e, err := ParseEvent(line); line != nil && err == nil {
			events = append(events, e)
		}
	}
	return events
}
