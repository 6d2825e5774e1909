package alerting

import (
	"context"
	"fmt"
	"time"
)

// interruptWait is how long an interrupted write may take to return.
const interruptWait = time.Second

// run writes lines until ctx ends, then what is left, for flushLast at most.
// It returns an error if lines are lost at the end. There is one run at a time.
func (l *eventLog) run(ctx context.Context) error {
	done := make(chan struct{})
	hurry, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	go func() {
		defer close(done)
		l.writeLoop(ctx, hurry)
	}()
	<-ctx.Done()
	timer := time.NewTimer(l.last)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		giveUp()
		l.sink.interrupt()
		// A write to a blocking descriptor cannot be taken back: then the
		// goroutine ends with the process, or when somebody reads.
		timer.Reset(interruptWait)
		select {
		case <-done:
		case <-timer.C:
		}
	}
	if lost := l.abandon(); lost > 0 {
		return fmt.Errorf("closing the event log: %d bytes of lines were not written", lost)
	}
	return nil
}

// abandon closes the buffer and returns how many bytes in it are lost.
func (l *eventLog) abandon() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stall("stopped")
	l.closed = true
	return l.size
}

// writeLoop writes batch after batch until ctx ended and nothing is left, or
// hurry ends.
func (l *eventLog) writeLoop(ctx, hurry context.Context) {
	for hurry.Err() == nil {
		select {
		case <-l.urgent:
		case <-l.rotate:
			l.reopen()
			continue
		case <-l.more:
			l.linger(ctx)
		case <-ctx.Done():
		}
		chunks, batch := l.take()
		if len(chunks) == 0 && ctx.Err() != nil {
			return
		}
		l.writeBatch(hurry, chunks, batch)
	}
}

// linger waits for company for a line that nobody waits for.
func (l *eventLog) linger(ctx context.Context) {
	timer := time.NewTimer(logLinger)
	defer timer.Stop()
	select {
	case <-l.urgent:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// take gives the waiting lines to the writer.
func (l *eventLog) take() ([][]byte, *flush) {
	l.mu.Lock()
	defer l.mu.Unlock()
	chunks, batch := l.chunks, l.next
	if len(chunks) > 0 {
		l.chunks = nil
		l.next = &flush{done: make(chan struct{})}
	}
	return chunks, batch
}

// writeBatch writes chunks, however often that has to be tried.
func (l *eventLog) writeBatch(hurry context.Context, chunks [][]byte, batch *flush) {
	if len(chunks) == 0 {
		return
	}
	released := false
	pause := retryFirst
	for i := 0; i < len(chunks); {
		err := l.sink.write(chunks[i], l.written.Load())
		if err == nil {
			l.wrote(chunks[i])
			pause = retryFirst
			i++
			continue
		}
		if !released {
			close(batch.done)
			released = true
		}
		l.mu.Lock()
		l.stall(err.Error())
		l.mu.Unlock()
		if !l.pause(hurry, pause) {
			return
		}
		pause = min(2*pause, retryLast)
	}
	if !released {
		close(batch.done)
	}
	l.settle()
}

// pause waits before the next try; false means to give up. A new file may be
// the cure, so a rotation ends the wait.
func (l *eventLog) pause(hurry context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.rotate:
		l.reopen()
	case <-hurry.Done():
		return false
	}
	return true
}

// wrote counts a chunk that is out and keeps it for the next lines.
func (l *eventLog) wrote(chunk []byte) {
	l.written.Add(int64(len(chunk)))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size -= int64(len(chunk))
	if len(l.free) < freeChunks {
		l.free = append(l.free, chunk[:0])
	}
	if l.size < l.limit/2 {
		l.refusing.Store(false)
	}
	signal(l.progress)
}

// settle ends the stall, as a whole batch is out, and the trouble with it once
// the buffer has room again.
func (l *eventLog) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = false
	if l.trouble.cause != "" && l.size < l.limit/2 {
		l.trouble.tellEnd = true
	}
	signal(l.progress)
}

// reopen opens the file again, as after a rotation. If that cannot be done the
// old one stays, which is said as a trouble.
func (l *eventLog) reopen() {
	if err := l.sink.reopen(l.written.Load()); err != nil {
		l.mu.Lock()
		l.begin("opening the file again: " + err.Error())
		l.mu.Unlock()
	}
	signal(l.progress)
}

// A notice is what has to be told about the log's trouble.
type notice struct {
	state    string // "failing", "dropping" or "recovered"
	cause    string
	lost     int64
	unwaited int64
}

// notices gives what was not told yet, in order.
func (l *eventLog) notices() []notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.trouble
	var all []notice
	tell := func(due *bool, state string) {
		if *due {
			all = append(all, notice{state: state, cause: t.cause, lost: t.lost, unwaited: t.unwaited})
			*due = false
		}
	}
	tell(&t.tellCause, "failing")
	tell(&t.tellDropping, "dropping")
	if t.tellEnd && !l.stalled {
		tell(&t.tellEnd, "recovered")
		l.trouble = trouble{}
	}
	return all
}

// isStalled reports whether lines are not going out.
func (l *eventLog) isStalled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stalled
}
