package alerting

import (
	"net"
	"sync/atomic"
)

// usualNames are the hosts in the baselines of pools, for those who must not
// wait for the correlator: the resolver asks for each question that goes
// upstream. It is made anew each minute. Safe for concurrent use; the zero value
// knows none.
type usualNames struct {
	pools atomic.Pointer[map[string]map[string]bool]
}

// has reports whether a canonical name is one that the pool usually reaches.
func (u *usualNames) has(pool, name string) bool {
	pools := u.pools.Load()
	return pools != nil && (*pools)[pool][name]
}

// set takes the names of a baseline as it stands; nil has none. The caller
// holds the correlator's lock.
func (u *usualNames) set(b *baseline) {
	if b == nil {
		return
	}
	pools := make(map[string]map[string]bool, len(b.pools))
	for pool, p := range b.pools {
		names := make(map[string]bool)
		for destination, entry := range p.entries {
			if host, _, err := net.SplitHostPort(destination); err == nil && !entry.Entered.IsZero() && !isLiteral(host) {
				names[host] = true
			}
		}
		pools[pool] = names
	}
	u.pools.Store(&pools)
}
