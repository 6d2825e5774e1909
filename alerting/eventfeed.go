package alerting

import (
	"context"
	"runtime"
	"time"
)

// The times of feed.
const (
	feedStall = time.Second     // a line that is not out by then means a stall
	feedDrain = 5 * time.Second // how long events are handed on after the end
	feedRest  = 20 * time.Microsecond
)

// The system events that this package and the daemon record. docs/events.md
// explains each.
const (
	SystemStarted      = "started"
	SystemReloaded     = "reloaded"
	SystemReloadFailed = "reload-failed"
	SystemStopping     = "stopping"
	SystemLogDegraded  = "log-degraded"
	SystemResumed      = "resumed"
	SystemEventsMissed = "events-missed"
	SystemAlertFolded  = "alert-folded"
	SystemPacketsLost  = "packets-lost"
	SystemEnforcement  = "enforcement"
	SystemBookFailed   = "book-failed"
	SystemGranted      = "granted"
	SystemGrantEnded   = "grant-ended"
)

// feed hands events to the reader, each once its line is written, until ctx
// ends and none is left, or feedDrain is over.
func (a *Alerting) feed(ctx context.Context) {
	draining := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(feedDrain, func() { close(draining) })
	})
	defer stop()

	last := a.resume(draining)
	rest := time.NewTimer(0)
	defer rest.Stop()
	handed := 0 // since the last rest
	var batch [64]queuedEvent
	for {
		a.tellNotices()
		n := a.queue.pop(batch[:])
		switch {
		case n > 0:
			last = a.hand(batch[:n], last, draining)
			if handed += n; handed >= a.queue.waiting()/4 {
				letOthers(rest)
				handed = 0
			}
		case a.queue.gap() > 0:
			last = a.readGap(last, draining)
		default:
			select {
			case <-a.queue.ready:
			case <-a.log.progress:
			case <-ctx.Done():
				if a.queue.empty() {
					return
				}
			}
		}
		select {
		case <-draining:
			return
		default:
		}
	}
}

// letOthers rests for a moment where there is one processor only. Lines are out
// by the hundreds, and who answers questions shall not wait until all of those
// events were handed on. To yield would not do: Go looks at the network when
// nobody can run, or after 10 ms.
func letOthers(rest *time.Timer) {
	if runtime.GOMAXPROCS(0) == 1 {
		rest.Reset(feedRest)
		<-rest.C
	}
}

// hand gives events to the reader, and returns the place of the last one that
// has one.
func (a *Alerting) hand(batch []queuedEvent, last Position, stop <-chan struct{}) Position {
	now := a.watches.now()
	for i, item := range batch {
		if a.out(item.end, stop) {
			item.event.Pos = a.log.sink.place(item.end)
		}
		if !item.event.Pos.IsZero() {
			last = item.event.Pos
		}
		a.hits.count(item.event)
		a.watches.show(item.event, now)
		a.reader.take(item.event)
		*item.event, batch[i] = Event{}, queuedEvent{}
		events.Put(item.event)
	}
	return last
}

// out waits until the line that ends at offset is written: true. It is false
// at once for a line that was dropped or a log that is stalled; a log that
// takes longer than feedStall counts as stalled.
func (a *Alerting) out(offset int64, stop <-chan struct{}) bool {
	if offset == 0 {
		return false
	}
	if a.log.written.Load() >= offset {
		return true
	}
	timer := time.NewTimer(feedStall)
	defer timer.Stop()
	for !a.log.isStalled() {
		select {
		case <-a.log.progress:
		case <-timer.C:
			if a.log.written.Load() < offset {
				a.log.late()
			}
		case <-stop:
			return false
		}
		if a.log.written.Load() >= offset {
			return true
		}
	}
	return false
}

// tellNotices says what is wrong with the log, in the log once it takes lines,
// to the correlator and in our own messages.
func (a *Alerting) tellNotices() {
	for _, n := range a.log.notices() {
		a.config.Log.Error().Str("state", n.state).Str("cause", n.cause).Int64("lost", n.lost).
			Int64("unwaited", n.unwaited).Msg("the event log is degraded")
		a.System(SystemLogDegraded, map[string]any{
			"state": n.state, "cause": n.cause, "lost": n.lost, "unwaited": n.unwaited,
			"refusing": a.log.refusing.Load(),
		})
	}
}
