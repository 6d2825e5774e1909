package foreignlog

import (
	"container/list"
	"time"
)

// The bounds of questions that wait for their answer.
const (
	maxWaiting = 4096 // of one file
	maxAlike   = 256  // of one key, as each line about it goes through them
)

// A waiter is a question that more lines may say something about.
type waiter struct {
	at       time.Time
	line     int // in its file
	key      string
	name     string // as logged
	query    Query
	answered bool
	last     string // the name that the latest line was about
	alias    bool   // which was an alias
	element  *list.Element
}

// waiting are the questions of a file whose answers may come, oldest first. At
// most maxWaiting wait, and maxAlike under one key; the oldest then go as they are.
type waiting struct {
	limit time.Duration
	byKey map[string][]*waiter
	order *list.List // of *waiter
	line  int        // being read
}

// at tells the number of the line to come.
func (q *waiting) at(line int) { q.line = line }

func newWaiting(limit time.Duration) waiting {
	return waiting{limit: limit, byKey: make(map[string][]*waiter), order: list.New()}
}

// add lets a question wait.
func (q *waiting) add(w *waiter, emit func(Record)) {
	w.line = q.line
	w.element = q.order.PushBack(w)
	q.byKey[w.key] = append(q.byKey[w.key], w)
	if alike := q.byKey[w.key]; len(alike) > maxAlike {
		q.done(alike[0], emit)
	}
	for q.order.Len() > maxWaiting {
		q.done(q.order.Front().Value.(*waiter), emit)
	}
}

// of lists the questions of a key, oldest first. Nobody may change the slice.
func (q *waiting) of(key string) []*waiter { return q.byKey[key] }

// done emits a question and forgets it; a second time nothing happens.
func (q *waiting) done(w *waiter, emit func(Record)) {
	if w.element == nil {
		return
	}
	q.order.Remove(w.element)
	w.element = nil
	var rest []*waiter // a new slice, as the old one may be looped over
	for _, other := range q.byKey[w.key] {
		if other != w {
			rest = append(rest, other)
		}
	}
	if q.byKey[w.key] = rest; len(rest) == 0 {
		delete(q.byKey, w.key)
	}
	query := w.query
	emit(Record{Time: w.at, Line: w.line, Query: &query})
}

// expire emits what waits for longer than the limit before now; everything for
// the zero time.
func (q *waiting) expire(now time.Time, emit func(Record)) {
	for front := q.order.Front(); front != nil; front = q.order.Front() {
		w := front.Value.(*waiter)
		if !now.IsZero() && now.Sub(w.at) <= q.limit {
			return
		}
		q.done(w, emit)
	}
}
