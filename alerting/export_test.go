package alerting

import (
	"context"
	"time"
)

// EncodeForBench makes a line and forgets it.
func EncodeForBench(e *Event) int {
	w := encoders.Get().(*encoder)
	defer encoders.Put(w)
	return len(w.encode(e))
}

// A FakeReader stands in for the correlator: a struct of funcs, nil ones do nothing.
type FakeReader struct {
	Resume func() (Position, bool)
	Begin  func(Position)
	Take   func(*Event)
}

func (FakeReader) open() error { return nil }

func (f FakeReader) resume() (Position, bool) {
	if f.Resume == nil {
		return Position{}, false
	}
	return f.Resume()
}

func (f FakeReader) begin(p Position) {
	if f.Begin != nil {
		f.Begin(p)
	}
}

func (f FakeReader) take(e *Event) {
	if f.Take != nil {
		f.Take(e)
	}
}

func (FakeReader) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// SetReader makes r take the events; before Run.
func (a *Alerting) SetReader(r FakeReader) { a.reader = r }

// SetBuffer bounds the waiting lines, in bytes; before Run.
func (a *Alerting) SetBuffer(limit int64) { a.log.limit = limit }

// SetQueue bounds the events that wait for the reader; before Run.
func (a *Alerting) SetQueue(limit int) { a.queue = newEventQueue(limit) }

// Record records any event.
func (a *Alerting) Record(e Event) { a.record(&e) }

// Waiting is how many bytes of lines wait.
func (a *Alerting) Waiting() int64 {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	return a.log.size
}

// SetFlushTime bounds how long the last lines may take; before Run.
func (a *Alerting) SetFlushTime(d time.Duration) { a.log.last = d }
