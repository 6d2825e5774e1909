package dnsfilter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// maxHandlers bounds the questions over UDP that are being worked on: half for a
// pool, a quarter of that for a client. A packet beyond is dropped and counted,
// and holds up none that comes after it. A question that waits for an upstream
// is refused long before, as maxWaiting is smaller: to get here a refusal's line
// must wait for a slow event log.
const maxHandlers = 2 * maxWaiting

// A Server is the resolver: it listens, judges, answers and remembers. It is
// safe for concurrent use. New, then Listen, then Serve once; or Close.
type Server struct {
	cfg       Config
	blocked   int // response code of a refused name
	metrics   *metrics
	upstreams *upstreams
	// ask is upstreams.exchange, but for tests.
	ask               func(ctx context.Context, name string, qtype uint16, flags queryFlags) (*dns.Msg, string, error)
	cache             *cache
	answers, refusals *readies
	flights           flights
	waiting           *shares
	meter             *Meter
	turns             *turns
	rates             *rates
	book              *book
	store             *bookStore // keeps the book; nil: nothing does
	follows           *follows
	sweeper           sweeper

	ctx    context.Context // of questions under way; ends with Close
	cancel context.CancelFunc

	bound    []*bound
	streams  *streams
	streamed *turns         // of questions over TCP until their replies are taken
	working  *shares        // of handlers that answer packets
	handlers sync.WaitGroup // clients' questions being worked on
	idle     chan packet    // takes a packet where a goroutine waits for one
	idlers   atomic.Int32   // that wait
	taken    atomic.Bool    // a packet was, since restPackets looked
	stopping atomic.Bool
	closing  sync.Once
}

// bound is one Listener with its sockets.
type bound struct {
	Listener
	udp     *net.UDPConn
	tcp     *net.TCPListener
	replies chan datagram // to be sent by udp
	// Quick refusals on their way to be recorded and sent, and room for more.
	refused, spare chan *refusing
}

// New checks the configuration and makes a Server. It reads resolv.conf where
// upstreams say "system", and opens no socket. Its errors are for the operator.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.checked()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     cfg,
		blocked: dns.RcodeNameError,
		cache:   newCache(cfg.CacheEntries, cacheBytes, cfg.Stale),
		answers: newReadies(readyAnswers), refusals: newReadies(readyRefusals),
		flights: flights{byKey: make(map[flightKey]*flight)},
		waiting: newShares(maxWaiting),
		meter:   NewMeter(cfg.Tunnel, cfg.Known),
		turns:   newTurns(maxTurns),
		rates:   newRates(cfg.PerClient, maxRateClients),
		book:    newBook(cfg.BookEntries),
		follows: newFollows(),
		streams: newStreams(), streamed: newTurns(maxStreamed),
		working: newShares(maxHandlers), idle: make(chan packet),
	}
	if cfg.Blocked == BlockedREFUSED {
		s.blocked = dns.RcodeRefused
	}
	if s.metrics, err = newMetrics(cfg.Metrics, s.cache.entries); err != nil {
		return nil, err
	}
	for _, pool := range cfg.Policy().Pools() {
		s.metrics.dropped.WithLabelValues(pool.Name()) // zero is a figure, too
	}
	s.upstreams, err = newUpstreams(upstreamConfig{
		Upstreams: cfg.Upstreams, Own: cfg.Own, ResolvConf: cfg.ResolvConf, Timeout: cfg.UpstreamTimeout,
		Log: cfg.Log, RootCAs: cfg.RootCAs, Up: s.metrics.upstreamUp,
	})
	if err != nil {
		return nil, err
	}
	s.ask = s.upstreams.exchange
	s.ctx, s.cancel = context.WithCancel(s.upstreams.ctx)
	return s, nil
}

// Listen reads the kept book and begins to keep it, and binds every listener,
// over UDP and TCP. With an error none is bound.
func (s *Server) Listen() error {
	if s.cfg.BookFile != "" {
		s.store = openBookStore(s.cfg.BookFile, s.book, s.cfg.MaxTTL+s.cfg.BookGrace,
			standsUnder(s.cfg.Policy(), time.Now()), s.bookFault, s.cfg.Log)
	}
	for _, l := range s.cfg.Listeners {
		b, err := bind(l)
		if b != nil {
			s.bound = append(s.bound, b)
		}
		if err != nil {
			s.unbind()
			s.store.close()
			return fmt.Errorf("listening for DNS on %s: %w", l.Addr, err)
		}
	}
	if s.store != nil {
		s.store.start()
	}
	return nil
}

const (
	// bindTries is how many ports are tried where UDP and TCP are to share a free one.
	bindTries = 16
	// readBuffer is the room for packets that wait in the kernel, in bytes.
	readBuffer = 1 << 20
)

// bind opens both sockets of one listener. TCP comes first: of its ports many
// more are taken for a while, by connections that have ended.
func bind(l Listener) (*bound, error) {
	wanted, err := net.ResolveTCPAddr("tcp", l.Addr)
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig
	if l.Shared {
		config.Control = byDevice(l.Iface)
	}
	for try := 1; ; try++ {
		tcp, err := config.Listen(context.Background(), "tcp", l.Addr)
		if err != nil {
			return nil, err
		}
		udp, err := config.ListenPacket(context.Background(), "udp", tcp.Addr().String())
		if err == nil {
			udp := udp.(*net.UDPConn)
			_ = udp.SetReadBuffer(readBuffer) // as much of it as the kernel grants
			return newBound(l, udp, tcp.(*net.TCPListener)), wantDestination(udp)
		}
		tcp.Close()
		if wanted.Port != 0 || try == bindTries {
			return nil, err
		}
	}
}

func newBound(l Listener, udp *net.UDPConn, tcp *net.TCPListener) *bound {
	b := &bound{
		Listener: l, udp: udp, tcp: tcp, replies: make(chan datagram, udpBatch),
		refused: make(chan *refusing, maxRefusing), spare: make(chan *refusing, maxRefusing),
	}
	for range maxRefusing {
		b.spare <- &refusing{}
	}
	return b
}

// Addrs gives the bound address of each listener, in the order configured.
func (s *Server) Addrs() []netip.AddrPort {
	addrs := make([]netip.AddrPort, len(s.bound))
	for i, b := range s.bound {
		addrs[i] = plain(b.udp.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return addrs
}

// plain unmaps an address.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// known is a client by the address it is known by, with its port.
func (s *Server) known(client netip.AddrPort) netip.AddrPort {
	client = plain(client)
	return netip.AddrPortFrom(s.cfg.Client(client.Addr()), client.Port())
}

// Upstreams tells how each upstream has been doing, in the order of preference.
func (s *Server) Upstreams() []UpstreamStatus { return s.upstreams.status() }

// BookSizes tells how many names the book of answers holds, and how many had
// to give way before their time since the start.
func (s *Server) BookSizes() (names int, evicted uint64) { return s.book.sizes() }

// BookKept reports whether the book of answers goes on where an earlier daemon's
// ended, as far as it was there whole. It is known after Listen.
func (s *Server) BookKept() bool { return s.store != nil && s.store.kept }

// Serve answers until ctx ends, then takes no more questions, answers those it
// has, and closes everything as Close does. It returns the first error of a
// listener that broke; the others are stopped then too.
func (s *Server) Serve(ctx context.Context) error {
	loops := make(chan error, 2*len(s.bound))
	var senders, resting sync.WaitGroup
	awake, rest := context.WithCancel(context.WithoutCancel(ctx))
	defer rest()
	resting.Go(func() { s.restPackets(awake) })
	for _, b := range s.bound {
		senders.Go(b.sendReplies)
		senders.Go(func() { s.sendRefusals(b) })
		go func() { loops <- s.serveUDP(b) }()
		go func() { loops <- s.serveTCP(b) }()
	}
	running := cap(loops)
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-loops:
		running--
	}
	s.stopReading()
	for range running {
		failed = errors.Join(failed, <-loops)
	}
	s.streams.wait()
	rest()
	resting.Wait()
	close(s.idle) // every loop that fills it has ended
	s.handlers.Wait()
	for _, b := range s.bound {
		close(b.replies)
		close(b.refused)
	}
	senders.Wait()
	s.Close()
	return failed
}

// stopReading makes every loop end; sockets stay open for the replies to come.
func (s *Server) stopReading() {
	s.stopping.Store(true)
	for _, b := range s.bound {
		_ = b.udp.SetReadDeadline(longAgo)
		b.tcp.Close()
	}
	s.streams.stop()
}

// Close gives back what New and Listen took, and ends questions under way. It
// waits for what they run. A second call does nothing.
func (s *Server) Close() {
	s.closing.Do(func() {
		s.unbind()
		s.cancel()
		s.flights.close()
		s.sweeper.close()
		s.store.close()
		s.upstreams.close()
	})
}

func (s *Server) unbind() {
	for _, b := range s.bound {
		b.udp.Close()
		b.tcp.Close()
	}
}
