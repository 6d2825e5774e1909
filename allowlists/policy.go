package allowlists

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A PolicySpec is what a Policy is made from.
type PolicySpec struct {
	Pools       []PoolSpec
	DefaultPool string         // "" refuses clients that no source matches
	NAT64       []netip.Prefix // RFC 6052 prefixes whose addresses are judged as the IPv4 they carry
}

// A Policy is every pool of one configuration, compiled. It is immutable and
// safe for concurrent use.
type Policy struct {
	generation uint64
	pools      []*Pool
	byName     map[string]*Pool
	sources    map[netip.Prefix][]*Pool // by masked prefix; several only with different interfaces
	bits4      []int                    // prefix lengths in sources, longest first
	bits6      []int
	fallback   *Pool
	ends       []time.Time // when rules expire, soonest first
	grantEnds  []time.Time // when grants do, soonest first
}

// generations counts the policies made by this process, from 1.
var generations atomic.Uint64

// NewPolicy compiles a policy. It keeps the specification's slices, which
// nobody may change afterwards. It returns an error where two pools claim the
// same sources, or the default pool does not exist.
func NewPolicy(spec PolicySpec) (*Policy, error) { return newPolicy(spec, func() {}) }

// newPolicy is NewPolicy with a rest after each pool.
func newPolicy(spec PolicySpec, rest func()) (*Policy, error) {
	p := &Policy{
		byName:  make(map[string]*Pool, len(spec.Pools)),
		sources: make(map[netip.Prefix][]*Pool),
		ends:    expiries(spec.Pools),
	}
	for _, prefix := range spec.NAT64 {
		if !slices.Contains([]int{32, 40, 48, 56, 64, 96}, prefix.Bits()) || !prefix.Addr().Is6() {
			return nil, fmt.Errorf("%s is no NAT64 prefix; RFC 6052 has IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits", prefix)
		}
	}
	for _, ps := range spec.Pools {
		rest()
		pool := newPool(ps, spec.NAT64)
		if p.byName[ps.Name] != nil {
			return nil, fmt.Errorf("pool %q is there twice; give each pool a name of its own", ps.Name)
		}
		p.pools = append(p.pools, pool)
		p.byName[ps.Name] = pool
		if err := p.addSources(pool); err != nil {
			return nil, err
		}
	}
	p.bits4, p.bits6 = descending(p.bits4), descending(p.bits6)
	if spec.DefaultPool != "" {
		if p.fallback = p.byName[spec.DefaultPool]; p.fallback == nil {
			return nil, fmt.Errorf("default_pool %q is no pool; name one of the pools", spec.DefaultPool)
		}
	}
	p.generation = generations.Add(1)
	return p, nil
}

func (p *Policy) addSources(pool *Pool) error {
	for _, prefix := range pool.spec.Sources {
		prefix = prefix.Masked()
		for _, other := range p.sources[prefix] {
			if !disjoint(other.spec.Interfaces, pool.spec.Interfaces) {
				return fmt.Errorf("pools %q and %q both have the source %s; give each client to one pool", other.Name(), pool.Name(), prefix)
			}
		}
		p.sources[prefix] = append(p.sources[prefix], pool)
		if prefix.Addr().Is4() {
			p.bits4 = append(p.bits4, prefix.Bits())
		} else {
			p.bits6 = append(p.bits6, prefix.Bits())
		}
	}
	return nil
}

// disjoint reports whether two lists of interfaces never hold for one packet.
func disjoint(a, b []string) bool {
	for _, name := range a {
		if slices.Contains(b, name) {
			return false
		}
	}
	return len(a) > 0 && len(b) > 0
}

// Generation numbers the policy among those this process has made, from 1.
func (p *Policy) Generation() uint64 { return p.generation }

// Pools lists the pools in the order written. Nobody may change the slice.
func (p *Policy) Pools() []*Pool { return p.pools }

// Pool finds a pool by name, nil if there is none.
func (p *Policy) Pool(name string) *Pool { return p.byName[name] }

// Subject finds the pool of a client: the one whose own listener took the
// packet, else the longest source prefix that holds the address, else the
// default pool. listenerPool is "" for the shared listeners. A client whose
// address is another pool's source gets none at a pool's own listener, so that
// nothing inside a job can choose its pool. The pool is nil if none admits it.
func (p *Policy) Subject(client netip.Addr, iface, listenerPool string) (Subject, *Pool) {
	client = client.Unmap().WithZone("")
	pool, claimed := p.bySource(client, iface)
	switch own := p.byName[listenerPool]; {
	case listenerPool == "":
		if pool == nil && !claimed {
			pool = p.fallback
		}
	case pool != nil && pool != own, !admitsIface(own, iface):
		pool = nil
	default:
		pool = own
	}
	return Subject{Client: client, Iface: iface, Pool: pool.Name()}, pool
}

// bySource finds the pool with the longest source that holds the client and
// whose interfaces hold too; claimed is true if sources held but interfaces
// did not.
func (p *Policy) bySource(client netip.Addr, iface string) (found *Pool, claimed bool) {
	bits := p.bits6
	if client.Is4() {
		bits = p.bits4
	}
	for _, n := range bits {
		prefix, err := client.Prefix(n)
		if err != nil {
			continue
		}
		for _, pool := range p.sources[prefix] {
			if admitsIface(pool, iface) {
				return pool, true
			}
			claimed = true
		}
		if claimed {
			return nil, true
		}
	}
	for _, pool := range p.pools {
		if len(pool.spec.Sources) == 0 && len(pool.spec.Interfaces) > 0 && iface != "" && admitsIface(pool, iface) {
			return pool, true
		}
	}
	return nil, false
}

// admitsIface reports whether a pool takes packets that came in by iface.
func admitsIface(pool *Pool, iface string) bool {
	return pool != nil && (len(pool.spec.Interfaces) == 0 || slices.Contains(pool.spec.Interfaces, iface))
}

// SourceOf says which source of its pool admits a client, for explain; "" if
// it is the default pool or a listener of the pool's own.
func (p *Policy) SourceOf(client netip.Addr) string {
	client = client.Unmap().WithZone("")
	for _, n := range append(slices.Clone(p.bits4), p.bits6...) {
		if prefix, err := client.Prefix(n); err == nil && len(p.sources[prefix]) > 0 {
			return prefix.String()
		}
	}
	return ""
}

// HasSuffixEcho reports whether h is a name that pool allows with one of the
// search suffixes after it, as resolvers ask when they try their search list.
func (p *Pool) HasSuffixEcho(h Host, search []Host) bool {
	for _, suffix := range search {
		if front, ok := strings.CutSuffix(h.name, "."+suffix.name); ok && p != nil && len(p.allowing(Host{front})) > 0 {
			return true
		}
	}
	return false
}

// allowing lists the allow rules that cover h, most specific first.
func (p *Pool) allowing(h Host) []*Rule {
	var rules []*Rule
	p.allowed(h, func(r *Rule) bool { rules = append(rules, r); return true })
	return rules
}

// ExpiresBetween reports whether a rule or grant ends after from and at or before
// to, so that what it alone allowed has to go.
func (p *Policy) ExpiresBetween(from, to time.Time) bool {
	next := p.NextExpiry(from)
	return !next.IsZero() && !next.After(to)
}

// NextExpiry is when the first rule or grant ends that does after from; zero if
// none does.
func (p *Policy) NextExpiry(from time.Time) time.Time {
	next := firstAfter(p.ends, from)
	if grant := firstAfter(p.grantEnds, from); next.IsZero() || !grant.IsZero() && grant.Before(next) {
		return grant
	}
	return next
}

// firstAfter is the first of ends, soonest first, that is after from; zero if
// none is.
func firstAfter(ends []time.Time, from time.Time) time.Time {
	i, _ := slices.BinarySearchFunc(ends, from, func(end, from time.Time) int {
		if end.After(from) {
			return 1
		}
		return -1
	})
	if i == len(ends) {
		return time.Time{}
	}
	return ends[i]
}

// expiries lists when the rules of some pools end, soonest first.
func expiries(pools []PoolSpec) []time.Time {
	var ends []time.Time
	for _, ps := range pools {
		for _, rules := range [][]Rule{ps.Allow, ps.Deny, ps.Quiet} {
			for i := range rules {
				if !rules[i].Expires.IsZero() {
					ends = append(ends, rules[i].Expires)
				}
			}
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends
}
