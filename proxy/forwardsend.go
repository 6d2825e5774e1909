package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"sallyport/allowlists"
)

// uploadEnd is how long a connection whose answer is read waits for the end of
// the request, which the upstream may have guessed, before it is given up.
const uploadEnd = 50 * time.Millisecond

var (
	errNoAnswer = errors.New("the upstream closed the connection without an answer")
	errStatus   = errors.New("the answer has no status that HTTP knows")
)

// dial gives the forwarder a new upstream connection, to an address that was
// judged for x.
func (x *exchange) dial() error {
	conn, err := x.pass.dial(x.ctx)
	if err != nil {
		return err
	}
	up := newUpstreamConn(x, conn, x.f.limits.idleTimeout)
	x.f.hold(up)
	x.addr, x.reused = up.addr, false
	if x.ctx.Err() != nil { // whoever ended it may have missed this connection
		x.f.interruptUpstream()
	}
	return nil
}

// send sends the request and waits for the head of the answer. A connection
// that waited may have died since: if nothing was heard on it, the request goes
// once more, over another.
func (x *exchange) send(req *http.Request) (*http.Response, error) {
	resp, err := x.roundTrip(req)
	if err == nil || !x.reused || x.heard || x.ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return resp, err
	}
	if err := x.dial(); err != nil {
		return nil, err
	}
	return x.roundTrip(req)
}

// roundTrip is send over the forwarder's connection. The answer is read by the
// caller's goroutine, and a request without a body sent by it.
func (x *exchange) roundTrip(req *http.Request) (*http.Response, error) {
	up := x.f.up
	up.bill, up.mayRead, x.heard = x.bill, x.f.limits.headerBytes, false
	if x.body.ended() {
		if err := up.send(req); err != nil {
			return nil, err
		}
		up.fresh = true
	} else {
		x.upload(up, req)
	}
	if _, err := up.in.Peek(1); err != nil {
		if err == io.EOF {
			err = errNoAnswer
		}
		return nil, err
	}
	x.heard = true
	resp, err := x.answer(up, req)
	up.mayRead = -1
	return resp, err
}

// send writes the request whole.
func (c *upstreamConn) send(req *http.Request) error {
	if err := req.Write(c.out); err != nil {
		return err
	}
	return c.out.Flush()
}

// upload sends a request with a body beside the goroutine that reads the answer,
// which may come early.
func (x *exchange) upload(up *upstreamConn, req *http.Request) {
	x.uploaded = make(chan bool, 1)
	x.others.Go(func() {
		whole := false
		defer func() {
			if p := recover(); p != nil {
				x.cancel(&allowlists.DeniedError{Err: fmt.Errorf("%w: %v", errPanic, p)})
			}
			x.uploaded <- whole
		}()
		whole = up.send(req) == nil // the answer, or its lack, tells the rest
	})
}

// answer reads the head of the answer, after the interim ones. All together are
// no larger than a head may be.
func (x *exchange) answer(up *upstreamConn, req *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(up.in, req)
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode < 100:
			return nil, errStatus
		case resp.StatusCode == http.StatusContinue:
			x.body.ask(true)
		case resp.StatusCode == http.StatusSwitchingProtocols, resp.StatusCode >= 200:
			x.body.ask(false)
			return resp, nil
		}
	}
}

// settle lets the upstream connection wait for the next request if it may carry
// one, and closes it otherwise.
func (x *exchange) settle() {
	if up := x.f.up; x.whole && !x.last && x.ctx.Err() == nil && x.sentWhole() {
		up.wait()
		return
	}
	x.f.hold(nil)
}

// sentWhole reports whether the request has gone out.
func (x *exchange) sentWhole() bool {
	if x.uploaded == nil {
		return true
	}
	if !x.body.ended() {
		return false
	}
	late := time.NewTimer(uploadEnd)
	defer late.Stop()
	select {
	case whole := <-x.uploaded:
		return whole
	case <-late.C:
		return false
	}
}
