package alerting

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sallyport/allowlists"
)

// The times and bounds of sinks.
const (
	sinkPause   = time.Second            // between two messages of Slack, and of the webhook
	sinkLook    = 100 * time.Millisecond // between two looks at an empty queue
	retryBase   = time.Second            // first wait after a failure, doubled up to retryMost
	retryMost   = 5 * time.Minute
	retryAfter  = time.Hour        // longest Retry-After that is honoured
	probeFor    = 15 * time.Minute // how long a message that may have arrived waits for an answer to a probe
	slackMost   = 8                // groups in a Slack message
	webhookMost = 50               // groups in a webhook post
)

// A sink is one place where alerts are sent, with a goroutine of its own. What
// it has to send is not copied anywhere: while it waits, counts go on growing
// in the groups, and the message is made when its turn comes.
//
//	sending -> waiting (429, 5xx, time-outs) -> sending
//	       \-> stopped (400, 403, 404, 410), until the next start
type sink struct {
	sinkWants
	post poster
	pace *pace
	wake chan struct{} // of 1: there is news
	// daily is set for the one that gets the daily summary.
	daily bool

	mu      sync.Mutex // guards the rest
	stopped time.Time  // zero while it works
}

// A poster brings a message to its place.
type poster interface {
	// post sends a message and says what came of it. It never takes longer than
	// postTimeout, and what it says holds nothing of the URL.
	post(ctx context.Context, m *message) delivery
	close()
}

// A delivery is what came of one try.
type delivery struct {
	arrived  bool
	stop     bool          // trying again is pointless
	definite bool          // the receiver said no, so the message may be made anew
	unclear  bool          // the receiver may have taken it
	after    time.Duration // what Retry-After asked for; 0 if it did not
	cause    string        // for people; "" if it arrived
}

// A pace lets through one message a sinkPause, for all sinks that share it.
// Safe for concurrent use.
type pace struct {
	mu   sync.Mutex
	next time.Time
}

// reserve takes the next turn and tells how long it is until then.
func (p *pace) reserve(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next.Before(now) {
		p.next = now
	}
	wait := p.next.Sub(now)
	p.next = p.next.Add(sinkPause)
	return wait
}

// newSinks makes the sinks that are configured.
func newSinks(c *correlator) ([]*sink, error) {
	alerts := c.config.alerts
	var sinks []*sink
	slack, err := newSlackSinks(alerts.Slack, alerts.Links, c.config.client)
	if err != nil {
		return nil, err
	}
	sinks = append(sinks, slack...)
	if alerts.Webhook.URL != "" {
		poster, err := newWebhook(alerts.Webhook, c.config.client)
		if err != nil {
			return nil, fmt.Errorf("alerts.webhook: %w", err)
		}
		sinks = append(sinks, newSink("webhook", webhookMost, poster, &pace{}, func(*group) bool { return true }))
	}
	for _, more := range []func(*correlator) (*sink, error){newAlertmanagerSink, newSyslogSink} {
		s, err := more(c)
		if err != nil {
			return nil, err
		}
		if s != nil {
			sinks = append(sinks, s)
		}
	}
	return sinks, nil
}

// newSink makes a sink of what it wants, but for the alerts that none is told of.
func newSink(name string, most int, poster poster, pace *pace, wants func(*group) bool) *sink {
	tellable := func(g *group) bool { return told(g.Alert.Alert) && wants(g) }
	return &sink{sinkWants: sinkWants{name: name, wants: tellable, most: most}, post: poster, pace: pace, wake: make(chan struct{}, 1)}
}

// newAlertmanagerSink makes the sink; nil if it is not configured.
func newAlertmanagerSink(c *correlator) (*sink, error) {
	config := c.config.alerts.Alertmanager
	if config.URL == "" {
		return nil, nil
	}
	wants, err := fromSeverity(config.MinSeverity)
	if err != nil {
		return nil, fmt.Errorf("alerts.alertmanager.min_severity: %w", err)
	}
	poster, err := newAlertmanager(config, c.config.alerts.Links, c.config.client)
	if err != nil {
		return nil, fmt.Errorf("alerts.alertmanager: %w", err)
	}
	s := newSink("alertmanager", alertmanagerMost, poster, &pace{}, wants)
	s.renews = true
	return s, nil
}

// newSyslogSink makes the sink; nil if it is not configured.
func newSyslogSink(c *correlator) (*sink, error) {
	config := c.config.alerts.Syslog
	if config.Address == "" {
		return nil, nil
	}
	wants, err := fromSeverity(config.MinSeverity)
	if err != nil {
		return nil, fmt.Errorf("alerts.syslog.min_severity: %w", err)
	}
	poster, err := newSyslog(config, c.config.alerts.Links)
	if err != nil {
		return nil, fmt.Errorf("alerts.syslog: %w", err)
	}
	return newSink("syslog", syslogMost, poster, &pace{}, wants), nil
}

// fromSeverity wants the groups of a severity and above.
func fromSeverity(name string) (func(*group) bool, error) {
	least, err := minSeverity(name)
	return func(g *group) bool { return g.Severity >= least }, err
}

// newSlackSinks makes one sink for the webhook and one for each route. The
// first route that fits takes an alert, else the webhook does.
func newSlackSinks(slack allowlists.Slack, links allowlists.Links, client doer) ([]*sink, error) {
	var sinks []*sink
	var routes []func(*group) bool
	shared := &pace{}
	for i, route := range slack.Routes {
		least, err := minSeverity(route.MinSeverity)
		if err != nil {
			return nil, fmt.Errorf("alerts.slack.routes[%d].min_severity: %w", i, err)
		}
		fits := func(g *group) bool {
			return g.Severity >= least && (len(route.Pools) == 0 || slices.Contains(route.Pools, g.Pool))
		}
		poster, err := newSlack(route.WebhookURL, links, client)
		if err != nil {
			return nil, fmt.Errorf("alerts.slack.routes[%d]: %w", i, err)
		}
		sinks = append(sinks, newSink(fmt.Sprintf("slack-%d", i+1), slackMost, poster, shared, first(routes, fits)))
		routes = append(routes, fits)
	}
	if slack.WebhookURL == "" {
		return sinks, nil
	}
	least, err := minSeverity(slack.MinSeverity)
	if err != nil {
		return nil, fmt.Errorf("alerts.slack.min_severity: %w", err)
	}
	poster, err := newSlack(slack.WebhookURL, links, client)
	if err != nil {
		return nil, fmt.Errorf("alerts.slack: %w", err)
	}
	fits := func(g *group) bool { return g.Severity >= least }
	s := newSink("slack", slackMost, poster, shared, first(routes, fits))
	s.daily = slack.Daily.Set
	return append(sinks, s), nil
}

// minSeverity reads a min_severity; empty is medium.
func minSeverity(name string) (Severity, error) {
	if name == "" {
		return Medium, nil
	}
	return ParseSeverity(name)
}

// first is fits, for what none of the earlier routes takes.
func first(earlier []func(*group) bool, fits func(*group) bool) func(*group) bool {
	earlier = slices.Clone(earlier)
	return func(g *group) bool {
		for _, taken := range earlier {
			if taken(g) {
				return false
			}
		}
		return fits(g)
	}
}

// run sends what is due until ctx ends, or, once the correlator drains, until
// nothing is left. What a run before this one had under way may have arrived.
func (s *sink) run(ctx context.Context, c *correlator) {
	tries, paid := sinkTries{unclear: c.underWay(s)}, false
	for ctx.Err() == nil && s.stoppedAt().IsZero() {
		draining := closed(c.drain)
		if wait := c.waitFor(s, draining); wait > 0 {
			if draining {
				return
			}
			s.idle(ctx, wait, c.drain)
			continue
		}
		if !paid && !pause(ctx, s.pace.reserve(time.Now())) {
			return
		}
		paid = true
		sent := s.answers(ctx, &tries)
		if sent.arrived {
			m := c.nextMessage(s, closed(c.drain))
			if m == nil {
				continue // its turn is kept for the next one
			}
			sent = s.post.post(ctx, m)
			tries.unclear, tries.asked = sent.unclear, time.Time{}
		}
		paid = false
		switch {
		case sent.arrived:
			c.delivered(s, tries.failures)
			tries = sinkTries{}
		case sent.stop:
			c.stopSink(s, sent.cause)
		default:
			tries.failures++
			c.retry(s, sent, tries.failures)
			if !pause(ctx, backoff(tries.failures, sent.after)) {
				return
			}
		}
	}
}

// sinkTries is what a sink knows of the tries since the last delivery.
type sinkTries struct {
	failures int
	unclear  bool      // the last post may have arrived
	asked    time.Time // when probes began; zero before
}

// A prober is a poster that can tell whether its receiver answers, without
// telling it anything.
type prober interface {
	probe(ctx context.Context) delivery
}

// answers reports, as a delivery, whether there is a point in sending: a
// message that may have arrived comes again only when its receiver answers, so
// that one that takes messages and breaks off gets it twice and not once a try.
// Who does not answer probes for probeFor gets it all the same.
func (s *sink) answers(ctx context.Context, tries *sinkTries) delivery {
	prober, can := s.post.(prober)
	if !can || !tries.unclear {
		return delivery{arrived: true}
	}
	if tries.asked.IsZero() {
		tries.asked = time.Now()
	}
	if time.Since(tries.asked) >= probeFor {
		return delivery{arrived: true}
	}
	return prober.probe(ctx)
}

// idle waits for news, at least sinkLook and at most wait.
func (s *sink) idle(ctx context.Context, wait time.Duration, drain <-chan struct{}) {
	if !pause(ctx, min(wait, sinkLook)) || wait <= sinkLook {
		return
	}
	timer := time.NewTimer(wait - sinkLook)
	defer timer.Stop()
	select {
	case <-s.wake:
	case <-timer.C:
	case <-drain:
	case <-ctx.Done():
	}
}

// backoff is how long to wait after a number of failures in a row: doubled
// each time, half of it by chance, and never less than the receiver asked for.
func backoff(failures int, asked time.Duration) time.Duration {
	wait := retryMost
	if failures < 10 {
		wait = min(retryMost, retryBase<<(failures-1))
	}
	wait = wait/2 + rand.N(wait/2)
	return max(wait, min(asked, retryAfter))
}

// pause waits, and reports whether ctx lasted.
func pause(ctx context.Context, wait time.Duration) bool {
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// closed reports whether a channel that carries nothing is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// stoppedAt is when the sink stopped; zero while it works.
func (s *sink) stoppedAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// halt stops the sink.
func (s *sink) halt(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = now
}

// close frees the poster.
func (s *sink) close() { s.post.close() }
