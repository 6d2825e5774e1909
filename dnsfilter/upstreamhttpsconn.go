package dnsfilter

import (
	"context"
	"net"
	"net/netip"
)

// dial connects to the server's address, asked for once and forgotten when
// nobody answers there any more. net/http calls it in goroutines that may
// outlive the question, so close waits for it.
func (t *httpsTransport) dial(ctx context.Context) (net.Conn, error) {
	if !t.enter() {
		return nil, errUpstreamsClosed
	}
	defer t.dials.Done()
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
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

// enter counts a dial in; false after close.
func (t *httpsTransport) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.dials.Add(1)
	return true
}

// addresses returns where the server is. One dial asks; the others wait for it.
func (t *httpsTransport) addresses(ctx context.Context) ([]netip.Addr, error) {
	select {
	case t.resolving <- struct{}{}:
		defer func() { <-t.resolving }()
	case <-ctx.Done():
		return nil, ended(ctx)
	}
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
	addrs = addrs[:min(len(addrs), maxHTTPSAddrs)]
	t.mu.Lock()
	t.addrs = addrs
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
