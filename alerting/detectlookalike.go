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
// first needed.
type lookalike struct {
	least      int // letters of the first label
	policy     func() *allowlists.Policy
	generation uint64
	pools      map[string]*lookalikes // as many as the policy has; nil: to be made
}

func newLookalike(config *correlatorConfig) *lookalike {
	return &lookalike{least: config.number("lookalike_min_letters", 5), policy: config.policy}
}

func (d *lookalike) observe(e *Event, _ time.Time) []finding {
	if !decides(e) || e.Cause() != allowlists.NotInAllowlist || e.Quiet || e.Search || e.Reverse() {
		return nil
	}
	host := hostOf(e)
	refused, ok := registrable(host)
	if !ok {
		return nil
	}
	known := d.known(e.Pool)
	if known == nil {
		return nil
	}
	allowed, how, ok := known.of(refused, d.least)
	if !ok {
		return nil
	}
	f := found(e, AlertLookalike, Medium)
	f.subject = refused.String()
	what := host
	if what != f.subject {
		what += " of " + f.subject
	}
	f.summary = fmt.Sprintf("%s asked for %s in %s, which allows %s, %s", f.client, what, poolName(f.pool), allowed, how)
	return []finding{f}
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
	}
	if d.pools[name] == nil {
		d.pools[name] = newLookalikes(policy.Pool(name))
	}
	return d.pools[name]
}

func (*lookalike) expire(time.Time) {}
