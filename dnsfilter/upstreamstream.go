package dnsfilter

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of the connections to one server.
const (
	maxStreams   = 8                // connections
	streamDepth  = 16               // questions waiting on one before another is opened
	streamIdle   = 10 * time.Second // a connection without questions is closed after this
	maxStrays    = 16               // messages that answer nothing before a connection is closed
	sessionCache = 8                // TLS sessions kept for resumption
)

// errStreamBroken is in the chain of the error of a question whose connection
// ended before the answer came.
var errStreamBroken = errors.New("the connection ended before the answer")

// dialFunc opens a connection to one server.
type dialFunc func(ctx context.Context) (net.Conn, error)

// dialTCP dials an address; nothing is ever looked up.
func dialTCP(addr netip.AddrPort) dialFunc {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		if err != nil {
			return nil, bare(err)
		}
		return conn, nil
	}
}

// dialTLS dials an address and demands a certificate for name, a host name or
// an address (RFC 8310 section 8.1: strict, nothing is ever sent in the clear).
func dialTLS(addr netip.AddrPort, name string, roots *x509.CertPool) dialFunc {
	config := &tls.Config{
		ServerName:         name,
		RootCAs:            roots,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionCache),
	}
	dial := dialTCP(addr)
	return func(ctx context.Context) (net.Conn, error) {
		raw, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		return conn, nil
	}
}

// streamTransport asks over TCP or TLS on connections that are kept and shared
// (RFC 7766): questions are sent without waiting for the answers before them.
type streamTransport struct {
	dial    dialFunc
	timeout time.Duration // bounds dialling, writing and half a wait

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup // one per connection

	mu      sync.Mutex
	streams map[*stream]bool // at most maxStreams; each removes itself
}

// newStreamTransport makes a transport without a connection yet.
func newStreamTransport(dial dialFunc, timeout time.Duration) *streamTransport {
	t := &streamTransport{dial: dial, timeout: timeout, streams: make(map[*stream]bool)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// ask implements transport. A question lost with a connection that had been in
// use is asked once more on a fresh one: servers close idle connections at any
// time (RFC 7766 section 6.2.4).
func (t *streamTransport) ask(ctx context.Context, q question) (*dns.Msg, error) {
	s, err := t.pick(false)
	if err != nil {
		return nil, err
	}
	reply, err := s.ask(ctx, q, t.timeout/2)
	if err != nil && !errors.Is(err, errMalformed) && s.used() && ctx.Err() == nil {
		if s, err = t.pick(true); err != nil {
			return nil, err
		}
		reply, err = s.ask(ctx, q, 0)
	}
	return reply, err
}

// pick returns the connection with the fewest questions, or a new one if all
// have many; fresh asks for a new one whatever they have. At the bound on
// connections, one of those there are has to do.
func (t *streamTransport) pick(fresh bool) (*stream, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return nil, errUpstreamsClosed
	}
	var open, best *stream // the least busy, of those that may be joined and of all
	for s := range t.streams {
		if s.over() {
			delete(t.streams, s)
			continue
		}
		if best == nil || s.load() < best.load() {
			best = s
		}
		if (!s.single || s.used()) && (open == nil || s.load() < open.load()) {
			open = s
		}
	}
	if !fresh && open != nil && open.load() < streamDepth {
		return open, nil
	}
	if len(t.streams) >= maxStreams {
		return best, nil
	}
	s := newStream(t, fresh)
	t.streams[s] = true
	t.wg.Add(1)
	go s.run()
	return s, nil
}

// forget takes a connection that ended out of the pool.
func (t *streamTransport) forget(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.streams, s)
}

// close implements transport.
func (t *streamTransport) close() {
	t.cancel()
	t.mu.Lock()
	for s := range t.streams {
		s.end(errUpstreamsClosed)
	}
	t.mu.Unlock()
	t.wg.Wait()
}
