package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/elazarl/goproxy"
)

// newCarrier makes the goproxy server that carries plain HTTP, built by hand:
// goproxy.NewProxyHttpServer obeys proxy variables and skips the verification
// of certificates. It sends nothing but what comes with an exchange, over that
// exchange's own connections. It is safe for concurrent use.
func newCarrier() http.Handler {
	carrier := &goproxy.ProxyHttpServer{
		Logger:             silentLogger{},
		NonproxyHandler:    http.HandlerFunc(refuseNonproxy),
		KeepAcceptEncoding: true,
		// Never used: an exchange is its own. It must not be nil, and must not
		// reach anything.
		Tr: &http.Transport{DialContext: refuseDial, DialTLSContext: refuseDial, DisableCompression: true},
	}
	carrier.OnRequest().DoFunc(func(req *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		if x, ok := req.Context().Value(exchangeKey{}).(*exchange); ok {
			ctx.RoundTripper = x
		}
		return req, nil
	})
	// CONNECT never comes here. If it did, goproxy would accept what no handler
	// answers.
	carrier.OnRequest().HandleConnect(goproxy.AlwaysReject)
	return httpOnly{carrier}
}

// httpOnly keeps everything but http away from goproxy.
type httpOnly struct{ next *goproxy.ProxyHttpServer }

// ServeHTTP passes on requests for http URIs with a host; it panics for any
// other, as judging them was forgotten.
func (c httpOnly) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method == http.MethodConnect || req.URL.Scheme != "http" || req.URL.Host == "" {
		panic("only judged http requests may reach goproxy")
	}
	c.next.ServeHTTP(w, req)
}

var errNoDial = errors.New("a connection that nobody judged")

// refuseDial is the dialer of what must never dial.
func refuseDial(context.Context, string, string) (net.Conn, error) { return nil, errNoDial }

func refuseNonproxy(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }

// silentLogger drops goproxy's own messages: they hold paths.
type silentLogger struct{}

func (silentLogger) Printf(string, ...any) {}
