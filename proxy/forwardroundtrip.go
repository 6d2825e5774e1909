package proxy

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"

	"github.com/elazarl/goproxy"

	"sallyport/allowlists"
)

// gone says what ended an exchange: what cancelled it, a denial as it is, else
// a failure of the upstream.
func (x *exchange) gone(err error) error {
	if cause := context.Cause(x.ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	var timeout interface{ Timeout() bool }
	d := allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.UpstreamFailed, Rule: x.pass.decision().Rule}
	switch {
	case isDenied(err):
		return err
	case errors.Is(err, errUnasked):
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		d.Reason = allowlists.TimedOut
	}
	return &allowlists.DeniedError{Decision: d, Addr: x.addr, Err: err}
}

// RoundTrip is how goproxy sends the request.
func (x *exchange) RoundTrip(req *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
	x.cleanRequest(req)
	resp, err := x.send(req)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		err = errUnasked
		if x.upgrade != "" && names([]string{x.upgrade}, resp.Header.Get("Upgrade")) {
			x.switched, err = resp, errSwitched
		}
	}
	if err != nil {
		x.err = err
		x.res.silence()
		return nil, err
	}
	x.res.length = resp.ContentLength
	if resp.StatusCode == http.StatusNotModified { // net/http says 0 here
		x.res.length = -1
		if n, err := strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
			x.res.length = n
		}
	}
	stripHopByHop(resp.Header)
	body := newResponseBody(x, resp)
	x.last, x.res.more = resp.Close, body.more
	resp.Body = body
	return resp, nil
}

// cleanRequest puts an upgrade back, and keeps net/http from adding anything of
// its own.
func (x *exchange) cleanRequest(req *http.Request) {
	if !x.head.expects {
		req.Header.Del("Expect")
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = []string{""} // net/http writes none then
	}
	if x.upgrade != "" {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", x.upgrade)
	}
	req.Close = false // the upstream connection is not the client's
}
