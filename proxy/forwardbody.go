package proxy

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var errBodyStopped = errors.New("the exchange is over")

// continueFor is how long an upstream may take to say 100 Continue before the
// body is sent all the same.
const continueFor = time.Second

// watchAfter is how old an exchange is when its client is watched: most are over
// before.
const watchAfter = 100 * time.Millisecond

// A requestBody is the client's body, read for the upstream and stopped by us:
// after stopReading nothing reads from the client any more, so that the next
// head cannot be taken for a body.
type requestBody struct {
	x       *exchange
	src     io.ReadCloser // net/http's, over the client's buffered reader
	trailer http.Header   // filled by src at its end; nil if none was announced
	// announced are the names in trailer before src fills it.
	announced []string

	finished atomic.Bool // src is at its end

	asked chan bool // what ask was told; nil where the client does not wait for it

	mu      sync.Mutex // guards all below, and the read deadline
	stopped bool
	watcher *time.Timer // begins the watch; nil before the whole request is read
}

func newRequestBody(x *exchange, req *http.Request) *requestBody {
	b := &requestBody{x: x, src: req.Body, trailer: req.Trailer, announced: slices.Collect(maps.Keys(req.Trailer))}
	if x.head.expects {
		b.asked = make(chan bool, 1)
	}
	return b
}

// ended reports whether the whole body was read.
func (b *requestBody) ended() bool { return b.finished.Load() }

// Read reads from the client, after telling it to send if it waits for that.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.ended() {
		return 0, io.EOF
	}
	if b.x.head.expects {
		b.x.head.expects = false
		if !b.wanted() {
			return 0, errBodyStopped
		}
		b.x.res.sendContinue()
	}
	if !b.arm() {
		return 0, errBodyStopped
	}
	n, err := b.src.Read(p)
	b.x.sent.Add(int64(n))
	switch {
	case err == io.EOF:
		b.cleanTrailer()
		b.finished.Store(true)
		b.x.watch()
	case err != nil && b.arm():
		b.x.cancel(bodyTrouble(err))
	case err != nil: // interrupt's doing, not the client's
		err = errBodyStopped
	}
	return n, err
}

// bodyTrouble says why a body could not be read: the client's connection, or
// chunks that are none.
func bodyTrouble(err error) error {
	var broken net.Error
	if errors.As(err, &broken) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", errClientGone, err)
	}
	return bad(err)
}

// cleanTrailer drops the trailers that were not announced, or end at this hop.
func (b *requestBody) cleanTrailer() {
	for name := range b.trailer {
		if isFraming(name) || !slices.Contains(b.announced, name) {
			delete(b.trailer, name)
		}
	}
	stripHopByHop(b.trailer)
}

// arm sets the deadline of one read. It reports false if reading is over.
func (b *requestBody) arm() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		_ = b.x.f.conn.SetReadDeadline(time.Now().Add(b.x.f.limits.idleTimeout))
	}
	return !b.stopped
}

// Close does nothing: net/http's own would read the rest.
func (b *requestBody) Close() error { return nil }

// ask answers a body that waits to be asked for: to send it, or that there is
// no more need. Only the first counts.
func (b *requestBody) ask(wanted bool) {
	select {
	case b.asked <- wanted:
	default:
	}
}

// wanted waits until the upstream asks for the body, for as long as a client
// that waits to be asked may be kept waiting. It reports false if the upstream
// answered instead, or the exchange is over.
func (b *requestBody) wanted() bool {
	enough := time.NewTimer(continueFor)
	defer enough.Stop()
	select {
	case wanted := <-b.asked:
		return wanted
	case <-enough.C:
		return true
	case <-b.x.done:
		return false
	}
}

// extend keeps the client's side open while bytes go the other way.
func (b *requestBody) extend() {
	if !b.ended() {
		b.arm()
	}
}

// stopReading ends every read from the client, lets no other begin, and waits
// until none is under way, nor any other goroutine of the exchange: the
// upstream connection is closed, or not written to. What the client has sent is
// left for the next reader; the deadline is cleared. It may be called more than
// once, by the goroutine of the exchange.
func (x *exchange) stopReading() {
	if x.over {
		return
	}
	x.over = true
	close(x.done)
	b := x.body
	b.mu.Lock()
	b.stopped = true
	unread := b.watcher != nil && b.watcher.Stop()
	if !unread {
		_ = x.f.conn.SetReadDeadline(past)
	}
	b.mu.Unlock()
	if unread {
		x.others.Done()
	}
	x.others.Wait()
	if !unread {
		_ = x.f.conn.SetReadDeadline(time.Time{})
	}
}

// watch cancels the exchange when the client goes away, if it lasts so long that
// this matters. It begins once the whole request is read, as only then nothing
// else reads from the client; what the client sends meanwhile stays in the
// buffer.
func (x *exchange) watch() {
	b := x.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return
	}
	x.others.Add(1)
	b.watcher = time.AfterFunc(watchAfter, func() {
		defer x.others.Done()
		x.awaitEnd()
	})
}

// awaitEnd is the watch.
func (x *exchange) awaitEnd() {
	x.body.mu.Lock()
	if x.body.stopped {
		x.body.mu.Unlock()
		return
	}
	_ = x.f.conn.SetReadDeadline(time.Time{})
	x.body.mu.Unlock()
	_, err := x.f.in.Peek(1)
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return
	case err == io.EOF:
		grace := time.NewTimer(halfCloseGrace)
		defer grace.Stop()
		select {
		case <-x.done:
			return
		case <-grace.C:
		}
	}
	x.cancel(errClientGone)
}

// isDraining reports whether no further request may come.
func (f *forwarder) isDraining() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.draining
}
