package hindsight

import (
	"container/heap"
	"time"

	"sallyport/alerting"
)

// An entry is an event to be handed on, or a connection to be judged.
type entry struct {
	at      time.Time
	seq     uint64
	event   *alerting.Event
	session *session
}

// A queue holds what waits for its time, earliest first; of one time in the
// order in which it came.
type queue struct {
	entries entries
	seq     uint64
}

func (q *queue) Len() int { return len(q.entries) }

func (q *queue) first() time.Time { return q.entries[0].at }

func (q *queue) push(e entry) {
	q.seq++
	e.seq = q.seq
	heap.Push(&q.entries, e)
}

func (q *queue) pop() entry { return heap.Pop(&q.entries).(entry) }

// entries are the heap of a queue.
type entries []entry

func (h entries) Len() int { return len(h) }
func (h entries) Less(i, j int) bool {
	return h[i].at.Before(h[j].at) || h[i].at.Equal(h[j].at) && h[i].seq < h[j].seq
}
func (h entries) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *entries) Push(e any)   { *h = append(*h, e.(entry)) }
func (h *entries) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = entry{}
	*h = old[:len(old)-1]
	return e
}
