package alerting

import (
	"net/netip"
	"slices"
	"time"

	"sallyport/allowlists"
)

// resolvedUnused raises resolved-unused: a job asked for a name, was given
// addresses, and no connection of its pool used the name or one of them. One
// group per pool, which counts and lists the names. It is a line in the event
// log; no sink takes it.
//
// State: see unusedPool, one for each pool.
type resolvedUnused struct {
	after time.Duration // from the answer on; and as long before it
	pools map[string]*unusedPool
}

// The bounds of an unusedPool.
const (
	unusedNames = 4096  // names that wait; those that come later are not looked at
	unusedUses  = 16384 // names and addresses that were used lately; beyond, what waits is given up
	unusedAddrs = 16    // addresses of one name
)

// An unusedPool is what the jobs of a pool asked for and used lately. Clients
// are not told apart: a machine may ask by one address and connect from another.
type unusedPool struct {
	waiting []*askedName // oldest first
	byHost  map[string]*askedName
	// When names and addresses were last part of a connection.
	hosts map[string]time.Time
	addrs map[netip.Addr]time.Time
}

// An askedName is a name that was answered.
type askedName struct {
	found finding // as it is raised if nobody uses the name
	host  string
	addrs []netip.Addr
}

func newResolvedUnused(config *correlatorConfig) *resolvedUnused {
	return &resolvedUnused{config.duration("resolved_unused_after", 10*time.Minute), make(map[string]*unusedPool)}
}

func (d *resolvedUnused) observe(e *Event, now time.Time) []finding {
	asked := isAnswered(e)
	if !asked && e.Kind != KindConn {
		return nil
	}
	p := d.pools[e.Pool]
	if p == nil {
		p = &unusedPool{byHost: make(map[string]*askedName), hosts: make(map[string]time.Time), addrs: make(map[netip.Addr]time.Time)}
		d.pools[e.Pool] = p
	}
	if asked {
		p.ask(e)
	} else {
		p.use(e, now)
	}
	return nil
}

// isAnswered reports whether a client's own question was answered with
// addresses. What the proxy asks serves a connection.
func isAnswered(e *Event) bool {
	return e.Kind == KindDNS && e.By == ByClient && !e.Refused() && len(e.Answers) > 0 && e.Host != "" &&
		(e.Type == "A" || e.Type == "AAAA")
}

// ask notes an answer. The questions of one name are one.
func (p *unusedPool) ask(e *Event) {
	n := p.byHost[e.Host]
	if n == nil {
		if len(p.waiting) >= unusedNames {
			return
		}
		n = &askedName{found: found(e, AlertResolvedUnused, Info), host: e.Host}
		n.found.host = ""
		n.found.destinations = []string{n.host}
		p.waiting = append(p.waiting, n)
		p.byHost[n.host] = n
	}
	for _, addr := range e.Answers {
		if len(n.addrs) < unusedAddrs && !slices.Contains(n.addrs, addr) {
			n.addrs = append(n.addrs, addr)
		}
	}
}

// use notes the names and addresses of a connection, allowed or not, for as
// long as it says something of itself.
func (p *unusedPool) use(e *Event, now time.Time) {
	for _, name := range append([]string{e.Host, e.SNI}, e.Names...) {
		if name == "" || isLiteral(name) {
			continue
		}
		if host, err := allowlists.ParseHost(name); err == nil {
			p.hosts[host.String()] = now
		}
	}
	for _, addr := range []netip.Addr{e.IP, e.Original} {
		if addr.IsValid() {
			p.addrs[addr] = now
		}
	}
	if len(p.hosts)+len(p.addrs) > unusedUses { // nobody can tell any more
		p.waiting = nil
		clear(p.byHost)
		clear(p.hosts)
		clear(p.addrs)
	}
}

// used reports whether a connection used the name or one of its addresses since.
func (p *unusedPool) used(n *askedName, since time.Time) bool {
	if p.hosts[n.host].After(since) {
		return true
	}
	return slices.ContainsFunc(n.addrs, func(addr netip.Addr) bool { return p.addrs[addr].After(since) })
}

// due finds the names whose time is over.
func (d *resolvedUnused) due(now time.Time) (findings []finding) {
	for pool, p := range d.pools {
		for len(p.waiting) > 0 && now.Sub(p.waiting[0].found.time) >= d.after {
			n := p.waiting[0]
			p.waiting = p.waiting[1:]
			delete(p.byHost, n.host)
			if !p.used(n, n.found.time.Add(-d.after)) {
				findings = append(findings, n.found)
			}
		}
		if len(p.waiting)+len(p.hosts)+len(p.addrs) == 0 {
			delete(d.pools, pool)
		}
	}
	return findings
}

// expire forgets uses that say nothing of any name that waits.
func (d *resolvedUnused) expire(now time.Time) {
	for _, p := range d.pools {
		for host, at := range p.hosts {
			if now.Sub(at) > 2*d.after {
				delete(p.hosts, host)
			}
		}
		for addr, at := range p.addrs {
			if now.Sub(at) > 2*d.after {
				delete(p.addrs, addr)
			}
		}
	}
}
