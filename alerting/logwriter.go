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
	l.watch(ctx)
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

// watch sees to it, every lookPause until ctx ends, that the file is looked at
// and that a stall shows though nobody waits for a line: when one waited from
// one look to the next and no write returned.
func (l *eventLog) watch(ctx context.Context) {
	tick := time.NewTicker(lookPause)
	defer tick.Stop()
	waited := int64(-1) // offset up to which lines were out when some waited; -1: none did
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		signal(l.look)
		written := l.written.Load()
		if l.acceptedUpTo() == written {
			waited = -1
			continue
		}
		if written == waited {
			l.late()
		}
		waited = written
	}
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
	company := time.NewTimer(0)
	defer company.Stop()
	for hurry.Err() == nil {
		select {
		case <-l.urgent:
		case <-l.rotate:
			l.reopen()
			continue
		case <-l.look:
			l.lookAt()
			continue
		case <-l.more:
			company.Reset(logLinger)
			l.linger(ctx, company)
		case <-ctx.Done():
		}
		chunks, batch := l.take()
		if len(chunks) == 0 && ctx.Err() != nil {
			return
		}
		l.writeBatch(hurry, chunks, batch)
	}
}

// linger waits for company for a line that nobody waits for, until its time is
// over.
func (l *eventLog) linger(ctx context.Context, company *time.Timer) {
	select {
	case <-l.urgent:
	case <-company.C:
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
		l.next = newFlush()
	}
	return chunks, batch
}

// writeBatch writes chunks, however often that has to be tried.
func (l *eventLog) writeBatch(hurry context.Context, chunks [][]byte, batch *flush) {
	if len(chunks) == 0 {
		return
	}
	pause := retryFirst
	for i := 0; i < len(chunks); {
		err := l.sink.write(chunks[i], l.written.Load())
		l.takeFaults()
		if err == nil {
			l.wrote(chunks[i])
			pause = retryFirst
			i++
			continue
		}
		l.mu.Lock()
		batch.end(false)
		l.stall(err.Error())
		l.mu.Unlock()
		if !l.pause(hurry, pause) {
			return
		}
		pause = min(2*pause, retryLast)
	}
	l.settle(batch)
}

// pause waits before the next try; false means to give up. A new file may be
// the cure, so a rotation ends the wait, and so does a look.
func (l *eventLog) pause(hurry context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.rotate:
		l.reopen()
	case <-l.look:
		l.lookAt()
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
func (l *eventLog) settle(batch *flush) {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch.end(true)
	l.stalled = false
	l.metrics.stalled.Set(0)
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

// lookAt has the sink look for its file. That a deleted one cannot be made
// again is a trouble, which ends with the next lines that are written.
func (l *eventLog) lookAt() {
	if err := l.sink.look(l.written.Load(), time.Now()); err != nil {
		l.mu.Lock()
		l.stall(err.Error())
		l.mu.Unlock()
	}
	l.takeFaults()
}

// takeFaults notes what the sink found wrong with its file. Where SIGHUP is
// already there somebody rotates, and was only quicker than we were.
func (l *eventLog) takeFaults() {
	found := l.sink.found
	l.sink.found = nil
	if len(found) == 0 || len(l.rotate) > 0 {
		return
	}
	for _, f := range found {
		l.metrics.faults.WithLabelValues(f.state).Inc()
	}
	l.mu.Lock()
	l.faults = append(l.faults, found...)
	l.mu.Unlock()
	signal(l.progress)
}

// A notice is what has to be told about the log's trouble.
type notice struct {
	state    string // one of the faults of the log
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
	for _, f := range l.faults {
		all = append(all, notice{state: f.state, cause: f.cause})
	}
	l.faults = nil
	tell := func(due *bool, state string) {
		if *due {
			all = append(all, notice{state: state, cause: t.cause, lost: t.lost, unwaited: t.unwaited})
			*due = false
		}
	}
	tell(&t.tellCause, logFailing)
	tell(&t.tellDropping, logDropping)
	if t.tellEnd && !l.stalled {
		tell(&t.tellEnd, logWell)
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
