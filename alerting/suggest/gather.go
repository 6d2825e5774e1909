package suggest

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/replay"
	"sallyport/allowlists"
)

// The bounds of what is remembered.
const (
	maxHosts   = 20000  // refused hosts of all pools
	maxJobs    = 256    // jobs counted of one host, of each kind
	maxAllJobs = 400000 // and of all
	maxLeft    = 2000   // destinations left out, of one pool
	maxKept    = 8      // clients and addresses of one host; ports, too
	maxChains  = 50000  // names that answers led through
	maxTold    = 50000  // names in alerts
	maxRecent  = 65536  // events that an alert may name as evidence
)

// A gather takes events and remembers what enforce would refuse.
type gather struct {
	config Config
	policy *allowlists.Policy
	judge  *replay.Judge
	pools  map[string]*poolLog
	seed   maphash.Seed
	hosts  int
	jobs   int
	chains int
	told   int
	unseen int
	recent recent

	decisions int
	unplaced  Unplaced
}

// recent are the hosts of the latest events, by id: an alert comes soon after
// the events that it names.
type recent struct {
	hosts map[string]allowlists.Host
	ids   []string // a ring, once it is full
	next  int
}

func (r *recent) add(id string, host allowlists.Host) {
	if len(r.ids) < maxRecent {
		r.ids = append(r.ids, id)
	} else {
		delete(r.hosts, r.ids[r.next])
		r.ids[r.next] = id
		r.next = (r.next + 1) % maxRecent
	}
	r.hosts[id] = host
}

func newGather(policy *allowlists.Policy, config Config) *gather {
	return &gather{config: config, policy: policy, judge: replay.NewJudge(policy, config.Search), pools: make(map[string]*poolLog), seed: maphash.MakeSeed(), recent: recent{hosts: make(map[string]allowlists.Host)}}
}

// A poolLog is what one pool was refused, or would have been.
type poolLog struct {
	hosts    map[allowlists.Host]*wanted
	chains   map[allowlists.Host]allowlists.Host // names that an answer led through, to the name asked
	marks    marks
	left     map[leftKey]LeftOut
	moreLeft int
}

// leftKey tells what is left out apart.
type leftKey struct{ target, why string }

// wanted is a host that is not allowed.
type wanted struct {
	host    allowlists.Host
	ports   []uint16 // that connections asked for, at most maxKept
	crowded bool     // there are more
	asked   tally    // questions
	opened  tally    // connections
	refused bool     // a question was refused then, so that nobody could connect
	exists  bool     // a question was refused, or answered with anything but no-such-host
	special []netip.Addr
	clients []netip.Addr // at most maxKept; many if there are more
	many    bool
	search  bool // the log says that it is an allowed name and a search suffix
	jobs    jobs
}

// A tally counts events.
type tally struct {
	count       int
	first, last time.Time
}

func (t *tally) add(at time.Time) {
	t.count++
	if t.first.IsZero() || at.Before(t.first) {
		t.first = at
	}
	if at.After(t.last) {
		t.last = at
	}
}

// pool finds the part of a pool.
func (g *gather) pool(name string) *poolLog {
	p := g.pools[name]
	if p == nil {
		p = &poolLog{
			hosts: make(map[allowlists.Host]*wanted), chains: make(map[allowlists.Host]allowlists.Host),
			marks: newMarks(), left: make(map[leftKey]LeftOut),
		}
		g.pools[name] = p
	}
	return p
}

// take takes the next event.
func (g *gather) take(e *alerting.Event) {
	pool := g.judge.Pool(e)
	if e.Kind == alerting.KindAlert {
		g.alert(e, pool.Name())
		return
	}
	switch {
	case pool == nil:
		g.unplaced.add(e)
		return
	case g.config.Pool != "" && pool.Name() != g.config.Pool:
		return
	}
	p := g.pool(pool.Name())
	g.follow(p, e)
	d, ok := g.judge.Decide(e)
	if !ok {
		return
	}
	g.decisions++
	p.marks.event(e)
	if !d.Allowed() {
		g.refusal(p, e, d)
	}
}

// add takes an event of a client that no pool has.
func (u *Unplaced) add(e *alerting.Event) {
	if !replay.Decides(e) {
		return
	}
	u.Decisions++
	switch {
	case slices.Contains(u.Clients, e.Client):
	case len(u.Clients) < maxKept:
		u.Clients = append(u.Clients, e.Client)
	default:
		u.More = true
	}
}

// alert takes an alert for the pool that it names and that of its client.
func (g *gather) alert(e *alerting.Event, pool string) {
	for _, name := range slices.Compact([]string{e.Pool, pool}) {
		if name == "" || g.policy.Pool(name) == nil {
			continue
		}
		p := g.pool(name)
		if g.told >= maxTold || len(p.marks.scans) >= maxScans {
			p.marks.full = true
			continue
		}
		g.told += p.marks.alert(e, g.recent.hosts)
	}
}

// follow remembers the names that an answer led through.
func (g *gather) follow(p *poolLog, e *alerting.Event) {
	if !isQuestion(e) || e.Host == "" {
		return
	}
	asked, err := allowlists.ParseHost(e.Host)
	for _, name := range e.CNAMEs {
		host, bad := allowlists.HostFromDNS(name)
		if err != nil || bad != nil || host == asked || g.chains >= maxChains {
			continue
		}
		if _, known := p.chains[host]; !known {
			p.chains[host] = asked
			g.chains++
		}
	}
}

// refusal takes an event that enforce refuses.
func (g *gather) refusal(p *poolLog, e *alerting.Event, d allowlists.Decision) {
	host, err := allowlists.ParseHost(e.Host)
	if err == nil {
		g.recent.add(e.ID, host)
	}
	why := unwanted(d)
	if why == "" {
		why = unread(e)
	}
	if why == "" && isQuestion(e) && !slices.Contains(usualTypes, e.Type) {
		why = "a question of a type that no rule lists"
	}
	if why != "" || err != nil {
		if why == "" {
			why = "it has no name: an address was asked for, or connected to"
		}
		p.leave(targetOf(e), why, Evidence{Count: 1, First: e.Time, Last: e.Time})
		return
	}
	w := p.hosts[host]
	if w == nil {
		if g.hosts >= maxHosts {
			g.unseen++
			return
		}
		g.hosts++
		w = &wanted{host: host}
		p.hosts[host] = w
	}
	g.count(w, e)
	if isQuestion(e) {
		w.question(e)
	} else {
		w.connection(e)
	}
}

// leave leaves a destination out.
func (p *poolLog) leave(target, why string, seen Evidence) {
	key := leftKey{target, why}
	l, known := p.left[key]
	if !known && len(p.left) >= maxLeft {
		p.moreLeft++
		return
	}
	l.Target, l.Why = target, why
	l.Evidence = l.Evidence.and(seen)
	p.left[key] = l
}

// count counts an event, its job and its client.
func (g *gather) count(w *wanted, e *alerting.Event) {
	g.jobs += w.jobs.add(g.visitOf(e), g.jobs < maxAllJobs)
	if !slices.Contains(w.clients, e.Client) {
		if len(w.clients) < maxKept {
			w.clients = append(w.clients, e.Client)
		} else {
			w.many = true
		}
	}
}

// question takes a dns event.
func (w *wanted) question(e *alerting.Event) {
	w.asked.add(e.Time)
	w.refused = w.refused || e.Refused()
	w.exists = w.exists || e.Refused() || e.RCode != "NXDOMAIN"
	w.search = w.search || e.Search
	for _, addr := range slices.Concat(e.Answers, e.Removed) {
		w.address(addr)
	}
}

// connection takes a conn event.
func (w *wanted) connection(e *alerting.Event) {
	w.opened.add(e.Time)
	switch {
	case slices.Contains(w.ports, e.Port):
	case len(w.ports) < maxKept:
		w.ports = append(w.ports, e.Port)
	default:
		w.crowded = true
	}
	w.address(e.IP)
}

// address remembers a special address that the host has.
func (w *wanted) address(addr netip.Addr) {
	if addr.IsValid() && allowlists.SpecialClass(addr) != "" && !slices.Contains(w.special, addr) && len(w.special) < maxKept {
		w.special = append(w.special, addr)
	}
}
