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
	open    atomic.Int32 // len(watches)
	mu      sync.Mutex   // guards watches
	watches []*Watch
}

// A Watch shows events to one who watches. Its methods are safe for concurrent
// use, but Next is for one goroutine at a time.
type Watch struct {
	hub   *watchHub
	wants func(*Event) bool
	ready chan struct{} // of 1: there is something to show

	mu      sync.Mutex // guards the rest
	waiting []Event
	missed  int64
	refused tokens
	others  tokens
	follows []string // ids of open connections that were shown, oldest first
}

// tokens let so many events pass.
type tokens struct {
	left float64
	last time.Time
}

// take reports whether one more may pass at now.
func (t *tokens) take(now time.Time) bool {
	t.left = min(watchBurst, t.left+now.Sub(t.last).Seconds()*watchRate)
	t.last = now
	if t.left < 1 {
		return false
	}
	t.left--
	return true
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
	if len(h.watches) >= maxWatches {
		return nil, false
	}
	w := &Watch{hub: h, wants: wants, ready: make(chan struct{}, 1)}
	h.watches = append(h.watches, w)
	h.open.Store(int32(len(h.watches)))
	return w, true
}

// Close ends the showing. It may be called twice.
func (w *Watch) Close() {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watches = slices.DeleteFunc(h.watches, func(other *Watch) bool { return other == w })
	h.open.Store(int32(len(h.watches)))
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
		events, missed = w.waiting, w.missed // none, where the last call took what this signal was of
		w.waiting, w.missed = nil, 0
		w.mu.Unlock()
	}
	return events, missed
}

// show offers an event to all who watch. It keeps no part of it that e's owner
// may use again.
func (h *watchHub) show(e *Event) {
	if h.open.Load() == 0 {
		return
	}
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.watches {
		w.offer(e, now)
	}
}

func (w *Watch) offer(e *Event, now time.Time) {
	if !w.wants(e) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	defer signal(w.ready)
	if !w.passes(e, now) || len(w.waiting) >= watchWaiting {
		w.missed++
		return
	}
	copied := *e
	copied.Answers, copied.Removed, copied.CNAMEs, copied.Details = nil, nil, nil, nil
	w.waiting = append(w.waiting, copied)
}

// passes reports whether an event is among those that are shown. The caller
// holds mu.
func (w *Watch) passes(e *Event, now time.Time) bool {
	if e.Kind == KindConn && (e.Phase == PhaseClose || e.Phase == PhaseProgress) {
		if i := slices.Index(w.follows, e.ID); i >= 0 {
			if e.Phase == PhaseClose {
				w.follows = slices.Delete(w.follows, i, i+1)
			}
			return true
		}
	}
	budget := &w.others
	if e.Kind == KindAlert || e.Refused() {
		budget = &w.refused
	}
	if !budget.take(now) {
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
