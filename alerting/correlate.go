package alerting

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sallyport/allowlists"
)

// The times of a correlator.
const (
	correlateTick   = 100 * time.Millisecond // between two ticks, at least
	keepEvery       = time.Second            // between two times that what is dirty is kept, at least
	lookEvery       = 10 * time.Second       // how often the store is looked at where nothing is dirty
	expireEvery     = time.Minute            // how often what is old is forgotten
	expiryEvery     = time.Hour              // how often rules about to end are looked for
	drainDeliveries = 3 * time.Second        // how long sinks may take at the end
)

// correlatorConfig is what a correlator needs to know.
type correlatorConfig struct {
	log    zerolog.Logger
	alerts allowlists.Alerts
	policy func() *allowlists.Policy // nil, or gives nil: no policy is needed
	// emit records an alert event, system a system event. Both may be called
	// while take runs, and must not call back.
	emit   func(Event)
	system func(event string, details map[string]any)
	// registerer takes the metrics; nil drops them.
	registerer prometheus.Registerer
	// store keeps what is known; nil opens the one in alerts.state_dir, or
	// keeps it in memory without one.
	store Store
	// client sends what sinks send; nil makes one for each.
	client doer
	// groups bounds the open groups; 0 is defaultGroups.
	groups int
	// now is the clock that groups, digests and the baseline go by; nil is the
	// machine's. Findings go by the time of their event.
	now func() time.Time
}

// A correlator takes the events off the log, joins them, and tells people. It
// is an eventReader. Its locks make its methods safe for concurrent use: one
// goroutine takes, one ticks, one keeps, and each sink has one. Nobody waits for
// the store but who keeps and who sends: mu is never held while it writes.
type correlator struct {
	config  correlatorConfig
	metrics *alertMetrics
	sinks   []*sink
	wants   []*sinkWants // of the sinks and of the log
	durable bool         // state survives a restart
	window  time.Duration
	keep    time.Duration // how long alerts are kept for a stopped sink
	warning time.Duration // how long before its end a rule is warned about
	drain   chan struct{} // closed at the end: tell all there is
	wake    chan struct{} // of 1: an event was taken
	unkept  chan struct{} // of 1: something is not kept yet

	openOnce sync.Once
	openErr  error

	// storing, of 1, is full while the store writes: it is a lock, taken before
	// mu, so that changes reach the store in the order in which they were made.
	storing chan struct{}
	store   Store

	mu        sync.Mutex // guards the rest
	groups    *groups
	detectors []detector
	refused   *refusedNames
	baseline  *baseline   // nil without a store and a file to begin with
	usual     *usualNames // of baseline; needs no lock
	turns     map[string]*turn
	position  Position
	moved     bool     // position is not kept yet
	kept      Position // that the store has
	broken    bool     // the last commit did not work
	damaged   bool     // what was kept could not be read in full
	next      struct{ expire, expiry time.Time }
	suspects  suspects
	day       *day // nil without a daily summary
	dayUnkept bool // day is to be kept
}

// newCorrelator checks the configuration and opens nothing.
func newCorrelator(config correlatorConfig) (*correlator, error) {
	if config.groups == 0 {
		config.groups = defaultGroups
	}
	if config.now == nil {
		config.now = time.Now
	}
	c := &correlator{
		config: config, refused: newRefusedNames(), usual: &usualNames{}, turns: make(map[string]*turn), drain: make(chan struct{}), wake: make(chan struct{}, 1),
		unkept: make(chan struct{}, 1), storing: make(chan struct{}, 1), suspects: newSuspects(),
		durable: config.store != nil || config.alerts.StateDir != "", store: config.store,
	}
	if config.alerts.Slack.Daily.Set {
		c.day = newDay(eventTime(config.now()))
	}
	c.window = config.duration("denied_then_direct_window", 30*time.Second)
	c.keep = config.duration("webhook_keep", 24*time.Hour)
	c.warning = config.duration("expiry_warning", 14*24*time.Hour)
	interval := config.alerts.GroupInterval
	if interval <= 0 {
		interval = 5 * time.Minute
	}
	c.groups = newGroups(groupLimits{
		groups: config.groups, foldGroups: config.number("fold_groups", 5), foldListed: config.number("fold_listed", maxAlertHosts),
	}, groupTimes{firstDigest: config.duration("first_digest", 30*time.Second), interval: interval})
	c.groups.folded = c.tellFolded

	sinks, err := newSinks(c)
	if err != nil {
		return nil, err
	}
	c.sinks = sinks
	for _, s := range sinks {
		c.wants = append(c.wants, &s.sinkWants)
		if s.renews {
			c.groups.endings[s.name] = nil
		}
	}
	c.wants = append(c.wants, &sinkWants{name: logSinkName, wants: func(*group) bool { return true }, most: logMost})
	for _, w := range c.wants {
		c.turns[w.name] = &turn{kinds: make(map[string]string)}
	}
	if c.durable || config.alerts.Baseline.File != "" {
		c.baseline = newBaseline(config.alerts.Baseline.Learn, config.alerts.Baseline.Jobs, config.number("first_seen_repeats", 2), config.trivialUpload())
	}
	c.detectors = c.newDetectors()
	c.metrics = newAlertMetrics(config.registerer)
	for _, s := range sinks {
		c.metrics.sinkUp.WithLabelValues(s.name).Set(1)
	}
	return c, nil
}

// number is a threshold, or def where configuration does not say.
func (c *correlatorConfig) number(key string, def int) int {
	if n, ok := c.alerts.Thresholds[key]; ok {
		return int(n)
	}
	return def
}

// duration is a threshold that is a time.
func (c *correlatorConfig) duration(key string, def time.Duration) time.Duration {
	if n, ok := c.alerts.Thresholds[key]; ok {
		return time.Duration(n)
	}
	return def
}

// take runs the detectors on one event and counts what they find.
func (c *correlator) take(e *Event) {
	now := c.config.now()
	defer signal(c.wake)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.Pos.IsZero() {
		c.position, c.moved = e.Pos, true
	}
	if c.day != nil {
		c.day.observe(e)
	}
	var findings []finding
	for _, d := range c.detectors {
		if found := d.observe(e, e.Time); findings == nil {
			findings = found
		} else {
			findings = append(findings, found...)
		}
	}
	c.refused.observe(e, e.Time)
	findings = settle(findings)
	for i := range findings {
		c.count(&findings[i], now)
	}
	if e.Kind == KindSystem && (e.Event == SystemReloaded || e.Event == SystemStarted) {
		c.closeAllowed(e.Event, now)
	}
}

// count puts a finding into its group and wakes the sinks that it is news to.
// The caller holds mu.
func (c *correlator) count(f *finding, now time.Time) {
	c.metrics.found(f.pool, f.alert, f.severity).Inc()
	g := c.groups.add(f, now)
	if c.day != nil {
		c.day.count(f, g.Count == 1)
	}
	if g.Severity >= High {
		c.suspects.add(clientOf{f.pool, f.client}, now)
	}
	for _, s := range c.sinks {
		if g.untold(s.name) == 1 || s.wants(g) && !now.Before(g.dueAt(s.name)) { // news, or a fold that is
			signal(s.wake)
		}
	}
}

// tellFolded announces that the queue was full. The caller holds mu.
func (c *correlator) tellFolded(into *group, groups, count int) {
	c.config.system(SystemAlertFolded, map[string]any{
		"alert": into.Alert.Alert, "pool": into.Pool, "severity": into.Severity.String(), "groups": groups, "count": count, "into": into.ID,
	})
}

// run ticks and lets the sinks send until ctx ends; then it tells what is left,
// in bounded time, and keeps its state.
func (c *correlator) run(ctx context.Context) error {
	if err := c.open(); err != nil {
		return err
	}
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var sinks sync.WaitGroup
	for _, s := range c.sinks {
		sinks.Go(func() { s.run(sending, c) })
	}
	var keeping sync.WaitGroup
	keeping.Go(func() { c.keepOn(ctx) })
	for pause(ctx, correlateTick) {
		c.idle(ctx, c.tick(c.config.now()))
	}
	keeping.Wait()
	close(c.drain)
	enough := time.AfterFunc(drainDeliveries, stop)
	sinks.Wait()
	enough.Stop()
	return c.close()
}

// idle waits for an event or until something is due.
func (c *correlator) idle(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-c.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// tick does what is due and returns how long nothing else is.
func (c *correlator) tick(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !now.Before(c.next.expiry) {
		c.next.expiry = now.Add(expiryEvery)
		c.warnOfExpiry(now)
	}
	wait := c.tellLog(now, false)
	if !now.Before(c.next.expire) {
		c.next.expire = now.Add(expireEvery)
		c.expire(now)
	}
	if c.isDirty() {
		signal(c.unkept)
		wait = min(wait, keepEvery)
	}
	return min(wait, c.next.expire.Sub(now))
}

// tellLog writes the alert events that are due, or all there is to tell, and
// returns how long none is. The caller holds mu.
func (c *correlator) tellLog(now time.Time, all bool) time.Duration {
	w := c.wants[len(c.wants)-1]
	for {
		m, wait := c.groups.next(w, c.turns[w.name], now, all)
		if m == nil {
			return wait
		}
		for i := range m.Items {
			c.config.emit(m.Items[i].Alert.event(now))
		}
		c.groups.delivered(w.name, now)
	}
}

// expire forgets what is old. The caller holds mu.
func (c *correlator) expire(now time.Time) {
	for _, d := range c.detectors {
		if w, waits := d.(waiter); waits {
			for _, f := range w.due(now) {
				c.count(&f, now)
			}
		}
		d.expire(now)
	}
	c.refused.expire(now)
	c.keepDay()
	c.usual.set(c.baseline)
	for _, s := range c.sinks {
		c.giveUp(s, now)
	}
	c.groups.close(now, c.owed)
	for _, s := range c.sinks {
		if len(c.groups.endings[s.name]) > 0 {
			signal(s.wake)
		}
	}
	c.suspects.rebuild(c.groups, now)
}

// owed reports whether a sink still has to be told of a group. The caller
// holds mu.
func (c *correlator) owed(g *group) bool {
	for _, w := range c.wants {
		if g.owes(w) {
			return true
		}
	}
	return false
}

// waiting is how many groups some sink still has to be told of. The caller
// holds mu.
func (c *correlator) waiting() int {
	n := 0
	for _, g := range c.groups.open {
		if c.owed(g) {
			n++
		}
	}
	return n
}

// giveUp forgets what a stopped sink was not told for longer than it is kept.
// The caller holds mu.
func (c *correlator) giveUp(s *sink, now time.Time) {
	stopped := s.stoppedAt()
	if stopped.IsZero() {
		return
	}
	if m := c.groups.sending[s.name]; m != nil && now.Sub(m.Made) >= c.keep {
		c.groups.forgetMessage(s.name)
	}
	for _, g := range c.groups.open {
		left := g.untold(s.name)
		if !g.owes(&s.sinkWants) || now.Sub(g.Touched) < c.keep || now.Sub(stopped) < c.keep {
			continue
		}
		told := g.share(s.name)
		told.Told, told.Closed = told.Told+left, g.Closed != ""
		c.groups.touch(g)
		c.metrics.deliveries.WithLabelValues(s.name, outcomeExpired).Inc()
		c.config.log.Error().Str("sink", s.name).Str("alert", g.ID).Int("count", left).Msg("an alert is no longer kept for a sink that has stopped")
	}
}

// warnOfExpiry finds the rules that are about to end. Each is told of once
// while its group is open. The caller holds mu.
func (c *correlator) warnOfExpiry(now time.Time) {
	if c.config.policy == nil {
		return
	}
	for _, f := range expiring(c.config.policy(), c.warning, eventTime(now)) {
		if g := c.groups.open[f.groupKey()]; g != nil {
			g.Touched = now
			continue
		}
		c.count(&f, now)
	}
}

// close tells the log what is left and keeps the state.
func (c *correlator) close() error {
	c.mu.Lock()
	c.tellLog(c.config.now(), true)
	c.keepDay()
	c.mu.Unlock()
	err := c.commit()
	c.storing <- struct{}{}
	defer func() { <-c.storing }()
	for _, s := range c.sinks {
		s.close()
	}
	if closing := c.store.Close(); closing != nil {
		err = errors.Join(err, fmt.Errorf("closing the store: %w", closing))
	}
	return err
}
