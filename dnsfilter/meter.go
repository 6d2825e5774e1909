package dnsfilter

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// MeterLimits are the numbers of DNS tunnelling, for one registrable domain and
// one client. For zero ones the defaults of docs/configuration.md stand.
type MeterLimits struct {
	Names    int           // unique names in Window
	Bytes    int64         // of labels in Window
	Window   time.Duration // that Names and Bytes are counted in
	DayBytes int64         // of labels in 24 hours
}

// The keys of MeterLimits, as a refusal names them.
const (
	LimitTunnelNames    = "alerts.thresholds.dns_tunnel_names"
	LimitTunnelBytes    = "alerts.thresholds.dns_tunnel_bytes"
	LimitTunnelDayBytes = "alerts.thresholds.dns_tunnel_day_bytes"
)

// WithDefaults fills in what is zero.
func (l MeterLimits) WithDefaults() MeterLimits {
	orDefault(&l.Names, 100)
	orDefault(&l.Bytes, 8<<10)
	orDefault(&l.Window, 10*time.Minute)
	orDefault(&l.DayBytes, 64<<10)
	return l
}

// negative reports whether one of the limits is.
func (l MeterLimits) negative() bool {
	return l.Names < 0 || l.Bytes < 0 || l.Window < 0 || l.DayBytes < 0
}

// scaled are the limits of a domain that several people own parts of.
func (l MeterLimits) scaled(factor int) MeterLimits {
	l.Names *= factor
	l.Bytes *= int64(factor)
	l.DayBytes *= int64(factor)
	return l
}

// A Meter counts what questions carry to the owners of the domains that they
// are about: for each pool, client and registrable domain, how many names were
// new, and how many bytes an observer of the questions has learnt. It does no
// I/O, and its only clock is the one passed in. Safe for concurrent use.
//
// What it counts is the length of a code for the questions (see cost), so that
// no way to write data into names, cases, types, orders or repeats carries more
// than it counts. docs/decisions/0008 has the reasoning.
type Meter struct {
	limits MeterLimits
	known  func(pool, name string) bool
	seed   maphash.Seed
	// Bounds, shared by all shards: of domains, and of names that are remembered.
	domains, names *shares
	shards         [meterShards]meterShard
}

// The bounds of a Meter. A pool may hold half of each, a client a quarter of
// that: who makes many domains or names finds his own share full, and evicts
// nothing, neither of his own nor of others.
const (
	meterDomains = 32768   // about 0.6 KiB each
	meterNames   = 1 << 19 // about 24 bytes each
	// meterDomainNames bounds the names remembered of one domain. One that is
	// not remembered counts as new each time.
	meterDomainNames = 8192
	meterShards      = 32
	meterSweep       = 5 * time.Minute // between two sweeps of a shard
)

// meterShard holds the clients of some accounts.
type meterShard struct {
	mu      sync.Mutex
	clients map[account]*meterClient
	swept   time.Time
}

// meterClient is one account's part.
type meterClient struct {
	domains map[string]*meterDomain
	// rest counts for all domains that found no room; nil until there is one.
	rest *meterDomain
}

// NewMeter makes a Meter. known tells which names of a pool are none that a job
// thought of, such as those of its baseline; it must be quick and safe for
// concurrent use. Nil: none is known.
func NewMeter(limits MeterLimits, known func(pool, name string) bool) *Meter {
	if known == nil {
		known = func(string, string) bool { return false }
	}
	return &Meter{
		limits: limits.WithDefaults(), known: known, seed: maphash.MakeSeed(),
		domains: newShares(meterDomains), names: newShares(meterNames),
	}
}

// A Carried is one question as a Meter sees it.
type Carried struct {
	Pool   string
	Client netip.Addr // allowlists.Subject.Key
	Name   string     // canonical, or as near to that as it gets; without the final dot
	Type   uint16
	Flags  bool // it has flags that travel: DO or CD
	// Listed says that a rule names the host exactly: a name of the policy's.
	Listed bool
	// Leaks says that the question left the machine, or may have; Repeats that it
	// surely did. Without the latter a name counts once.
	Leaks, Repeats bool
	// ID is kept as evidence where it is among the first of its domain.
	ID string
	// Missing and Answered are what became of it, where that is known: no such
	// name, and the bytes of the answer that are no addresses.
	Missing  bool
	Answered int
}

// carrier reports whether the type's answers take data of any kind.
func (q *Carried) carrier() bool {
	switch q.Type {
	case 5, 10, 15, 16: // CNAME, NULL, MX, TXT
		return true
	default:
		return false
	}
}

// Count counts a question and tells how things stand then.
func (m *Meter) Count(q *Carried, now time.Time) Tally {
	t, _ := m.measure(q, now, counting)
	return t
}

// Admit counts a question, unless it is one too many for its domain: a new name
// where any limit is reached, or a known one where that of bytes is and
// meterTrickle is used up.
func (m *Meter) Admit(q *Carried, now time.Time) (Tally, bool) {
	return m.measure(q, now, admitting)
}

// Look tells how things stand with a question's domain, and counts nothing.
func (m *Meter) Look(q *Carried, now time.Time) Tally {
	t, _ := m.measure(q, now, looking)
	return t
}

// What measure does.
const (
	counting = iota
	admitting
	looking
)

// measure is Count, Admit or Look. A Tally that is over its limit
// goes before one that is not, and that of the registrable domain before that
// of the suffix.
func (m *Meter) measure(q *Carried, now time.Time, what int) (Tally, bool) {
	own, shared := meterDomainsOf(q.Name)
	if own == "" && shared == "" || carriesByDesign(q.Name) {
		return Tally{}, true
	}
	by := account{q.Pool, q.Client}
	s := &m.shards[maphash.Comparable(m.seed, by)%meterShards]
	known := q.Listed || m.known(q.Pool, q.Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	m.sweep(s, now)
	hash := m.nameHash(q)
	var both [2]*meterDomain
	found := both[:0]
	for _, name := range [2]string{own, shared} {
		d := m.domain(s, by, name, q.Leaks)
		if d == nil || len(found) == 1 && d == found[0] {
			continue
		}
		d.limits = m.limits
		if name == shared {
			d.limits = m.limits.scaled(meterShared)
		}
		d.turn(now)
		if what == admitting {
			if t, ok := d.admits(q, hash, known, now); !ok {
				return t, false
			}
		}
		found = append(found, d)
	}
	var worst Tally
	for _, d := range found {
		if what != looking {
			d.count(q, hash, m.names, known)
		}
		if t := d.tally(what == looking); worst.Domain == "" || worst.Over == "" && t.Over != "" {
			worst = t
		}
	}
	return worst, true
}

// nameHash stands for a name; nobody who does not know the seed can make two
// that have the same.
func (m *Meter) nameHash(q *Carried) uint64 { return maphash.String(m.seed, q.Name) }

// domain finds a client's counters for a domain, or makes them. Without room
// they are those of all that found none: first the client's, then the pool's.
// Nil: the question does not matter enough.
func (m *Meter) domain(s *meterShard, by account, name string, leaks bool) *meterDomain {
	if name == "" {
		return nil
	}
	c := s.clients[by]
	if c != nil && c.domains[name] != nil {
		return c.domains[name]
	}
	if m.domains.enter(by) {
		if c == nil {
			c = s.add(by)
		}
		d := newMeterDomain(name, by)
		c.domains[name] = d
		return d
	}
	if !leaks {
		return nil
	}
	if c == nil { // of the pool, in this shard
		by = account{pool: by.pool}
		if c = s.clients[by]; c == nil {
			c = s.add(by)
		}
	}
	if c.rest == nil {
		c.rest = newMeterDomain(meterRest, by)
	}
	return c.rest
}

// meterRest is the Tally.Domain of the domains that found no room.
const meterRest = "many domains"

func (s *meterShard) add(by account) *meterClient {
	if s.clients == nil {
		s.clients = make(map[account]*meterClient)
	}
	c := &meterClient{domains: make(map[string]*meterDomain)}
	s.clients[by] = c
	return c
}

// Sweep forgets what is a day old. Count and Admit do it too, a part at a time.
func (m *Meter) Sweep(now time.Time) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		m.sweep(s, now)
		s.mu.Unlock()
	}
}

// sweep forgets the names and domains of a shard that are a day old, if that
// was not done lately. The caller holds the shard's lock.
func (m *Meter) sweep(s *meterShard, now time.Time) {
	if now.Sub(s.swept) < meterSweep {
		return
	}
	s.swept = now
	for by, c := range s.clients {
		for name, d := range c.domains {
			if d.forget(m.names, now) {
				delete(c.domains, name)
				m.domains.leave(by)
			}
		}
		if c.rest != nil && c.rest.forget(m.names, now) {
			c.rest = nil
		}
		if len(c.domains) == 0 && c.rest == nil {
			delete(s.clients, by)
		}
	}
}
