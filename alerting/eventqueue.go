package alerting

import "sync"

// queuedEvents is how many events may wait for the correlator.
const queuedEvents = 16384

// An eventQueue holds the events that the correlator did not take yet, in the
// order of their lines. When it is full it stops taking any, so that what is
// missing is one stretch of the log: the gap.
type eventQueue struct {
	ready chan struct{} // of 1: there is something to do

	mu     sync.Mutex // guards the rest
	items  []queuedEvent
	head   int   // items before it are taken
	limit  int   // the most items
	missed int64 // events in the gap; 0: there is none
}

// A queuedEvent is an event and the log's offset behind its line; 0 if the
// line was dropped.
type queuedEvent struct {
	event *Event
	end   int64
}

func newEventQueue(limit int) *eventQueue {
	return &eventQueue{ready: make(chan struct{}, 1), limit: limit}
}

// push adds an event, or counts it as missed. Safe for concurrent use, but the
// order of calls is the order of the events.
func (q *eventQueue) push(e *Event, end int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	signal(q.ready)
	if q.missed > 0 || len(q.items)-q.head >= q.limit {
		q.missed++
		return
	}
	if q.head > 1024 && q.head > len(q.items)/2 {
		kept := copy(q.items, q.items[q.head:])
		clear(q.items[kept:])
		q.items, q.head = q.items[:kept], 0
	}
	q.items = append(q.items, queuedEvent{e, end})
}

// pop moves the oldest events into batch, and returns how many.
func (q *eventQueue) pop(batch []queuedEvent) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := copy(batch, q.items[q.head:])
	clear(q.items[q.head : q.head+n])
	if q.head += n; q.head == len(q.items) {
		if q.head = 0; cap(q.items) > 1024 {
			q.items = nil
		}
		q.items = q.items[:0]
	}
	return n
}

// waiting is how many events wait.
func (q *eventQueue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) - q.head
}

// gap is how many events are missing behind the last of the queue.
func (q *eventQueue) gap() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.missed
}

// endGap takes events again from now on and returns how many are missing.
func (q *eventQueue) endGap() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	missed := q.missed
	q.missed = 0
	return missed
}

// empty reports whether nothing waits or is missing.
func (q *eventQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head == len(q.items) && q.missed == 0
}
