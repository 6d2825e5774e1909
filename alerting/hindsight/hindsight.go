// Package hindsight runs the correlator over the logs of other programs: it
// brings their records into the order of their times, judges each as a policy
// would have, and gives the alerts that the daemon would have raised.
//
// The way through it: sources are merged by time (merge); a question is judged
// and its answer goes into the book at once; a connection waits as long as
// clocks may differ, so that the book has the answers it stands on, and then is
// judged (queue, session); events go to an alerting.Offline in order.
package hindsight

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/allowlists"
)

// Config is what a run needs to know.
type Config struct {
	Sources []*foreignlog.Source
	// Policy judges; nil takes the verdicts that the logs have themselves, and
	// judges what those let pass as a pool in audit with an empty list would.
	Policy *allowlists.Policy
	// Pool is that of clients that no source of the policy matches; "" leaves
	// those out. Without Policy everybody is in it.
	Pool   string
	Search []allowlists.Host // of dns.search
	Alerts allowlists.Alerts
	Skew   time.Duration // how far a connection may be before its answer
	TTL    time.Duration // of answers whose log has none
	MaxTTL time.Duration // dns.max_ttl: no answer counts for longer; 0 is no limit
	Grace  time.Duration // dns.book_grace
	// Entries bounds the book of answers, in names; 0 is defaultEntries.
	Entries int
	// Askers ask for others, as a proxy or a forwarder does: their answers count
	// for every client, and their questions are nobody's doing. With AnyAsker
	// all answers count for every client.
	Askers   []netip.Addr
	AnyAsker bool
	// Resolvers are ours: a question to another is foreign-resolver. None: nobody knows.
	Resolvers []netip.Addr
	// Store keeps a baseline; nil raises no first-seen.
	Store alerting.Store
	// Found takes each alert, in the order in which their groups close; those
	// that close together in that of their first event.
	Found func(alerting.Alert)
}

// A Summary says what a run saw.
type Summary struct {
	Questions, Connections int
	Alerts                 int
	First, Last            time.Time
	Copies                 int          // records that another file has as well
	Late                   int          // records far behind the order of their file
	NoPool                 int          // records of clients that no pool has
	NoPoolClients          []netip.Addr // the first of them
	Uncovered              int          // connections at times or in logs without answers
	Offset                 time.Duration
	Offsets                int // connections that Offset, their median after the nearest answer, is from
}

// run is one run.
type run struct {
	config  Config
	policy  *allowlists.Policy
	own     bool // the logs' own verdicts count
	merger  *merger
	offline *alerting.Offline
	book    *book
	judge   judge
	queue   queue
	parts   sessions
	copies  copies
	offsets offsets
	clock   time.Time
	summary Summary
}

// Run reads every source to its end. An error is that of reading a file, of a
// configuration, or of ctx; what was found until then is told all the same.
func Run(ctx context.Context, config Config) (Summary, error) {
	r, err := newRun(config)
	if err != nil {
		return Summary{}, err
	}
	err = errors.Join(r.read(ctx), r.drain(time.Time{}), r.offline.Close())
	r.summary.Late = r.merger.late
	r.summary.Offset, r.summary.Offsets = r.offsets.median()
	return r.summary, err
}

// read takes every record.
func (r *run) read(ctx context.Context) error {
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		it, err := r.merger.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.take(&it); err != nil {
			return err
		}
	}
}

// private are the addresses of one's own networks: without a policy nobody says
// which names may have them, so that any may.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), // RFC 1918
	netip.MustParsePrefix("100.64.0.0/10"), // RFC 6598
	netip.MustParsePrefix("fc00::/7"),      // RFC 4193
}

func newRun(config Config) (*run, error) {
	r := &run{config: config, policy: config.Policy, merger: newMerger(config.Sources), parts: newSessions(), copies: newCopies()}
	if r.policy == nil {
		r.own = true
		r.config.Pool = cmp.Or(config.Pool, "default")
		var err error
		r.policy, err = allowlists.NewPolicy(allowlists.PolicySpec{
			Pools: []allowlists.PoolSpec{{Name: r.config.Pool, Mode: allowlists.Audit, ResolvesTo: private}}, DefaultPool: r.config.Pool,
		})
		if err != nil {
			return nil, err
		}
	}
	r.book = newBook(cmp.Or(config.Entries, defaultEntries))
	r.judge = newJudge(r)
	var err error
	r.offline, err = alerting.NewOffline(alerting.OfflineConfig{
		Alerts: config.Alerts, Policy: config.Policy, Store: config.Store, Ended: r.ended,
	})
	return r, err
}

// ended takes an alert. What a policy says of itself, such as which rules are
// about to end, is no finding in a log.
func (r *run) ended(a alerting.Alert) {
	if a.Alert == alerting.AlertPolicy && len(a.Evidence) == 0 {
		return
	}
	r.summary.Alerts++
	r.config.Found(a)
}

// take takes the next record.
func (r *run) take(it *item) error {
	rec := &it.record
	if r.copies.has(rec.Sum, rec.Time, it.file) {
		r.summary.Copies++
		return nil
	}
	if rec.Time.After(r.clock) {
		r.begin(rec.Time)
		r.clock = rec.Time
	}
	if rec.Query != nil && it.answers {
		r.judge.cover(rec.Time, it.file)
	}
	if err := r.drain(r.clock.Add(-r.hold())); err != nil {
		return err
	}
	if r.summary.First.IsZero() || rec.Time.Before(r.summary.First) {
		r.summary.First = rec.Time
	}
	if rec.Time.After(r.summary.Last) {
		r.summary.Last = rec.Time
	}
	id := it.id()
	switch {
	case rec.Event != nil:
		return r.takeOwn(rec.Event, it.file)
	case rec.Query != nil:
		r.summary.Questions++
		r.judge.question(rec.Query, rec.Time, id)
	case rec.Conn != nil:
		r.takeConn(rec.Conn, rec.Time, id)
	}
	return nil
}

// begin tells the correlator that everything starts here, without a book.
func (r *run) begin(at time.Time) {
	if r.clock.IsZero() {
		r.queue.push(entry{at: at, event: &alerting.Event{Kind: alerting.KindSystem, Time: at, Event: alerting.SystemStarted}})
	}
}

// partsWait is how long the parts of one connection may be apart.
const partsWait = 10 * time.Second

// hold is how long everything waits before it is judged.
func (r *run) hold() time.Duration { return r.config.Skew + partsWait }

// maxQueue bounds what waits, in records; beyond it the oldest wait no longer.
const maxQueue = 1 << 17

// drain judges and hands on what is before a time; everything for the zero time.
func (r *run) drain(until time.Time) error {
	for r.queue.Len() > 0 && (until.IsZero() || r.queue.Len() > maxQueue || r.queue.first().Before(until)) {
		e := r.queue.pop()
		if e.event != nil {
			if err := r.offline.Take(e.event); err != nil {
				return err
			}
			continue
		}
		r.parts.judged(e.session)
		r.judge.session(e.session)
	}
	return nil
}

// tell queues an event for its time.
func (r *run) tell(e alerting.Event) {
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	r.queue.push(entry{at: e.Time, event: &e})
}

// takeConn lets a connection wait, together with its other parts.
func (r *run) takeConn(c *foreignlog.Conn, at time.Time, id string) {
	if c.Part == foreignlog.Whole || c.Part == foreignlog.Request {
		r.summary.Connections++
	}
	s, fresh := r.parts.add(c, at, id)
	if fresh {
		if c.Part == foreignlog.Flow || c.Part == foreignlog.Hello {
			r.summary.Connections++
		}
		r.queue.push(entry{at: at, session: s})
	}
}

// poolOf finds the pool of a client; ok is false for one to be left out.
func (r *run) poolOf(client netip.Addr) (*allowlists.Pool, bool) {
	_, pool := r.policy.Subject(client, "", "")
	if pool == nil && r.policy.SourceOf(client) != "" { // its pool wants an interface, which no log has
		for _, p := range r.policy.Pools() {
			for _, iface := range p.Spec().Interfaces {
				if _, found := r.policy.Subject(client, iface, ""); found == p {
					return p, true
				}
			}
		}
	}
	if pool == nil && r.config.Pool != "" {
		pool = r.policy.Pool(r.config.Pool)
	}
	if pool == nil {
		r.summary.NoPool++
		if len(r.summary.NoPoolClients) < 5 && !slices.Contains(r.summary.NoPoolClients, client) {
			r.summary.NoPoolClients = append(r.summary.NoPoolClients, client)
		}
	}
	return pool, pool != nil
}
