package alerting

import (
	"fmt"
	"time"

	"sallyport/allowlists"
)

// lookalike raises lookalike: a refused registrable domain might be taken for
// one that the pool allows. One group per pool and domain; it takes the place
// of denied-egress.
//
// State: what the pools of the policy in force allow, each indexed when it is
// first needed, and what some hosts were found to be by that policy.
type lookalike struct {
	least      int // letters of the first label
	policy     func() *allowlists.Policy
	generation uint64
	pools      map[string]*lookalikes // as many as the policy has; nil: to be made
	seen       map[hostIn]likeness    // at most likeSeen; made and dropped with pools
}

// likeSeen bounds the hosts that a lookalike remembers, of 1 KiB at most
// each. A job that asks for more makes it look again, and no worse.
const likeSeen = 2048

// hostIn is a refused host as one pool has it.
type hostIn struct{ pool, host string }

// A likeness is what a refused host is to its pool; ok if it might be taken for
// something allowed.
type likeness struct {
	refused, allowed likeDomain
	how              string
	ok               bool
}

func newLookalike(config *correlatorConfig) *lookalike {
	return &lookalike{least: config.number("lookalike_min_letters", 5), policy: config.policy}
}

func (d *lookalike) observe(e *Event, _ time.Time) []finding {
	if !decides(e) || e.Cause() != allowlists.NotInAllowlist || e.Quiet || e.Search || e.Reverse() {
		return nil
	}
	host := hostOf(e)
	known := d.known(e.Pool)
	if known == nil {
		return nil
	}
	like, again := d.seen[hostIn{e.Pool, host}]
	if !again {
		like = d.look(known, e.Pool, host)
	}
	if !like.ok {
		return nil
	}
	f := found(e, AlertLookalike, Medium)
	f.subject = like.refused.String()
	what := host
	if what != f.subject {
		what += " of " + f.subject
	}
	f.summary = fmt.Sprintf("%s asked for %s in %s, which allows %s, %s", f.asker, what, poolName(f.pool), like.allowed, like.how)
	return []finding{f}
}

// look finds out what a host is to a pool, and remembers it.
func (d *lookalike) look(known *lookalikes, pool, host string) (like likeness) {
	if like.refused, like.ok = registrable(host); like.ok {
		like.allowed, like.how, like.ok = known.of(like.refused, d.least)
	}
	if len(d.seen) >= likeSeen {
		clear(d.seen)
	}
	d.seen[hostIn{pool, host}] = like
	return like
}

// known is what a pool allows by the policy in force; nil if there is no pool.
func (d *lookalike) known(name string) *lookalikes {
	if d.policy == nil {
		return nil
	}
	policy := d.policy()
	if policy == nil || policy.Pool(name) == nil {
		return nil
	}
	if d.pools == nil || d.generation != policy.Generation() {
		d.generation, d.pools = policy.Generation(), make(map[string]*lookalikes)
		d.seen = make(map[hostIn]likeness)
	}
	if d.pools[name] == nil {
		d.pools[name] = newLookalikes(policy.Pool(name))
	}
	return d.pools[name]
}

func (*lookalike) expire(time.Time) {}
