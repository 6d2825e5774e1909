// Package dnstest provides DNS servers on loopback for tests: they answer from a
// table or a function, count every packet, and misbehave on request.
package dnstest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Faults are what a server does wrong. The zero value is a good server. They
// hold for UDP, unless they say otherwise.
type Faults struct {
	Delay    time.Duration // before each answer, over every transport
	Drop     int           // datagrams to lose before the first is answered; -1: all
	Truncate bool          // answer with TC and no records
	Decoys   []Decoy       // forged answers sent before the true one
	LoseCase bool          // echo the question in lower case
	NoCopy   bool          // send the decoys alone
	HangUp   bool          // TCP and TLS: close the connection after each answer
	Silent   bool          // TCP and TLS: accept and never answer
}

// Decoy makes an answer a forged one. It is given a copy of the true answer with
// NXDOMAIN and no records, and may change it. Nil: see WrongSource.
type Decoy func(answer *dns.Msg)

// The forgeries that a resolver must see through. Each says NXDOMAIN where the
// true answer may say otherwise. WrongSource is right, but comes from another port.
var (
	WrongID     Decoy = func(m *dns.Msg) { m.Id ^= 0x5555 }
	WrongName   Decoy = func(m *dns.Msg) { m.Question[0].Name = "forged.example." }
	WrongType   Decoy = func(m *dns.Msg) { m.Question[0].Qtype ^= 1 << 8 }
	NotAnAnswer Decoy = func(m *dns.Msg) { m.Response = false }
	OtherOpcode Decoy = func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }
	NoQuestion  Decoy = func(m *dns.Msg) { m.Question = nil }
	WrongSource Decoy = nil
)

// Query is one question as it arrived.
type Query struct {
	Msg    *dns.Msg
	From   netip.AddrPort
	Proto  string // "udp", "tcp", "tls" or "https"
	Header http.Header
}

// Server answers on a loopback port of its own until the test ends. Safe for
// concurrent use.
type Server struct {
	t       testing.TB
	addr    netip.AddrPort
	roots   *x509.CertPool // of the TLS servers
	url     string         // of the HTTPS server
	web     *httptest.Server
	wg      sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc
	handler dns.HandlerFunc

	mu      sync.Mutex
	faults  Faults
	queries []Query
	packets int
	dropped int
	conns   map[net.Conn]bool
	arrived chan struct{} // closed and replaced at each packet and query
}

// NewServer starts a server for UDP and TCP on one port. The handler must write
// exactly one message or none; Zone and Answer make handlers.
func NewServer(t testing.TB, handler dns.HandlerFunc) *Server {
	t.Helper()
	s := newServer(t, handler)
	var packets net.PacketConn
	var listener net.Listener
	for range 20 { // the port that UDP got may be taken in TCP
		var err error
		if packets, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if listener, err = net.Listen("tcp", packets.LocalAddr().String()); err == nil {
			break
		}
		packets.Close()
	}
	if listener == nil {
		t.Fatal("no port is free in both UDP and TCP")
	}
	s.addr = packets.LocalAddr().(*net.UDPAddr).AddrPort()
	s.serve(func() { s.servePackets(packets) }, func() { s.serveStreams(listener, "tcp") })
	t.Cleanup(func() { s.stop(packets, listener) })
	return s
}

// NewTLSServer starts a DNS over TLS server whose certificate is good for names
// (host names or addresses). Roots holds its authority.
func NewTLSServer(t testing.TB, handler dns.HandlerFunc, names ...string) *Server {
	t.Helper()
	s := newServer(t, handler)
	certificate, roots := Certificate(t, names...)
	s.roots = roots
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().(*net.TCPAddr).AddrPort()
	s.serve(func() { s.serveStreams(listener, "tls") })
	t.Cleanup(func() { s.stop(listener) })
	return s
}

// NewHTTPSServer starts a DNS over HTTPS server (HTTP/2) at /dns-query, whose
// certificate is good for names. Wrap, if not nil, may answer in its place.
func NewHTTPSServer(t testing.TB, handler dns.HandlerFunc, wrap func(http.Handler) http.Handler, names ...string) *Server {
	t.Helper()
	s := newServer(t, handler)
	certificate, roots := Certificate(t, names...)
	s.roots = roots
	var mux http.Handler = http.HandlerFunc(s.serveHTTP)
	if wrap != nil {
		mux = wrap(mux)
	}
	web := httptest.NewUnstartedServer(mux)
	web.Config.ErrorLog = quiet
	web.EnableHTTP2 = true
	web.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	web.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.count()
		}
	}
	web.StartTLS()
	s.web = web
	s.addr = web.Listener.Addr().(*net.TCPAddr).AddrPort()
	s.url = web.URL + "/dns-query"
	t.Cleanup(func() { s.cancel(); web.CloseClientConnections(); web.Close() })
	return s
}

// newServer makes what all servers share, and ends it with the test.
func newServer(t testing.TB, handler dns.HandlerFunc) *Server {
	s := &Server{t: t, handler: handler, conns: make(map[net.Conn]bool), arrived: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// serve runs accept loops until stop.
func (s *Server) serve(loops ...func()) {
	for _, loop := range loops {
		s.wg.Go(loop)
	}
}

// stop closes the listeners and every connection, and waits for the goroutines.
func (s *Server) stop(listeners ...io.Closer) {
	s.cancel()
	for _, listener := range listeners {
		_ = listener.Close()
	}
	s.CloseConns()
	s.wg.Wait()
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// URL is that of an HTTPS server, by its address.
func (s *Server) URL() string { return s.url }

// Roots trusts the certificate of a TLS or HTTPS server.
func (s *Server) Roots() *x509.CertPool { return s.roots }

// SetFaults replaces the faults, from the next packet on.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.dropped = f, 0
}

// Packets counts every datagram and every connection that ever arrived, also
// those that were no question.
func (s *Server) Packets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.packets
}

// Queries returns the questions of the messages that arrived, oldest first, in
// the case in which they came; those lost by Faults.Drop are among them.
func (s *Server) Queries() []dns.Question {
	var all []dns.Question
	for _, query := range s.Received() {
		all = append(all, query.Msg.Question...)
	}
	return all
}

// Received returns the messages that arrived, oldest first.
func (s *Server) Received() []Query {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Query(nil), s.queries...)
}

// Await waits until done is true, looking anew at each packet and query; the test fails
// after ten seconds.
func (s *Server) Await(done func(*Server) bool) {
	s.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		arrived := s.arrived
		s.mu.Unlock()
		if done(s) {
			return
		}
		select {
		case <-arrived:
		case <-deadline:
			s.t.Fatal("the packets that the test waits for did not come")
		}
	}
}
