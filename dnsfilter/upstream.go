package dnsfilter

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/rs/zerolog"
)

// Bounds of the upstream side. Together they say how much a daemon can hold on
// behalf of questions that nobody answers.
const (
	maxUpstreams     = 16   // servers, whatever their form
	maxInFlight      = 1024 // questions being asked at a time, over all upstreams
	upstreamRounds   = 2    // times that a silent upstream is asked for one question
	upstreamTimeout  = 2 * time.Second
	maxErrorText     = 200 // bytes of an upstream's last error that are kept
	resolvConfSystem = "/etc/resolv.conf"
)

// errUpstreamTimeout is in the chain of the error of an exchange that ran out of
// time; any other failure of all upstreams is not.
var errUpstreamTimeout = errors.New("no answer in time")

// errUpstreamsClosed answers an exchange that began after close.
var errUpstreamsClosed = errors.New("the upstreams are closed")

// upstreamConfig tells newUpstreams whom to ask. Upstreams is required, every
// other field has a default.
type upstreamConfig struct {
	// Upstreams are the forms of dns.upstreams in docs/configuration.md, in the
	// order of preference.
	Upstreams []string
	// Own reports whether an address is one of our own listeners. They are left
	// out of "system" and refused elsewhere. Nil: none is.
	Own func(netip.AddrPort) bool
	// ResolvConf is the file behind "system"; empty: /etc/resolv.conf.
	ResolvConf string
	// Timeout bounds one attempt at one upstream; 0: two seconds. The whole
	// exchange is bounded by its context.
	Timeout time.Duration
	// Log gets a line when an upstream stops answering and when it is back.
	Log zerolog.Logger
	// RootCAs are trusted for tls and https; nil: the system's.
	RootCAs *x509.CertPool
	// Up is told the state of each upstream at the start and at each change. It
	// must not block. Nil: nobody is told.
	Up func(name string, up bool)
}

// queryFlags are the bits of a question that make different answers.
type queryFlags struct {
	DO bool // DNSSEC records wanted, RFC 3225
	CD bool // checking disabled, RFC 4035 section 3.2.2
}

// upstreams asks the configured servers, in order, minding which of them
// answer. Safe for concurrent use.
type upstreams struct {
	timeout time.Duration
	log     zerolog.Logger
	up      func(name string, up bool)
	list    []*upstream
	slots   chan struct{} // one token per question in flight
	echoes  echoes

	ctx    context.Context // ends with close, and so do those made from it
	cancel context.CancelFunc

	telling sync.Mutex // held while up is called

	mu     sync.Mutex // guards closed, and wg.Add against wg.Wait
	closed bool
	wg     sync.WaitGroup // exchanges and probes
}

// upstream is one server: how to reach it and how it has been doing.
type upstream struct {
	name      string // as shown in events and metrics, free of secrets
	transport transport
	health    health
}

// transport carries one question to one server. Implementations are safe for
// concurrent use.
type transport interface {
	// ask returns an answer to exactly this question, or an error, by the time
	// that ctx ends.
	ask(ctx context.Context, q question) (*dns.Msg, error)
	// close ends connections and waits for the transport's goroutines. It is
	// called after the last ask has returned.
	close()
}

// newUpstreams checks the configuration and reads resolv.conf where "system" is
// listed; it opens no socket. Its errors are written for the operator, and
// each says how to mend the configuration.
func newUpstreams(cfg upstreamConfig) (*upstreams, error) {
	specs, err := expandUpstreams(cfg)
	if err != nil {
		return nil, err
	}
	u := &upstreams{
		timeout: cfg.Timeout,
		log:     cfg.Log,
		up:      cfg.Up,
		slots:   make(chan struct{}, maxInFlight),
	}
	if u.timeout <= 0 {
		u.timeout = upstreamTimeout
	}
	if u.up == nil {
		u.up = func(string, bool) {}
	}
	u.ctx, u.cancel = context.WithCancel(context.WithValue(context.Background(), upstreamsKey{}, u))
	names, known := make(map[string]int), make(map[string]bool)
	for _, spec := range specs {
		name := spec.name()
		if key := spec.key(); known[key] {
			continue // listed twice
		} else {
			known[key] = true
		}
		if names[name]++; names[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, names[name])
		}
		u.list = append(u.list, &upstream{name: name, transport: u.newTransport(spec, cfg.RootCAs)})
		u.up(name, true)
	}
	return u, nil
}

// newTransport makes the transport of one server; nothing is dialled yet.
func (u *upstreams) newTransport(spec upstreamSpec, roots *x509.CertPool) transport {
	switch spec.scheme {
	case schemeTCP:
		return newStreamTransport(dialTCP(spec.addr), u.timeout)
	case schemeTLS:
		return newStreamTransport(dialTLS(spec.addr, spec.tlsName(), roots), u.timeout)
	case schemeHTTPS:
		return newHTTPSTransport(spec, roots, u.timeout, u.bootstrap)
	default:
		return newUDPTransport(spec.addr, u.timeout, &u.echoes)
	}
}

// exchange asks the upstreams for one name (presentation form, with or without
// the final dot) and returns the first NOERROR or NXDOMAIN, with the name of
// the upstream that gave it. If none does but some answered otherwise, the last
// such answer comes back. The error wraps errUpstreamTimeout if time ran out,
// or context.Canceled if the caller or close gave up. Names in the message are
// lower case; the message is the caller's.
func (u *upstreams) exchange(ctx context.Context, name string, qtype uint16, flags queryFlags) (*dns.Msg, string, error) {
	if !u.enter() {
		return nil, "", errUpstreamsClosed
	}
	defer u.wg.Done()
	q, err := newQuestion(name, qtype, flags)
	if err != nil {
		return nil, "", err
	}
	if ctx.Value(upstreamsKey{}) != u {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(u.ctx, cancel)()
	}
	select {
	case u.slots <- struct{}{}:
		defer func() { <-u.slots }()
	case <-ctx.Done():
		return nil, "", fmt.Errorf("waiting for one of %d upstream slots: %w", maxInFlight, ended(ctx))
	}
	return u.failover(ctx, u.order(q), q)
}

// upstreamsKey is the key of contexts that end when upstreams close: they hold
// these.
type upstreamsKey struct{}

// enter counts an exchange in; false after close.
func (u *upstreams) enter() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.wg.Add(1)
	return true
}

// close ends exchanges in flight and waits until nothing of the upstreams runs
// any more. A second call does nothing.
func (u *upstreams) close() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.cancel()
	u.wg.Wait()
	for _, up := range u.list {
		up.transport.close()
	}
}

// UpstreamStatus is how one upstream has been doing, for people to read.
type UpstreamStatus struct {
	Name      string    // as in events and metrics
	Up        bool      // it answered when last asked
	Failures  int       // attempts failed since the last answer, one a back-off
	Retry     time.Time // when it is asked first again; zero if up
	LastError string    // the last failure, also of an upstream that is up; no secrets
}

// status tells the state of every upstream, in the order of preference.
func (u *upstreams) status() []UpstreamStatus {
	all := make([]UpstreamStatus, 0, len(u.list))
	for _, up := range u.list {
		s := up.health.status()
		s.Name = up.name
		all = append(all, s)
	}
	return all
}
