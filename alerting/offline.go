package alerting

import (
	"cmp"
	"slices"
	"time"

	"sallyport/allowlists"
)

// OfflineConfig is what Offline needs to know.
type OfflineConfig struct {
	// Alerts gives thresholds, baseline and intervals; its sinks and state_dir
	// are not used.
	Alerts allowlists.Alerts
	// Policy is the policy whose rules about to end are warned of; nil: none.
	Policy *allowlists.Policy
	// Store keeps a baseline and what else is known; nil knows nothing from
	// before and raises no first-seen.
	Store Store
	// Ended takes each alert once, when its group has closed or at Close; those
	// that close together in the order of their first events. Nil: nobody looks.
	Ended func(Alert)
	// System takes the system events that correlating gives rise to. Nil: nobody looks.
	System func(event string, details map[string]any)
}

// Offline joins events of the past as a running daemon would have: the same
// correlator, on the clock of the events and without sinks. Its memory does not
// grow with the number of events. It is not safe for concurrent use.
type Offline struct {
	correlator *correlator
	now        time.Time // of the latest event so far
	next       time.Time // nothing is due before
	config     OfflineConfig
	ended      []Alert // of groups that have just closed
}

// NewOffline makes one. The error is that of a configuration.
func NewOffline(config OfflineConfig) (*Offline, error) {
	if config.Ended == nil {
		config.Ended = func(Alert) {}
	}
	if config.System == nil {
		config.System = func(string, map[string]any) {}
	}
	o := &Offline{config: config}
	alerts := config.Alerts
	alerts.StateDir, alerts.Slack, alerts.Webhook = "", allowlists.Slack{}, allowlists.Webhook{}
	alerts.Alertmanager, alerts.Syslog = allowlists.Alertmanager{}, allowlists.Syslog{}
	c, err := newCorrelator(correlatorConfig{
		alerts: alerts, policy: func() *allowlists.Policy { return config.Policy }, store: config.Store,
		emit: func(Event) {}, system: config.System, now: func() time.Time { return o.now },
	})
	if err != nil {
		return nil, err
	}
	c.groups.closed = func(g *group) { o.ended = append(o.ended, g.snapshot()) }
	o.correlator = c
	return o, nil
}

// Take takes the next event. Events come in the order of their times; one that
// is late is taken as it is, and does not turn the clock back.
func (o *Offline) Take(e *Event) error {
	if e.Time.After(o.now) { // first, as what is read from a file is of now
		o.now = e.Time
	}
	if err := o.correlator.open(); err != nil {
		return err
	}
	if !o.now.Before(o.next) { // first, as a group may have closed before this event
		o.next = o.now.Add(max(correlateTick, min(o.correlator.tick(o.now), time.Second)))
		o.correlator.keepNow()
		o.tell()
	}
	o.correlator.take(e)
	return nil
}

// Close ends every group that is open.
func (o *Offline) Close() error {
	c := o.correlator
	if err := c.open(); err != nil {
		return err
	}
	err := c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.groups.oldestFirst() {
		c.groups.remove(g)
		c.groups.closed(g)
	}
	o.tell()
	return err
}

// tell hands over the alerts whose groups have closed.
func (o *Offline) tell() {
	if len(o.ended) == 0 {
		return
	}
	slices.SortFunc(o.ended, func(a, b Alert) int { return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Key, b.Key)) })
	for _, a := range o.ended {
		o.config.Ended(a)
	}
	clear(o.ended)
	o.ended = o.ended[:0]
}

// Line is the alert as a line of the event log has it, at the time of its
// latest event.
func (a *Alert) Line() Event { return a.event(a.Last) }
