package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"sallyport/allowlists"
)

// Times that first bytes are waited for.
const (
	// openWait is how long the open record waits for the server name it would
	// like to hold.
	openWait = 100 * time.Millisecond
	// listenWait is how long bytes are listened to where nothing is required.
	listenWait = time.Second
)

// firstBytes judges how a tunnel begins, and writes its open record: at once,
// or with what the first bytes say if they come soon. It is for one goroutine.
type firstBytes struct {
	t       *trip
	conn    *net.TCPConn
	in      *headReader
	address netip.Addr // dialled
	opened  bool
	tls     bool // the bytes were TLS, which has an alert for refusals
}

// open writes the open record, once.
func (f *firstBytes) open() {
	if !f.opened {
		f.opened = true
		f.t.opened(f.address)
	}
}

// rest takes what is read ahead.
func (f *firstBytes) rest() []byte {
	have, _ := f.in.Peek(f.in.Buffered())
	have = slices.Clone(have)
	_, _ = f.in.Discard(len(have))
	return have
}

// release lets the session's read buffer go. Nothing is read through it after.
func (f *firstBytes) release() {
	f.in.release()
	f.in = nil
}

// needTLS reads the ClientHello that must come within hello_timeout and judges
// it. It gives the bytes to send on, or why there is to be no tunnel: a denial,
// or the client's end.
func (f *firstBytes) needTLS(ctx context.Context) ([]byte, error) {
	h, raw, err := f.peek(ctx, f.t.s.server.cfg.Limits.HelloTimeout)
	f.tls = looksLikeTLS(raw)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		d := allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.TimedOut, Rule: f.t.by.Rule}
		return nil, refusal(d, errHelloSlow)
	case err == io.EOF && len(raw) == 0:
		return nil, errSaidNothing
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.Join(errClientGone, err)
	}
	return append(raw, f.rest()...), f.verdict(h)
}

var (
	errHelloSlow   = errors.New("no ClientHello came within limits.hello_timeout")
	errSaidNothing = errors.New("the client left without a byte")
)

// verdict records and judges a hello.
func (f *firstBytes) verdict(h hello) error {
	t := f.t
	t.mu.Lock()
	t.claims, t.peeks = &h, false
	h.describe(&t.rec)
	by := t.rec.Decision
	t.mu.Unlock()
	d := h.judge(t.pool, by, t.target)
	if !d.Allowed() {
		f.open()
		return &allowlists.DeniedError{Decision: d}
	}
	t.edit(func(rec *ConnRecord) { rec.Decision = d })
	f.open()
	return t.still()
}

// peek reads a ClientHello with a deadline, writing the open record if it is
// slow to come.
func (f *firstBytes) peek(ctx context.Context, limit time.Duration) (hello, []byte, error) {
	until := time.Now().Add(limit)
	r := &patientReader{Reader: f.in, late: func() bool {
		if f.opened || time.Now().After(until) {
			return false
		}
		f.open()
		f.deadline(ctx, until)
		return true
	}}
	if f.opened {
		f.deadline(ctx, until)
	} else {
		f.deadline(ctx, time.Now().Add(min(openWait, limit)))
	}
	defer f.deadline(ctx, time.Time{})
	return peekHello(r)
}

// deadline sets the read deadline, unless the session is told to end.
func (f *firstBytes) deadline(ctx context.Context, at time.Time) {
	_ = f.conn.SetReadDeadline(at)
	if ctx.Err() != nil {
		_ = f.conn.SetReadDeadline(past)
	}
}

// patientReader reads again after a deadline if late says so.
type patientReader struct {
	io.Reader
	late func() bool
}

func (r *patientReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	for n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && r.late() {
		n, err = r.Reader.Read(p)
	}
	return n, err
}

// listen records TLS or HTTP that comes within listenWait to an address that
// a cidr rule allows. Nothing is required there; only a name that deny matches
// refuses. It gives the bytes to send on.
func (f *firstBytes) listen(ctx context.Context) ([]byte, error) {
	f.deadline(ctx, time.Now().Add(openWait))
	_, err := f.in.Peek(1)
	f.open()
	until := time.Now().Add(listenWait)
	f.deadline(ctx, until)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		_, err = f.in.Peek(1)
	}
	defer f.deadline(ctx, time.Time{})
	if err != nil {
		return nil, nil // the relay meets it again
	}
	have, _ := f.in.Peek(f.in.Buffered())
	switch {
	case looksLikeTLS(have), have[0] == 21: // an alert may stand before a hello
		h, raw, err := peekHello(f.in)
		f.tls = true
		f.t.edit(h.describe)
		if err == nil && !h.tls && len(raw) > 1 && raw[1] == 3 {
			return nil, &allowlists.DeniedError{Decision: f.t.pool.Refuse(allowlists.NotTLS, f.t.by.Rule), Err: errHelloBroken}
		}
		return append(raw, f.rest()...), f.denies(h.sni)
	default:
		for _, name := range claimedNames(f.plainHead()) {
			if err := f.denies(name); err != nil {
				return nil, err
			}
		}
		return f.rest(), nil
	}
}

// errHelloBroken is inside the not-tls for a TLS record whose ClientHello no
// parser should have to guess a name from.
var errHelloBroken = errors.New("the ClientHello is malformed")

// plainHead waits, up to the deadline that is set, for what may be an HTTP
// request head to be whole, and gives what there is of it, unread. It gives
// nothing as soon as the bytes are no HTTP.
func (f *firstBytes) plainHead() []byte {
	for {
		have, _ := f.in.Peek(f.in.Buffered())
		if !mayBeHTTP(have) {
			return nil
		}
		if headIsWhole(have) || len(have) == f.in.Size() {
			return have
		}
		if _, err := f.in.Peek(len(have) + 1); err != nil {
			have, _ = f.in.Peek(f.in.Buffered())
			return have
		}
	}
}

// denies refuses a name that the deny list has.
func (f *firstBytes) denies(name string) error {
	host, err := allowlists.ParseHost(name)
	if err != nil {
		return nil
	}
	if d := f.t.pool.DecideConn(host, f.t.target.Port, time.Now()); d.Cause() == allowlists.DeniedByRule {
		return &allowlists.DeniedError{Decision: d}
	}
	return nil
}
