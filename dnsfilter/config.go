// Package dnsfilter is the resolver that jobs ask: it answers what their pool
// allows and nothing else.
//
// One question runs through handle: parsed strictly (message.go), its client
// found, limits held (limits.go), the name judged before the cache is looked at
// (judge.go), asked of the cache or of an upstream (flight.go, cache.go,
// upstream.go), the answer cut down to the chain that belongs to it (scrub.go),
// its addresses judged for the pool that asked (addresses.go), remembered in the
// book of answers (book.go; kept over restarts by bookstore.go), recorded (record.go), and only then replied.
// What a pool asks again is repeated by quick (quick.go), with the same bytes and records.
package dnsfilter

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sallyport/allowlists"
)

// A Listener is one address served over UDP and TCP.
type Listener struct {
	Addr  string // "host:port"; port 0 picks one that is free for both
	Pool  string // the pool whose own listener this is; "" where the source tells the pool
	Iface string // takes only what comes in by this interface; "" takes all the rest
	// Shared says that other listeners have the same address, each with its Iface.
	Shared bool
}

// The two answers to a refused name, Config.Blocked.
const (
	BlockedNXDOMAIN = "nxdomain"
	BlockedREFUSED  = "refused"
)

// Config is what a Server is made from. Policy and Upstreams are required; for
// zero numbers, unless it says otherwise, the defaults of docs/configuration.md
// stand.
type Config struct {
	Listeners []Listener
	// Policy gives the policy of this moment. It is called once per decision
	// and must be safe for concurrent use.
	Policy func() *allowlists.Policy
	// Gate says whether new questions are taken: Allowed, or the reason why not.
	// Nil: always.
	Gate func() allowlists.Reason
	// Observe takes the record of each question. It is called before the reply
	// leaves, and by many goroutines. Nil: nobody looks.
	Observe func(QueryRecord)
	// ObserveRefused is Observe for questions that were refused together: it
	// returns once all may be answered. The slice is only lent. Nil: Observe takes
	// one after the other.
	ObserveRefused func([]QueryRecord)
	// Client gives the address that a client is known by: in a sidecar all of
	// the machine's are one. Nil: each is itself.
	Client func(netip.Addr) netip.Addr
	// Machine gives allowlists.Subject.Machine for a client by the interface it
	// came in by, zero if it knows none. It must not take long. Nil: none is known.
	Machine func(iface string, client netip.Addr) netip.Addr
	// Probe reports whether a question, by its name without the final dot, is
	// only to see that it comes here: it is refused without a record. Nil: none is.
	Probe func(name string) bool
	// Wanted gives the resolver that a question over UDP was sent to before it
	// was redirected here, by the address and port it comes from; the zero Addr if
	// it was not, or nobody knows. It is asked before the record is made, and so
	// must not take long. Nil: never. Over TCP the kernel knows.
	Wanted func(client netip.AddrPort) netip.Addr
	// IsForeign reports whether a resolver is none that clients here are meant to
	// ask: only such a one gets into the record. Nil: none is.
	IsForeign func(netip.Addr) bool

	Upstreams  []string                  // the forms of dns.upstreams
	Own        func(netip.AddrPort) bool // reports our own listeners, which are no upstreams; nil: none
	ResolvConf string                    // the file behind "system"; "": /etc/resolv.conf
	RootCAs    *x509.CertPool            // for tls and https upstreams; nil: the system's
	// UpstreamTimeout bounds one attempt at one upstream, QueryTimeout the whole
	// of a question; 0: their defaults.
	UpstreamTimeout, QueryTimeout time.Duration

	Search       []allowlists.Host // suffixes whose echoes are no alert
	Blocked      string            // BlockedNXDOMAIN (default) or BlockedREFUSED
	BookGrace    time.Duration     // an answer is good for its TTL plus this; 0 means none
	MaxTTL       time.Duration
	Stale        time.Duration // serve expired answers this long when upstreams fail; 0: never
	CacheEntries int
	BookEntries  int // names in the book of answers, over all pools
	// BookFile keeps the book of answers over restarts; "" keeps nothing. Its
	// directory is made if it is missing.
	BookFile string
	// BookFault is told when the kept book cannot be written (BookFailing, and
	// why), was deleted or is not as it was left (BookMissing, BookDamaged), and
	// when it is kept again (BookWell). It must be quick. Nil: nobody is told.
	BookFault func(state, cause string)
	PerClient int // questions a second of one client
	// Tunnel limits what a client's questions may carry to the owner of a domain.
	Tunnel MeterLimits
	// Known reports whether a name is usual in a pool: it is no new name for
	// Tunnel then. It must be quick, and safe for concurrent use. Nil: none is.
	Known func(pool, name string) bool

	Log zerolog.Logger
	// Metrics takes the collectors of docs/metrics.md; nil: none are registered.
	Metrics prometheus.Registerer
}

// Defaults of Config, as in docs/configuration.md.
const (
	defaultMaxTTL       = time.Hour
	defaultCacheEntries = 65536
	defaultBookEntries  = 262144
	defaultPerClient    = 1000
	// defaultQueryTimeout leaves resolvers that wait five seconds, as glibc
	// does, the time to hear that it failed.
	defaultQueryTimeout = 4500 * time.Millisecond
)

// checked fills in the defaults, and returns an error for what no default mends.
func (c Config) checked() (Config, error) {
	if c.Policy == nil {
		return c, errors.New("dnsfilter needs a policy")
	}
	switch c.Blocked {
	case "":
		c.Blocked = BlockedNXDOMAIN
	case BlockedNXDOMAIN, BlockedREFUSED:
	default:
		return c, fmt.Errorf("dns.blocked is %q; it is nxdomain or refused", c.Blocked)
	}
	if c.BookGrace < 0 || c.MaxTTL < 0 || c.Stale < 0 || c.CacheEntries < 0 || c.BookEntries < 0 || c.PerClient < 0 || c.Tunnel.negative() {
		return c, errors.New("dnsfilter takes no negative time or number")
	}
	orDefault(&c.MaxTTL, defaultMaxTTL)
	orDefault(&c.QueryTimeout, defaultQueryTimeout)
	orDefault(&c.CacheEntries, defaultCacheEntries)
	orDefault(&c.BookEntries, defaultBookEntries)
	orDefault(&c.PerClient, defaultPerClient)
	if c.Gate == nil {
		c.Gate = func() allowlists.Reason { return allowlists.Allowed }
	}
	if c.Observe == nil {
		c.Observe = func(QueryRecord) {}
	}
	if observe := c.Observe; c.ObserveRefused == nil {
		c.ObserveRefused = func(all []QueryRecord) {
			for _, r := range all {
				observe(r)
			}
		}
	}
	if c.Client == nil {
		c.Client = func(addr netip.Addr) netip.Addr { return addr }
	}
	if c.Machine == nil {
		c.Machine = func(string, netip.Addr) netip.Addr { return netip.Addr{} }
	}
	if c.Probe == nil {
		c.Probe = func(string) bool { return false }
	}
	return c, nil
}

func orDefault[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}
