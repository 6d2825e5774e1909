package proxy

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errNoHead    = errors.New("a response was not begun")
	errTooLong   = errors.New("the response is longer than it said")
	errTruncated = errors.New("the response is shorter than it said")
)

// A response writes one HTTP response to a client, with framing of our own:
// it is what goproxy takes for an http.ResponseWriter. What is written is sent
// at once, but where more is there to go with it. It is for one goroutine, but
// for sendContinue.
type response struct {
	ctx context.Context // nothing is written once it is over
	// extend is called with each write: a byte either way keeps both ways.
	extend func()
	conn   net.Conn
	idle   time.Duration // bounds each write
	// head says how the request was made, which decides the framing.
	head *head
	// length is the body's length if it is known, else -1; it may be set until
	// WriteHeader.
	length int64
	// more reports whether more can be written without waiting for it; nil: never.
	more func() bool
	// received counts body bytes sent to the client, for the record.
	received *atomic.Int64
	// keep is whether the connection may carry another request. It is asked for
	// once, when the head is written, and cleared by any trouble.
	keep func() bool

	fields http.Header

	mu      sync.Mutex // guards out and began against sendContinue
	out     *bufio.Writer
	mute    bool // nothing is written: the answer is given elsewhere
	began   bool // the final head is written
	bodies  bool // a body follows the head
	chunked bool
	stays   bool // the connection stays open
	left    int64
	unsent  int64 // body bytes in out
	err     error
}

// responseBuffer is the size of the write buffer of one response, in bytes.
const responseBuffer = 4096

// responseBuffers are lent to one response after the other.
var responseBuffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, responseBuffer) }}

// Header gives the fields that WriteHeader sends, and after it the trailers.
func (r *response) Header() http.Header {
	if r.fields == nil {
		r.fields = make(http.Header)
	}
	return r.fields
}

// sendContinue tells the client to send its body. It does nothing once the
// response has begun. It is safe for concurrent use.
func (r *response) sendContinue() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.began || r.mute {
		return
	}
	_, err := responseConn{r}.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	r.note(err)
}

// silence makes every method do nothing, unless the response has begun.
func (r *response) silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = !r.began
}

// WriteHeader sends the status line and the fields, with framing as RFC 9112
// section 6 has it. Status codes below 200 are not for it.
func (r *response) WriteHeader(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.began || r.mute || status < 200 || status > 999 {
		return
	}
	r.began = true
	r.out = responseBuffers.Get().(*bufio.Writer)
	r.out.Reset(responseConn{r})
	fields := r.Header()
	trailers := fields["Trailer"]
	stripHopByHop(fields)
	said := fields["Content-Length"]
	delete(fields, "Content-Length")
	r.bodies = r.head.method != "HEAD" && status != 204 && status != 304
	r.stays = r.keep()
	switch {
	case r.length >= 0 && status != 204:
		fields["Content-Length"] = lengthField(said, r.length)
		r.left = r.length
	case !r.bodies:
	case r.head.minor == 1:
		r.chunked = true
		fields.Set("Transfer-Encoding", "chunked")
		if len(trailers) > 0 {
			fields["Trailer"] = trailers
		}
	default:
		r.stays = false // HTTP/1.0 has no other end for such a body
	}
	switch {
	case !r.stays:
		fields.Set("Connection", "close")
	case r.head.minor == 0:
		fields.Set("Connection", "keep-alive")
	}
	r.send(func() error {
		line := append(r.out.AvailableBuffer(), "HTTP/1."...)
		line = append(strconv.AppendInt(line, int64(r.head.minor), 10), ' ')
		line = append(strconv.AppendInt(line, int64(status), 10), ' ')
		line = append(append(line, http.StatusText(status)...), "\r\n"...)
		_, _ = r.out.Write(line)
		_ = fields.Write(r.out) // turns line ends inside values into spaces
		_, err := r.out.WriteString("\r\n")
		return err
	})
	r.fields = nil // what comes now are trailers
}

// lengthField is the value of Content-Length: what was said, if it says this.
func lengthField(said []string, length int64) []string {
	var digits [20]byte
	if text := strconv.AppendInt(digits[:0], length, 10); len(said) != 1 || said[0] != string(text) {
		return []string{string(text)}
	}
	return said
}

// Write sends body bytes. For a response without a body it drops them, as
// net/http does.
func (r *response) Write(p []byte) (int, error) {
	switch {
	case r.mute:
		return len(p), nil
	case !r.began:
		r.WriteHeader(http.StatusOK)
	}
	switch {
	case r.err != nil:
		return 0, r.err
	case !r.bodies || len(p) == 0:
		return len(p), nil
	case !r.chunked && r.length >= 0 && int64(len(p)) > r.left:
		r.note(errTooLong)
		return 0, r.err
	}
	r.left -= int64(len(p))
	r.unsent += int64(len(p))
	r.send(func() error {
		if r.chunked {
			_, _ = r.out.WriteString(strconv.FormatInt(int64(len(p)), 16) + "\r\n")
		}
		_, err := r.out.Write(p)
		if r.chunked {
			_, err = r.out.WriteString("\r\n")
		}
		return err
	})
	if r.err != nil {
		return 0, r.err
	}
	return len(p), nil
}

// Flush is there for goproxy; nothing is kept that waits for what is to come.
func (r *response) Flush() {}

// finish ends the body, with the trailers set since WriteHeader, and reports
// whether the connection may carry another request. bodyErr is what cut the
// body short, if anything did: the client then must see that it is not whole.
func (r *response) finish(bodyErr error) bool {
	r.more = nil
	if r.out != nil && (bodyErr != nil || !r.chunked) {
		r.send(func() error { return nil }) // what was held back
	}
	r.note(bodyErr)
	switch {
	case !r.began:
		r.note(errNoHead)
	case r.bodies && !r.chunked && r.length >= 0 && r.left > 0:
		r.note(errTruncated)
	case r.chunked && r.err == nil:
		stripHopByHop(r.Header())
		for name := range r.fields {
			if isFraming(name) || !isTokens(name) {
				r.fields.Del(name)
			}
		}
		r.send(func() error {
			_, _ = r.out.WriteString("0\r\n")
			_ = r.fields.Write(r.out)
			_, err := r.out.WriteString("\r\n")
			return err
		})
	}
	return r.err == nil && r.stays
}

// send runs write and sends what it wrote, unless more comes at once.
func (r *response) send(write func() error) {
	if r.err != nil {
		return
	}
	err := write()
	if err == nil && (r.more == nil || !r.more()) {
		err = r.out.Flush()
	}
	if err == nil && r.out.Buffered() == 0 {
		r.received.Add(r.unsent)
		r.unsent = 0
	}
	r.note(err)
}

// release gives the buffer back. Nothing is written after it.
func (r *response) release() {
	if r.out == nil {
		return
	}
	r.out.Reset(nil)
	responseBuffers.Put(r.out)
	r.out = nil
}

// A responseConn writes to the client, each time within the idle time.
type responseConn struct{ r *response }

// Write writes nothing once the exchange is over.
func (c responseConn) Write(p []byte) (int, error) {
	_ = c.r.conn.SetWriteDeadline(time.Now().Add(c.r.idle))
	c.r.extend()
	// Looked at after the deadline is set, as its end sets one, too.
	if err := c.r.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.conn.Write(p)
}

// note remembers the first error.
func (r *response) note(err error) {
	if r.err == nil {
		r.err = err
	}
}
