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

	mu     sync.Mutex
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
	}
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

// ask implements transport.
func (t *httpsTransport) ask(ctx context.Context, q question) (*dns.Msg, error) {
	query, err := q.pack(0, false) // ID 0: RFC 8484 section 4.1
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(query))
	if err != nil {
		return nil, errors.New("the URL cannot be asked")
	}
	request.Header.Set("Content-Type", dnsMessageType)
	request.Header.Set("Accept", dnsMessageType)
	request.Header.Set("User-Agent", "sallyport")
	response, err := t.client.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer response.Body.Close()
	answer, err := readResponse(response)
	if err != nil {
		return nil, err
	}
	if matchAnswer(query, answer) == matchNone {
		return nil, fmt.Errorf("%w: it answers another question", errMalformed)
	}
	return parseAnswer(q, answer)
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

// dial connects to the server's address, asked for once and forgotten when
// nobody answers there any more.
func (t *httpsTransport) dial(ctx context.Context) (net.Conn, error) {
	addrs, err := t.addresses(ctx)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		var conn net.Conn
		if conn, err = dialTCP(netip.AddrPortFrom(addr, t.port))(ctx); err == nil {
			return t.track(conn)
		}
	}
	if t.name != "" {
		t.mu.Lock()
		t.addrs = nil
		t.mu.Unlock()
	}
	return nil, err
}

// addresses returns where the server is.
func (t *httpsTransport) addresses(ctx context.Context) ([]netip.Addr, error) {
	t.mu.Lock()
	addrs := t.addrs
	t.mu.Unlock()
	if len(addrs) > 0 {
		return addrs, nil
	}
	addrs, err := t.resolve(ctx, t.name)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.addrs = addrs[:min(len(addrs), maxHTTPSAddrs)]
	addrs = t.addrs
	t.mu.Unlock()
	return addrs, nil
}

// httpsConn is a connection that leaves the transport's set when it is closed.
type httpsConn struct {
	net.Conn
	t *httpsTransport
}

// track adds a connection to the set that close empties.
func (t *httpsTransport) track(conn net.Conn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = conn.Close()
		return nil, errUpstreamsClosed
	}
	c := &httpsConn{Conn: conn, t: t}
	t.conns[c] = true
	return c, nil
}

// Close implements net.Conn.
func (c *httpsConn) Close() error {
	c.t.mu.Lock()
	delete(c.t.conns, c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}

// close implements transport. net/http ends its goroutines soon after their
// connections, which are closed here.
func (t *httpsTransport) close() {
	t.http.CloseIdleConnections()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for c := range t.conns {
		_ = c.Conn.Close()
	}
}

// bootstrap is the resolveFunc of the upstreams: it asks those that are listed
// by address, in order.
func (u *upstreams) bootstrap(ctx context.Context, host string) ([]netip.Addr, error) {
	err := errors.New("no upstream is listed by its address")
	for _, up := range u.list {
		if t, ok := up.transport.(*httpsTransport); ok && t.name != "" {
			continue
		}
		var addrs []netip.Addr
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			q, bad := newQuestion(host, qtype, queryFlags{})
			if bad != nil {
				return nil, bad
			}
			reply, failed := u.try(ctx, up, q)
			if failed != nil {
				err = failed
				continue
			}
			addrs = append(addrs, chainAddrs(q.name, reply)...)
		}
		if len(addrs) > 0 {
			return addrs, nil
		}
	}
	return nil, fmt.Errorf("finding the address of %s: %w", host, err)
}

// chainAddrs returns the addresses that an answer gives to name, along its aliases.
func chainAddrs(name string, reply *dns.Msg) []netip.Addr {
	var addrs []netip.Addr
	for _, record := range reply.Answer {
		if record.Header().Name != name {
			continue
		}
		switch record := record.(type) {
		case *dns.CNAME:
			name = record.Target
		case *dns.A:
			if addr, ok := netip.AddrFromSlice(record.A); ok {
				addrs = append(addrs, addr.Unmap())
			}
		case *dns.AAAA:
			if addr, ok := netip.AddrFromSlice(record.AAAA); ok {
				addrs = append(addrs, addr.Unmap())
			}
		}
	}
	return addrs
}
