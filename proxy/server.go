// Package proxy is the way out for connections: it reads what a client asks
// for, has it judged by name, port, address and first bytes, dials exactly what
// was judged, carries the bytes, and leaves one record for each decision.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sallyport/allowlists"
)

// A Listener is one address to take connections on.
type Listener struct {
	Addr  string // "host:port"; port 0 takes a free one
	Pool  string // the pool whose own listener it is; "" finds the pool by the client's address
	Iface string // takes only what comes in by this interface; "" takes all the rest
	// Shared says that other listeners have the same address, each with its Iface.
	Shared bool
	// Transparent takes connections that a firewall redirected here, which want
	// to go to another address.
	Transparent bool
}

// Config is what a Server needs. Every func must be safe for concurrent use.
type Config struct {
	Listeners []Listener
	Limits    allowlists.Limits // DNSPerClient and BookEntries are not ours
	Policy    func() *allowlists.Policy
	Resolver  Resolver
	// Observe takes every record. It returns once a refusal is written down;
	// only then is the client told. nil drops them.
	Observe func(ConnRecord)
	// Gate is asked before new work: Allowed, or the reason to refuse it. nil
	// always allows.
	Gate func() allowlists.Reason
	// IsOwn reports whether a destination is a listener of this daemon, on any
	// own address. nil knows only the addresses that this server bound.
	IsOwn func(netip.AddrPort) bool
	// Probe reports whether a redirected connection to this destination is only
	// to see that it is redirected: it is closed without a record. nil: none is.
	Probe func(netip.AddrPort) bool
	// Original gives where a redirected connection wanted to go, the zero
	// AddrPort for one that was made straight to us. nil asks the kernel.
	Original func(*net.TCPConn) netip.AddrPort
	// Client gives the address that a client is known by: in a sidecar all of
	// the machine's are one. nil leaves each as it is.
	Client func(netip.Addr) netip.Addr
	// Machine gives allowlists.Subject.Machine for a client by the interface it
	// came in by, zero if it knows none. It must not take long. nil knows none.
	Machine  func(iface string, client netip.Addr) netip.Addr
	Progress time.Duration // between records of an open tunnel; 0 writes none
	// ParkAfter is how long nothing moves in a tunnel before it gives back its
	// goroutines and their stacks, for the first time; 0 means 250 ms.
	ParkAfter  time.Duration
	Log        zerolog.Logger
	Registerer prometheus.Registerer // nil counts nowhere
}

// A Server is the proxy, explicit and transparent. New, Listen, then Serve, once each; every
// other method is safe for concurrent use at any time.
type Server struct {
	cfg     Config
	limits  *limits
	uploads *uploads
	carrier http.Handler
	metrics *metrics
	packets *packetFlows
	crew    crew // of sessions, dials and tunnels
	failed  failures
	lot     *parkingLot // while Serve runs; nil where it cannot be had

	refusing chan struct{} // one for each connection that is being told of a limit
	draining atomic.Bool
	hurry    chan struct{} // closed by Hurry
	hurried  sync.Once

	mu        sync.Mutex // guards all below
	listeners []boundListener
	sessions  map[*session]struct{} // at most limits.connections
	before    map[*session]struct{} // those of sessions that were there when draining began; nil before
	finished  chan struct{}         // closed when before is empty
	running   sync.WaitGroup        // sessions and connections being refused
}

type boundListener struct {
	*net.TCPListener
	Listener
}

// New checks the configuration. It binds nothing and starts nothing.
func New(cfg Config) (*Server, error) {
	switch l := cfg.Limits; {
	case cfg.Policy == nil, cfg.Resolver == nil:
		return nil, errors.New("the proxy needs a policy and a resolver")
	case l.Connections <= 0, l.ConnectionsPerClient <= 0, l.Dials <= 0, l.HeaderBytes <= 0:
		return nil, errors.New("a limit of the proxy is not positive")
	case l.HeaderTimeout <= 0, l.HelloTimeout <= 0, l.DialTimeout <= 0, l.IdleTimeout <= 0, l.DrainTimeout < 0:
		return nil, errors.New("a time limit of the proxy is not positive")
	}
	if cfg.ParkAfter == 0 {
		cfg.ParkAfter = parkAfter
	}
	if cfg.Observe == nil {
		cfg.Observe = func(ConnRecord) {}
	}
	if cfg.Gate == nil {
		cfg.Gate = func() allowlists.Reason { return allowlists.Allowed }
	}
	if cfg.Probe == nil {
		cfg.Probe = func(netip.AddrPort) bool { return false }
	}
	if cfg.Original == nil {
		cfg.Original = originalOf
	}
	if cfg.Client == nil {
		cfg.Client = func(addr netip.Addr) netip.Addr { return addr }
	}
	if cfg.Machine == nil {
		cfg.Machine = func(string, netip.Addr) netip.Addr { return netip.Addr{} }
	}
	s := &Server{
		cfg: cfg, carrier: newCarrier(), uploads: newUploads(),
		limits: newLimits(limitCounts{
			connections: cfg.Limits.Connections, connectionsPerClient: cfg.Limits.ConnectionsPerClient, dials: cfg.Limits.Dials,
		}, time.Now),
		refusing: make(chan struct{}, refusalsAtOnce), packets: newPacketFlows(),
		sessions: make(map[*session]struct{}), hurry: make(chan struct{}), finished: make(chan struct{}),
	}
	if s.cfg.IsOwn == nil {
		s.cfg.IsOwn = s.bound
	}
	var err error
	if s.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return s, nil
}

// Listen binds every listener, or none: the first that cannot be bound is the
// error.
func (s *Server) Listen() error {
	for _, want := range s.cfg.Listeners {
		var config net.ListenConfig
		config.SetMultipathTCP(false) // splice(2) does not know it
		if want.Shared {
			config.Control = byDevice(want.Iface)
		}
		listenKeepingAlive(&config)
		l, err := config.Listen(context.Background(), "tcp", want.Addr)
		if err != nil {
			s.Close()
			return fmt.Errorf("listening for the proxy: %w", err)
		}
		s.mu.Lock()
		s.listeners = append(s.listeners, boundListener{l.(*net.TCPListener), want})
		s.mu.Unlock()
	}
	return nil
}

// Addrs are the addresses bound, in the order of Config.Listeners.
func (s *Server) Addrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := make([]netip.AddrPort, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.TCPListener.Addr().(*net.TCPAddr).AddrPort()
	}
	return addrs
}

// ListenerAddrs are the addresses bound of explicit, or of transparent listeners.
func (s *Server) ListenerAddrs(transparent bool) []netip.AddrPort {
	var addrs []netip.AddrPort
	for i, addr := range s.Addrs() {
		if s.cfg.Listeners[i].Transparent == transparent {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// bound reports whether a destination is a listener of this server.
func (s *Server) bound(addr netip.AddrPort) bool {
	for _, own := range s.Addrs() {
		if own.Port() == addr.Port() && (own.Addr().Unmap() == addr.Addr().Unmap() || own.Addr().IsUnspecified()) {
			return true
		}
	}
	return false
}

// Close closes the listeners. Serve does so by itself; Close is for a program
// that gives up between Listen and Serve.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

// Serve takes connections until ctx ends. Then it lets what is open finish for
// Limits.DrainTimeout, and refuses new connections as shutting-down until that
// is done; at last it closes the rest and returns nil. Every goroutine has
// ended by then.
func (s *Server) Serve(ctx context.Context) error {
	lot, err := newParkingLot()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		s.cfg.Log.Warn().Err(err).Msg("idle tunnels keep their goroutines")
	}
	s.mu.Lock()
	s.lot = lot
	s.mu.Unlock()
	var loops sync.WaitGroup
	accepting, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.mu.Lock()
	for _, l := range s.listeners {
		loops.Go(func() { s.accept(accepting, l) })
	}
	s.mu.Unlock()
	loops.Go(func() { s.expire(accepting) })
	<-ctx.Done()
	late := time.NewTimer(s.cfg.Limits.DrainTimeout)
	defer late.Stop()
	s.drain(late.C)
	stop()
	s.Close()
	loops.Wait()
	s.finish(late.C)
	return nil
}

// Hurry ends a drain at once, now or when it comes.
func (s *Server) Hurry() { s.hurried.Do(func() { close(s.hurry) }) }

// drain waits for the sessions that are open to finish, as long as it may take.
func (s *Server) drain(late <-chan time.Time) {
	s.mu.Lock()
	s.draining.Store(true)
	s.before = maps.Clone(s.sessions)
	s.mu.Unlock()
	s.each((*session).drain)
	s.gone(nil)
	select {
	case <-s.finished:
	case <-late:
		s.Hurry()
	case <-s.hurry:
	}
}

// gone takes a session off the list, and tells when no more of those are left
// that drain waits for.
func (s *Server) gone(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, sess)
	if s.before == nil {
		return
	}
	delete(s.before, sess)
	select {
	case <-s.finished:
	default:
		if len(s.before) == 0 {
			close(s.finished)
		}
	}
}

// finish lets those that are being refused hear it, then ends every session,
// then closes their connections. No new ones come any more.
func (s *Server) finish(late <-chan time.Time) {
	defer s.crew.end()
	defer s.lot.close()
	done := make(chan struct{})
	go func() { s.running.Wait(); close(done) }()
	s.each((*session).drain)
	select {
	case <-done:
		return
	case <-late:
	case <-s.hurry:
	}
	down := refusal(allowlists.Decision{Reason: allowlists.ShuttingDown}, nil)
	s.each(func(sess *session) { sess.end(down) })
	<-done
}

// each calls do for every session, without a lock.
func (s *Server) each(do func(*session)) {
	s.mu.Lock()
	all := make([]*session, 0, len(s.sessions))
	for sess := range s.sessions {
		all = append(all, sess)
	}
	s.mu.Unlock()
	for _, sess := range all {
		do(sess)
	}
}

// PolicyChanged closes what the policy now in force does not allow. It returns
// before the last of it is closed.
func (s *Server) PolicyChanged() { s.each((*session).policyChanged) }

// expireEvery is how often rules that end are looked for.
const expireEvery = 500 * time.Millisecond

// expire does what PolicyChanged does whenever a rule ends, until ctx does.
func (s *Server) expire(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	// Without the monotonic clock: a rule ends by the calendar.
	last := time.Now().Round(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.crew.rest()
		now := time.Now().Round(0)
		if s.cfg.Policy().ExpiresBetween(last, now) {
			s.PolicyChanged()
		}
		last = now
	}
}

// Status is what a server is doing.
type Status struct {
	Listeners []netip.AddrPort
	Sessions  int  // client connections
	Parked    int  // of those, tunnels in which nothing moves
	Draining  bool // no new ones are taken
}

// Status tells what the server is doing now.
func (s *Server) Status() Status {
	addrs := s.Addrs()
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Listeners: addrs, Sessions: len(s.sessions), Parked: s.lot.count(), Draining: s.draining.Load()}
}
