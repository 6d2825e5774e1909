package report

import (
	"net/netip"
	"slices"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/alerting/replay"
	"sallyport/allowlists"
)

// The bounds of what is remembered.
const (
	maxRows    = 10000 // destinations, and refusals
	maxOpen    = 20000 // connections whose end is awaited
	maxAlerts  = 1000  // groups of each severity
	maxSystem  = 1000  // events, of all names
	maxClients = 10000
	maxPools   = 1000
	maxIDs     = 65536 // of the latest events of a job, to know its alerts by
	maxRules   = 4     // of one destination
)

// A gather takes events and remembers what a report needs.
type gather struct {
	config   *Config
	jobAddr  netip.Addr // of Config.Job, where that is an address
	judge    *replay.Judge
	places   map[place]*allowlists.Rule
	used     map[*allowlists.Rule]bool
	judged   map[string]bool // pools that decided something
	report   Report
	visited  int // events of the logs, of whatever scope
	clients  map[netip.Addr]struct{}
	pools    map[string]struct{}
	rows     map[rowKey]*Destination
	open     map[string]*opened
	untold   int // connections that were open when there was no room to await their end
	refusals map[refusalKey]*Refusal
	would    map[refusalKey]*Refusal
	alerts   alertTable
	system   []System
	ids      idRing
	time     timeline
	lacking  lacking
}

func newGather(config *Config) *gather {
	g := &gather{
		config: config, used: make(map[*allowlists.Rule]bool), judged: make(map[string]bool), clients: make(map[netip.Addr]struct{}),
		pools: make(map[string]struct{}), rows: make(map[rowKey]*Destination), open: make(map[string]*opened),
		refusals: make(map[refusalKey]*Refusal), would: make(map[refusalKey]*Refusal), alerts: newAlertTable(),
		ids: idRing{known: make(map[string]struct{})}, time: newTimeline(),
	}
	g.jobAddr, _ = netip.ParseAddr(config.Job)
	g.jobAddr = g.jobAddr.Unmap()
	if config.Policy != nil {
		g.judge, g.places = replay.NewJudge(config.Policy, config.Search), rulesByPlace(config.Policy)
	}
	return g
}

// take takes the next event of the logs.
func (g *gather) take(e *alerting.Event) {
	g.visited++
	g.lacking.take(e)
	if !g.inPeriod(e.Time) {
		return
	}
	switch e.Kind {
	case alerting.KindSystem:
		g.lacking.fault(e)
		g.takeSystem(e)
	case alerting.KindAlert:
		if g.inPool(e) && (g.ofJob(e) || slices.ContainsFunc(e.Evidence, g.ids.has)) {
			g.see(e)
			g.alert(e)
		}
	default:
		if !g.inPool(e) || !g.ofJob(e) {
			return
		}
		g.see(e)
		g.use(e)
		if g.config.Job != "" {
			g.ids.add(e.ID)
		}
		if e.Kind == alerting.KindDNS {
			g.question(e)
		} else {
			g.connection(e)
		}
	}
}

func (g *gather) inPeriod(at time.Time) bool {
	return !at.Before(g.config.Since) && (g.config.Until.IsZero() || at.Before(g.config.Until))
}

func (g *gather) inPool(e *alerting.Event) bool {
	return g.config.Pool == "" || e.Pool == g.config.Pool
}

// ofJob reports whether an event names the job of the report, or its client.
func (g *gather) ofJob(e *alerting.Event) bool {
	switch {
	case g.config.Job == "":
		return true
	case g.jobAddr.IsValid():
		return e.Client.Unmap() == g.jobAddr
	default:
		return e.Job != nil && e.Job.RunID == g.config.Job
	}
}

// see notes that an event is of the report.
func (g *gather) see(e *alerting.Event) {
	s := &g.report.Scope
	if s.First.IsZero() || e.Time.Before(s.First) {
		s.First = e.Time
	}
	if e.Time.After(s.Last) {
		s.Last = e.Time
	}
	if g.config.Job != "" && s.Identity == nil {
		s.Identity = e.Job
	}
	if len(g.pools) < maxPools {
		g.pools[e.Pool] = struct{}{}
	}
	if _, known := g.clients[e.Client]; known || !e.Client.IsValid() || e.Kind == alerting.KindAlert {
		return
	}
	if len(g.clients) < maxClients {
		g.clients[e.Client] = struct{}{}
	} else {
		g.report.Totals.MoreClients = true
	}
}

// place is where a rule of a pool stands, as events have it.
type place struct{ pool, where string }

// rulesByPlace finds the allow rules of a policy by where they stand.
func rulesByPlace(policy *allowlists.Policy) map[place]*allowlists.Rule {
	places := make(map[place]*allowlists.Rule)
	for _, pool := range policy.Pools() {
		for i := range pool.Spec().Allow {
			rule := &pool.Spec().Allow[i]
			places[place{pool.Name(), rule.Where()}] = rule
		}
	}
	return places
}

// use notes the rule that allowed what was allowed: the one that the event
// names, and the one of the policy now, whose lines may stand elsewhere.
func (g *gather) use(e *alerting.Event) {
	if g.judge == nil || e.Phase == alerting.PhaseClose || e.Phase == alerting.PhaseProgress {
		return
	}
	d, ok := g.judge.Decide(e)
	if !ok {
		return
	}
	pool := g.judge.Pool(e)
	g.judged[pool.Name()] = true
	if e.Refused() {
		return
	}
	if d.Reason == allowlists.Allowed && d.Rule != nil {
		g.used[d.Rule] = true
	}
	if rule := g.places[place{pool.Name(), e.Rule}]; rule != nil && e.Reason != allowlists.AllowedByAudit {
		g.used[rule] = true
	}
}

// question takes a dns event.
func (g *gather) question(e *alerting.Event) {
	if e.By != alerting.ByClient {
		return
	}
	t := &g.report.Totals
	t.Questions++
	switch {
	case e.Refused():
		t.RefusedQuestions++
		g.refuse(e, g.refusals)
		g.time.add(e.Time, Slot{Refused: 1})
	case e.Reason == allowlists.AllowedByAudit:
		t.AuditQuestions++
		g.refuse(e, g.would)
	}
}

// An idRing holds the latest ids.
type idRing struct {
	known map[string]struct{}
	ids   []string // a ring, once it is full
	next  int
}

func (r *idRing) has(id string) bool { _, ok := r.known[id]; return ok }

func (r *idRing) add(id string) {
	if r.has(id) {
		return
	}
	if len(r.ids) < maxIDs {
		r.ids = append(r.ids, id)
	} else {
		delete(r.known, r.ids[r.next])
		r.ids[r.next] = id
		r.next = (r.next + 1) % maxIDs
	}
	r.known[id] = struct{}{}
}

// finish makes the report.
func (g *gather) finish(sources []*foreignlog.Source) *Report {
	r := &g.report
	r.Version = 1
	r.Scope.Job, r.Scope.Pool, r.Scope.Since, r.Scope.Until = g.config.Job, g.config.Pool, g.config.Since, g.config.Until
	r.Scope.Pools = sortedKeys(g.pools)
	g.endOpen()
	r.Destinations = g.destinations()
	r.Refusals, r.WouldRefuse = sortedRefusals(g.refusals), sortedRefusals(g.would)
	r.Alerts, r.MoreAlerts = g.alerts.list()
	r.warn()
	r.Totals.Alerts = g.alerts.counts
	r.Totals.Clients = len(g.clients)
	r.System = g.systemOfScope()
	r.Timeline, r.SlotSeconds = g.time.list()
	if g.config.Policy != nil {
		r.Unused = g.unused()
	}
	r.Lacks = g.lacks(sources)
	return r
}
