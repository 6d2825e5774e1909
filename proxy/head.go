package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync"

	"sallyport/allowlists"
)

// headForm is the form of a request target, RFC 9112 section 3.2.
type headForm uint8

const (
	formNone      headForm = iota // the target was not understood
	formAuthority                 // CONNECT host:port
	formAbsolute                  // GET http://host/path
	formOrigin                    // GET /path
	formAsterisk                  // OPTIONS *
)

// A head is a request line and its fields, checked against a grammar stricter
// than that of net/http: what it accepts has one meaning for every parser
// behind us. Of a malformed head it holds what was understood, for the record.
type head struct {
	method string
	form   headForm
	// claimed is the authority as it was written in the target or, for an
	// origin-form target, in Host. It may be dirty.
	claimed string
	// target is the destination that the request line names; zero for origin
	// and asterisk form. A port left out of an http URI is 80.
	target allowlists.Target
	// path is path and query, as written, of an absolute or origin-form
	// target; it may be empty or begin with '?' in absolute form.
	path string
	// host is the Host field, nil if there was none (HTTP/1.0 only). A port
	// left out is that of target, or 80 if the target has none.
	host *allowlists.Target
	// minor is 0 or 1: HTTP/1.0 or HTTP/1.1.
	minor int
	// contentLength is the value of Content-Length, -1 without one.
	contentLength int64
	chunked       bool
	// expects is set if the client waits for 100 Continue.
	expects bool
	// size is the length of the head in bytes, the empty line included.
	size int
}

// agrees reports whether the Host field names the destination t. A head
// without Host, which only HTTP/1.0 may have, claims nothing.
func (h *head) agrees(t allowlists.Target) bool { return h.host == nil || *h.host == t }

// hasBody reports whether bytes follow the head as part of the request.
func (h *head) hasBody() bool { return h.chunked || h.contentLength > 0 }

// errHeadLarge is inside the limit-exceeded that is answered with 431.
var errHeadLarge = errors.New("the request head is larger than limits.header_bytes")

// firstBuffer is the size a headReader begins with, in bytes; nearly every
// head fits.
const firstBuffer = 4096

// A headReader is the buffered reader of one client connection. Its buffer
// grows up to the limit when a head does not fit, so that a whole head can be
// looked at before a byte of it is consumed. Every byte read ahead is in
// Reader's buffer, nowhere else. It is not safe for concurrent use.
type headReader struct {
	*bufio.Reader // replaced when it grows; never keep a copy across readHead
	conn          io.Reader
	// shared is set once others read through it, who may not have ended with
	// the session: then the buffer is never lent again.
	shared bool
}

// headBuffers are readers of firstBuffer bytes, lent to one connection after
// the other.
var headBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, firstBuffer) }}

// newHeadReader starts reading from conn.
func newHeadReader(conn io.Reader) *headReader {
	r := headBuffers.Get().(*bufio.Reader)
	r.Reset(conn)
	return &headReader{Reader: r, conn: conn}
}

// release gives the buffer back. Nothing is read through r after it, and no
// slice of its bytes is used. r may be nil or released.
func (r *headReader) release() {
	if r == nil || r.Reader == nil {
		return
	}
	if r.Size() == firstBuffer && !r.shared {
		r.Reset(nil)
		headBuffers.Put(r.Reader)
	}
	r.Reader = nil
}

// readHead waits for a request head of at most limit bytes, checks it, and
// leaves its bytes unread, for http.ReadRequest or Discard(head.size). It
// fails as soon as a byte cannot belong to a head. The caller sets a deadline.
//
// The error is a *allowlists.DeniedError with the reason bad-request, bad-host
// or limit-exceeded (wrapping errHeadLarge), the head then being not nil and
// holding what was understood; or io.EOF if the client said nothing,
// io.ErrUnexpectedEOF if it stopped inside a head, or the error of the read.
func (r *headReader) readHead(limit int) (*head, error) {
	scanned := 0
	for {
		have, _ := r.Peek(r.Buffered())
		end, err := scanHead(have, scanned)
		switch {
		case err != nil:
			return parseBroken(have), bad(err)
		case end > limit, end == 0 && len(have) >= limit:
			denial := &allowlists.DeniedError{Decision: allowlists.Decision{Reason: allowlists.LimitExceeded}, Err: errHeadLarge}
			return parseBroken(have), denial
		case end > 0:
			return parseHead(have[:end])
		}
		// A line end may be split between two reads: look at it again.
		scanned = max(len(have)-3, 0)
		if len(have) == r.Size() {
			r.grow(limit)
		}
		if _, err := r.Peek(len(have) + 1); err != nil {
			if err == io.EOF && len(have) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return parseBroken(have), err
		}
	}
}

// holdsHead reports whether the end of a head has come already.
func (r *headReader) holdsHead() bool {
	have, _ := r.Peek(r.Buffered())
	return bytes.Contains(have, []byte("\r\n\r\n"))
}

// grow doubles the buffer, up to limit, and moves the bytes over.
func (r *headReader) grow(limit int) {
	have, _ := r.Peek(r.Buffered())
	bigger := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(have), r.conn), min(2*r.Size(), max(limit, r.Size()+1)))
	// Filling it reads the old bytes only, so this neither blocks nor fails.
	_, _ = bigger.Peek(len(have))
	r.Reader = bigger
}

var (
	errBareCR    = errors.New("the head has a carriage return without a line feed")
	errBareLF    = errors.New("the head has a line feed without a carriage return")
	errControl   = errors.New("the head has a control character")
	errFirstByte = errors.New("this is no HTTP request")
)

// scanHead looks for the end of the head in what has come so far, from the
// byte at from on. It gives the length of the head, 0 if more must come, and
// an error for a byte that cannot be there.
func scanHead(have []byte, from int) (int, error) {
	if len(have) > 0 && !isToken(have[0]) {
		return 0, errFirstByte
	}
	for i := from; i < len(have); i++ {
		switch c := have[i]; {
		case c == '\n':
			if i == 0 || have[i-1] != '\r' {
				return 0, errBareLF
			}
			if i >= 3 && have[i-3] == '\r' && have[i-2] == '\n' {
				return i + 1, nil
			}
		case c == '\r':
			if i+1 < len(have) && have[i+1] != '\n' {
				return 0, errBareCR
			}
		case c < ' ' && c != '\t', c == 0x7f:
			return 0, errControl
		}
	}
	return 0, nil
}

// bad makes a refusal of a malformed head.
func bad(err error) error {
	return &allowlists.DeniedError{Decision: allowlists.Decision{Reason: allowlists.BadRequest}, Err: err}
}
