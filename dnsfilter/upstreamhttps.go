package dnsfilter

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of DNS over HTTPS.
const (
	dnsMessageType   = "application/dns-message" // RFC 8484 section 6
	maxHTTPSConns    = 4                         // connections to one server
	maxHTTPSHeader   = 16 << 10                  // bytes of a response's head
	maxHTTPSAddrs    = 8                         // addresses kept for a server with a name
	httpsPingAfter   = 5 * time.Second           // of silence on a connection in use
	httpsIdleTimeout = 30 * time.Second
)

// resolveFunc finds the addresses of a DoH server's name, without that server.
type resolveFunc func(ctx context.Context, host string) ([]netip.Addr, error)

// httpsTransport asks by POST over HTTP/2 (RFC 8484). No proxy, redirect,
// cookie or system resolver has a part in it.
type httpsTransport struct {
	url     string // secret: its path may identify the subscriber
	name    string // empty if the URL has an address
	port    uint16
	resolve resolveFunc
	client  *http.Client
	http    *http.Transport

	timeout   time.Duration   // bounds one dial, the search for the address included
	ctx       context.Context // ends with close
	cancel    context.CancelFunc
	dials     sync.WaitGroup
	resolving chan struct{} // one token: the right to ask for the address

	mu     sync.Mutex   // guards closed also against dials.Add
	addrs  []netip.Addr // where the server is; empty: not known yet
	conns  map[*httpsConn]bool
	closed bool
}

// newHTTPSTransport makes the transport of one server; nothing is dialled yet.
func newHTTPSTransport(spec upstreamSpec, roots *x509.CertPool, timeout time.Duration, resolve resolveFunc) *httpsTransport {
	t := &httpsTransport{
		url:     spec.url.String(),
		port:    spec.addr.Port(),
		resolve: resolve,
		conns:   make(map[*httpsConn]bool),
		timeout: timeout,

		resolving: make(chan struct{}, 1),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if spec.named() {
		t.name = spec.url.Hostname()
	} else {
		t.addrs = []netip.Addr{spec.addr.Addr()}
	}
	t.http = &http.Transport{
		Proxy:       nil,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return t.dial(ctx) },
		TLSClientConfig: &tls.Config{
			ServerName:         spec.tlsName(),
			RootCAs:            roots,
			MinVersion:         tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(sessionCache),
		},
		TLSHandshakeTimeout:    timeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxConnsPerHost:        maxHTTPSConns,
		MaxIdleConnsPerHost:    maxHTTPSConns,
		MaxResponseHeaderBytes: maxHTTPSHeader,
		IdleConnTimeout:        httpsIdleTimeout,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: httpsPingAfter, PingTimeout: timeout},
	}
	t.client = &http.Client{
		Transport:     t.http,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return t
}

// ask implements transport. A question lost with a connection that had been in
// use is asked once more, as on a stream.
func (t *httpsTransport) ask(ctx context.Context, q question) (*dns.Msg, error) {
	query := q.pack(0, false) // ID 0: RFC 8484 section 4.1
	reused := false
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(conn httptrace.GotConnInfo) { reused = conn.Reused },
	})
	answer, err := t.post(traced, query)
	if errors.Is(err, errStreamBroken) && reused && ctx.Err() == nil {
		t.http.CloseIdleConnections() // the broken one may not be known as such
		answer, err = t.post(ctx, query)
	}
	if err != nil {
		return nil, err
	}
	if matchAnswer(query, answer) == matchNone {
		return nil, fmt.Errorf("%w: it answers another question", errMalformed)
	}
	return parseAnswer(q, answer)
}

// post sends one request and returns the body of its response. The error is
// errStreamBroken if there was no response.
func (t *httpsTransport) post(ctx context.Context, query []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(query))
	if err != nil {
		return nil, errors.New("the URL cannot be asked")
	}
	request.Header.Set("Content-Type", dnsMessageType)
	request.Header.Set("Accept", dnsMessageType)
	request.Header.Set("User-Agent", "sallyport")
	response, err := t.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStreamBroken, withoutURL(err))
	}
	defer response.Body.Close()
	return readResponse(response)
}

// readResponse checks status, type and size, and returns the body.
func readResponse(response *http.Response) ([]byte, error) {
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered with HTTP status %d", response.StatusCode)
	}
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || kind != dnsMessageType {
		return nil, fmt.Errorf("the server's answer is not of type %s", dnsMessageType)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", withoutURL(err))
	}
	if len(body) > maxMessage {
		return nil, fmt.Errorf("the server's answer is longer than %d bytes", maxMessage)
	}
	return body, nil
}

// withoutURL takes the URL out of an error of net/http, which prints all of it.
func withoutURL(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		return bare(outer.Err)
	}
	return bare(err)
}

// close implements transport. net/http ends its goroutines soon after their
// connections, which are closed here.
func (t *httpsTransport) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.dials.Wait()
	t.http.CloseIdleConnections()
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		_ = c.Conn.Close()
	}
}
