package alerting

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of those who watch.
const (
	maxWatches   = 16  // at once
	watchWaiting = 128 // events that wait for one of them
	watchRate    = 20  // events a second, of refusals and of the rest each
	watchBurst   = 40  // the most at once, after some quiet
	watchFollows = 256 // connections whose end is shown as they were
)

// A watchHub shows events to those who watch, and holds up nobody: who is slow
// or is shown too many misses some, and is told how many. While nobody watches
// it costs one atomic load an event.
type watchHub struct {
	mu      sync.Mutex               // held by who changes watches
	watches atomic.Pointer[[]*Watch] // a slice that is never changed; nil until first needed
}

// all are those who watch.
func (h *watchHub) all() []*Watch {
	if watches := h.watches.Load(); watches != nil {
		return *watches
	}
	return nil
}

// A Watch shows events to one who watches. Its methods are safe for concurrent
// use, but Next is for one goroutine at a time.
type Watch struct {
	hub   *watchHub
	wants func(*Event) bool
	began time.Time
	ready chan struct{} // of 1: there is something to show
	// missed are not shown. Who counts the first of them signals ready.
	missed atomic.Int64

	mu      sync.Mutex // guards the rest, but for what is atomic
	waiting []Event
	refused tokens
	others  tokens
	follows []string // ids of open connections that were shown, oldest first
}

// tokens let so many events pass.
type tokens struct {
	spent atomic.Int64 // in nanoseconds: until this age of the watch there is none left
	left  float64
	last  time.Duration // age of the watch; may go back, where goroutines took their times apart
}

// take reports whether one more may pass at an age of the watch.
func (t *tokens) take(age time.Duration) bool {
	t.left = min(watchBurst, t.left+(age-t.last).Seconds()*watchRate)
	t.last = age
	passes := t.left >= 1
	if passes {
		t.left--
	}
	if t.left < 1 {
		t.spent.Store(int64(age) + int64((1-t.left)*float64(time.Second)/watchRate))
	}
	return passes
}

// Watch shows events from now on that wants asks for: dns and conn events once
// their line is written, alert events when they are made. Of refusals and of
// the rest it passes watchRate a second each; the end of a connection that was
// shown always passes. wants must be quick, and keep nothing of the event. It
// is false where maxWatches watch already. The Watch must be closed.
func (a *Alerting) Watch(wants func(*Event) bool) (*Watch, bool) {
	h := &a.watches
	h.mu.Lock()
	defer h.mu.Unlock()
	watches := h.all()
	if len(watches) >= maxWatches {
		return nil, false
	}
	w := &Watch{hub: h, wants: wants, began: time.Now(), ready: make(chan struct{}, 1)}
	w.refused.left, w.others.left = watchBurst, watchBurst
	watches = append(slices.Clip(watches), w)
	h.watches.Store(&watches)
	return w, true
}

// Close ends the showing. It may be called twice.
func (w *Watch) Close() {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	watches := slices.DeleteFunc(slices.Clone(h.all()), func(other *Watch) bool { return other == w })
	h.watches.Store(&watches)
}

// Next waits for events until ctx ends, and returns those that wait, with how
// many more there were that are not shown. Both are empty at the end of ctx.
func (w *Watch) Next(ctx context.Context) (events []Event, missed int64) {
	for len(events) == 0 && missed == 0 {
		select {
		case <-w.ready:
		case <-ctx.Done():
			return nil, 0
		}
		w.mu.Lock()
		events, w.waiting = w.waiting, nil // none, where the last call took what this signal was of
		w.mu.Unlock()
		missed = w.missed.Swap(0)
	}
	return events, missed
}

// now is the time for events that are shown together, the zero time while nobody
// watches.
func (h *watchHub) now() time.Time {
	if len(h.all()) == 0 {
		return time.Time{}
	}
	return time.Now()
}

// show offers an event to all who watch, at a time that now gave. It keeps no
// part of it that e's owner may use again.
func (h *watchHub) show(e *Event, now time.Time) {
	for _, w := range h.all() {
		if now.IsZero() {
			now = time.Now() // it was opened just now
		}
		w.offer(e, now)
	}
}

func (w *Watch) offer(e *Event, now time.Time) {
	if !w.wants(e) {
		return
	}
	age, budget := max(0, now.Sub(w.began)), w.budget(e)
	if int64(age) < budget.spent.Load() && !follows(e) || !w.add(e, age, budget) {
		if w.missed.Add(1) > 1 {
			return // Next knows
		}
	}
	signal(w.ready)
}

// budget is what an event takes its token from.
func (w *Watch) budget(e *Event) *tokens {
	if e.Kind == KindAlert || e.Refused() {
		return &w.refused
	}
	return &w.others
}

// follows reports whether an event tells how a connection went on.
func follows(e *Event) bool {
	return e.Kind == KindConn && (e.Phase == PhaseClose || e.Phase == PhaseProgress)
}

// add has an event wait for Next, if it is among those that are shown.
func (w *Watch) add(e *Event, age time.Duration, budget *tokens) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.passes(e, age, budget) || len(w.waiting) >= watchWaiting {
		return false
	}
	copied := *e
	copied.Answers, copied.Removed, copied.CNAMEs, copied.Details = nil, nil, nil, nil
	w.waiting = append(w.waiting, copied)
	return true
}

// passes reports whether an event is among those that are shown. The caller
// holds mu.
func (w *Watch) passes(e *Event, age time.Duration, budget *tokens) bool {
	if follows(e) {
		if i := slices.Index(w.follows, e.ID); i >= 0 {
			if e.Phase == PhaseClose {
				w.follows = slices.Delete(w.follows, i, i+1)
			}
			return true
		}
	}
	if !budget.take(age) {
		return false
	}
	if e.Kind == KindConn && e.Phase == PhaseOpen {
		if len(w.follows) >= watchFollows {
			w.follows = slices.Delete(w.follows, 0, 1)
		}
		w.follows = append(w.follows, e.ID)
	}
	return true
}
