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

// A requestBody is the client's body, read by the transport and stopped by us:
// after stopReading nothing reads from the client any more, so that the next
// head cannot be taken for a body.
type requestBody struct {
	x       *exchange
	src     io.ReadCloser // net/http's, over the client's buffered reader
	trailer http.Header   // filled by src at its end; nil if none was announced
	// announced are the names in trailer before src fills it.
	announced []string

	finished atomic.Bool // src is at its end

	reading sync.Mutex // held while src is read

	mu      sync.Mutex // guards stopped and the read deadline
	stopped bool
}

func newRequestBody(x *exchange, req *http.Request) *requestBody {
	return &requestBody{x: x, src: req.Body, trailer: req.Trailer, announced: slices.Collect(maps.Keys(req.Trailer))}
}

// ended reports whether the whole body was read.
func (b *requestBody) ended() bool { return b.finished.Load() }

// Read reads from the client, after telling it to send if it waits for that.
func (b *requestBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.ended() {
		return 0, io.EOF
	}
	if b.x.head.expects {
		b.x.head.expects = false
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

// interrupt ends every read from the client, and lets no other begin. It does
// not wait. The transport, which waits for its reads, needs it when the
// upstream is gone.
func (b *requestBody) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		b.stopped = true
		_ = b.x.f.conn.SetReadDeadline(past)
	}
}

// stopReading interrupts, and waits until no read is under way. What the client
// has sent is left for the next reader; the deadline is cleared. It may be
// called more than once, by the goroutine of the exchange.
func (x *exchange) stopReading() {
	if x.over {
		return
	}
	x.over = true
	b := x.body
	b.interrupt()
	close(x.done)
	b.reading.Lock()   // until a read under way has ended
	b.reading.Unlock() //nolint:staticcheck // nothing to do inside
	x.watched.Wait()
	_ = x.f.conn.SetReadDeadline(time.Time{})
}

// watch cancels the exchange when the client goes away. It begins once the
// whole request is read, as only then nothing else reads from the client; what
// the client sends meanwhile stays in the buffer.
func (x *exchange) watch() {
	x.body.mu.Lock()
	defer x.body.mu.Unlock()
	if x.body.stopped {
		return
	}
	_ = x.f.conn.SetReadDeadline(time.Time{})
	x.watched.Go(func() {
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
	})
}

// isDraining reports whether no further request may come.
func (f *forwarder) isDraining() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.draining
}
