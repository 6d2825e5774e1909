package alerting

import (
	"sync"
	"sync/atomic"
	"time"
)

// The sizes and times of the event log.
const (
	logBuffer  = 64 << 20               // bytes of lines that may wait
	logReserve = 64 << 10               // more, for lines about the log itself
	logChunk   = 64 << 10               // bytes written at once; a line never spans two chunks
	logLinger  = 50 * time.Millisecond  // how long a line of allowed traffic may wait for company
	stallWait  = time.Second            // how long a refusal waits for its line before the sink counts as stalled
	retryFirst = 100 * time.Millisecond // pause after a failed write, doubled up to retryLast
	retryLast  = time.Second
	flushLast  = 5 * time.Second // how long the last lines may take
)

// An eventLog is the buffer of lines and the goroutine that writes them. Lines
// are written whole and in order; after a failed or short write the rest of the
// line comes first.
//
//	append -> waiting -> (take) -> being written -> written
//
// Its offsets count the bytes of every line ever accepted, from 0 at start;
// sink turns them into places in a file.
type eventLog struct {
	sink    *logSink
	denies  bool // on_error: deny
	limit   int64
	last    time.Duration // flushLast
	metrics *logMetrics
	more    chan struct{} // of 1: there are lines
	urgent  chan struct{} // of 1: somebody waits for a line
	rotate  chan struct{} // of 1: open the file again
	look    chan struct{} // of 1: see whether the file is at its path
	// progress, of 1, wakes the one goroutine that watches written, stalled
	// and notices.
	progress chan struct{}
	written  atomic.Int64 // offset up to which lines are out
	refusing atomic.Bool  // what gate reports

	mu       sync.Mutex // guards the rest
	chunks   [][]byte   // waiting, each of whole lines, oldest first
	free     [][]byte   // at most freeChunks
	size     int64      // bytes waiting or being written
	accepted int64      // offset behind the last line
	next     *flush     // of the lines waiting
	stalled  bool       // the last write failed, or takes too long
	closed   bool       // nobody writes any more
	trouble  trouble
	faults   []logFault // of the file, that nobody was told yet
}

// freeChunks is how many used chunks are kept for the next lines.
const freeChunks = 4

// A flush is one batch of lines on its way.
type flush struct {
	// done is closed when the write returned, has failed, or takes too long. In
	// the last two cases late is set, for good.
	done    chan struct{}
	late    bool
	ended   bool        // done is closed; guarded by the log's mu
	watched atomic.Bool // somebody who waits sees to it that it ends
}

func newFlush() *flush { return &flush{done: make(chan struct{})} }

// end lets those go who wait, as all lines are out, or though they are not. The
// caller holds the log's mu.
func (f *flush) end(out bool) {
	if !f.ended {
		f.ended, f.late = true, !out
		close(f.done)
	}
}

// trouble is one time of degradation, from its first sign until the log is
// well again.
type trouble struct {
	cause    string // "" while all is well
	dropping bool
	lost     int64 // lines
	unwaited int64 // refusals sent before their line was written
	// What nobody was told yet.
	tellCause, tellDropping, tellEnd bool
}

func newEventLog(sink *logSink, denies bool, metrics *logMetrics) *eventLog {
	return &eventLog{
		sink: sink, denies: denies, limit: logBuffer, last: flushLast, metrics: metrics,
		more: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
		rotate: make(chan struct{}, 1), look: make(chan struct{}, 1), progress: make(chan struct{}, 1),
		next: newFlush(),
	}
}

// signal puts a token into a channel of 1 that may hold one already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// append puts a copy of line into the buffer and returns the offset behind it.
// A full buffer drops the line: false. Lines about the log itself (reserved)
// have some room of their own. Safe for concurrent use; never blocks.
func (l *eventLog) append(line []byte, reserved bool) (end int64, batch *flush, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := l.limit - l.size
	if reserved {
		room += logReserve
	}
	if int64(len(line)) > room || l.closed {
		l.drop()
		return l.accepted, nil, false
	}
	last := len(l.chunks) - 1
	if last < 0 || len(l.chunks[last])+len(line) > logChunk {
		l.chunks = append(l.chunks, l.newChunk())
		last++
	}
	l.chunks[last] = append(l.chunks[last], line...)
	l.size += int64(len(line))
	l.accepted += int64(len(line))
	if l.denies && l.size > l.limit/8*7 {
		l.refuse()
	}
	signal(l.more)
	if l.stalled {
		return l.accepted, nil, true
	}
	return l.accepted, l.next, true
}

func (l *eventLog) newChunk() []byte {
	if n := len(l.free); n > 0 {
		chunk := l.free[n-1]
		l.free = l.free[:n-1]
		return chunk
	}
	return make([]byte, 0, logChunk)
}

// drop counts a line that finds no room. The caller holds mu.
func (l *eventLog) drop() {
	l.metrics.dropped.Inc()
	l.begin("the buffer is full")
	l.trouble.lost++
	if !l.trouble.dropping {
		l.metrics.faults.WithLabelValues(logDropping).Inc()
		l.trouble.dropping, l.trouble.tellDropping = true, true
		signal(l.progress)
	}
	if l.denies {
		l.refuse()
	}
}

// refuse closes the gate until the buffer is half empty. The caller holds mu.
// It closes at 7/8, so that the lines of what is under way still find room.
func (l *eventLog) refuse() {
	if !l.refusing.Swap(true) {
		l.begin("the buffer is full")
	}
}

// begin starts a time of trouble, unless there is one. The caller holds mu.
func (l *eventLog) begin(cause string) {
	if l.trouble.cause == "" {
		l.metrics.faults.WithLabelValues(logFailing).Inc()
		l.trouble.cause, l.trouble.tellCause = cause, true
		signal(l.progress)
	}
}

// wait, for so many lines, returns once the batch's write returned, at once if
// the sink is stalled (nil batch), and after stallWait in any case: then the sink
// counts as stalled until a write returns. Of those who wait for a batch, the
// first looks at the clock for all.
func (l *eventLog) wait(batch *flush, lines int64) {
	if batch == nil {
		l.countUnwaited(lines)
		return
	}
	signal(l.urgent)
	if batch.watched.Swap(true) {
		<-batch.done
	} else {
		l.watchOver(batch)
	}
	if batch.late {
		l.countUnwaited(lines)
	}
}

// watchOver waits for a batch, which ends after stallWait.
func (l *eventLog) watchOver(batch *flush) {
	timer := time.NewTimer(stallWait)
	defer timer.Stop()
	select {
	case <-batch.done:
		return
	case <-timer.C:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if batch.ended {
		return
	}
	batch.end(false)
	l.stall(tooLong)
}

// countUnwaited counts refusals that are sent before their lines are written.
func (l *eventLog) countUnwaited(lines int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble.unwaited += lines
}

// late marks the sink as stalled because writing takes too long.
func (l *eventLog) late() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stall(tooLong)
}

// tooLong is the cause of a trouble where a write does not return.
const tooLong = "writing takes too long"

// stall marks the sink as stalled and lets go everybody who waits for it. The
// caller holds mu.
func (l *eventLog) stall(cause string) {
	if l.stalled {
		return
	}
	l.stalled = true
	l.metrics.stalled.Set(1)
	l.begin(cause)
	l.next.end(false)
	l.next = newFlush()
}

// acceptedUpTo is the offset behind the last line that was accepted.
func (l *eventLog) acceptedUpTo() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted
}
