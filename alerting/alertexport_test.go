package alerting

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sallyport/allowlists"
)

// A CorrelatorSetup is correlatorConfig for tests; nil parts do nothing.
type CorrelatorSetup struct {
	Alerts     allowlists.Alerts
	Policy     func() *allowlists.Policy
	Log        zerolog.Logger
	Emit       func(Event)
	System     func(string, map[string]any)
	Registerer prometheus.Registerer
	Store      Store
	Send       func(*http.Request) (*http.Response, error)
	Groups     int
	Lost       bool         // the state was damaged
	Direct     bool         // sinks use real sockets
	Client     *http.Client // sinks send by it
	Deaf       bool         // nobody answers probes
	Now        func() time.Time
}

// A doFunc sends by send, and answers probes itself, or not at all.
type doFunc struct {
	send func(*http.Request) (*http.Response, error)
	deaf bool
}

func (f doFunc) Do(r *http.Request) (*http.Response, error) {
	switch {
	case r.Method == http.MethodHead && f.deaf:
		return nil, io.ErrUnexpectedEOF
	case r.Method == http.MethodHead:
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}, nil
	}
	return f.send(r)
}

// HTTPClient is the client of a sink, but for how it dials and whom it trusts.
func HTTPClient(dial func(ctx context.Context, network, address string) (net.Conn, error), roots *x509.CertPool) *http.Client {
	client := newHTTPClient()
	transport := client.Transport.(*http.Transport)
	transport.DialContext, transport.TLSClientConfig.RootCAs = dial, roots
	return client
}

// A Correlator is a correlator for tests.
type Correlator struct{ c *correlator }

// NewCorrelator makes one, opened.
func NewCorrelator(s CorrelatorSetup) (Correlator, error) {
	config := correlatorConfig{
		log: s.Log, alerts: s.Alerts, policy: s.Policy, emit: s.Emit, system: s.System, registerer: s.Registerer,
		store: s.Store, groups: s.Groups, now: s.Now,
	}
	if config.emit == nil {
		config.emit = func(Event) {}
	}
	if config.system == nil {
		config.system = func(string, map[string]any) {}
	}
	if s.Send != nil && !s.Direct {
		config.client = doFunc{s.Send, s.Deaf}
	}
	if s.Client != nil {
		config.client = s.Client
	}
	c, err := newCorrelator(config)
	if err != nil {
		return Correlator{}, err
	}
	err = c.open()
	c.damaged = c.damaged || s.Lost
	return Correlator{c}, err
}

func (t Correlator) Take(e Event)                  { t.c.take(&e) }
func (t Correlator) Run(ctx context.Context) error { return t.c.run(ctx) }
func (t Correlator) Tick(now time.Time)            { t.c.tick(now); t.c.keepNow() }
func (t Correlator) Resume() (Position, bool)      { return t.c.resume() }
func (t Correlator) Recall(e Event)                { t.c.recall(&e) }
func (t Correlator) Begin(p Position)              { t.c.begin(p) }
func (t Correlator) OpenGroups() int {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return len(t.c.groups.open)
}
func (t Correlator) Alerts() []Alert {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	var all []Alert
	for _, g := range t.c.groups.open {
		all = append(all, g.snapshot())
	}
	return all
}
func (t Correlator) Entries(pool string) []BaselineEntry {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.c.baseline.list(pool)
}
func (t Correlator) Forget(pool, destination string) bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.c.baseline.remove(pool, destination, t.c.config.now())
}

// LikenessesSeen is how many hosts the detector lookalike remembers.
func (t Correlator) LikenessesSeen() (n int) {
	for _, d := range t.c.detectors {
		if l, is := d.(*lookalike); is {
			n += len(l.seen)
		}
	}
	return n
}
func (t Correlator) RefusedClients() int { return len(t.c.refused.clients) }

// The bounds that tests hold.
const (
	RefusedClients  = refusedClients
	LikeSeen        = likeSeen
	BaselineEntries = baselineEntries
)

// A SlackItem is what FuzzSlack varies.
type SlackItem = item

// EncodeSlackDay makes the body of a daily summary of events and what was found
// in them, from a time to another.
func EncodeSlackDay(id string, from, to time.Time, fill func(count func(*Event), found func(pool, alert, host string, severity Severity, times int))) ([]byte, error) {
	d := newDay(from)
	d.To = to
	fill(d.observe, func(pool, alert, host string, severity Severity, times int) {
		for range times {
			d.count(&finding{pool: pool, alert: alert, severity: severity, host: host}, true)
		}
	})
	if len(d.Refused) > dayRefused || len(d.Pools) > dayPools+1 || len(d.New) > dayNew {
		return nil, fmt.Errorf("a day holds %d destinations, %d pools and %d new ones", len(d.Refused), len(d.Pools), len(d.New))
	}
	return encodeSlack(&message{ID: id, Day: d}, allowlists.Links{})
}

// EncodeSlack makes the body of a Slack message.
func EncodeSlack(id string, items []SlackItem, links allowlists.Links) ([]byte, error) {
	return encodeSlack(&message{ID: id, Items: items}, links)
}

// AlertTitle is an alert in a few words.
func AlertTitle(alert string) string { return alertTitles[alert] }

// KnownAlerts are the alerts that are raised.
func KnownAlerts() []string { return alertKinds }

// Told reports whether sinks are told of alerts of that kind.
func Told(alert string) bool { return told(alert) }

// SyslogLines are the lines of a message.
func SyslogLines(id string, items []SlackItem, links allowlists.Links) ([]string, error) {
	return newSyslogWriter(links).lines(&message{ID: id, Items: items})
}

// The times that tests go by.
const (
	RenewEvery      = renewEvery
	AlertmanagerEnd = alertmanagerEnd
)

// Keep keeps what is dirty in the store.
func (t Correlator) Keep() { t.c.commit() }

// UploadState is how many tunnels and sums uploadVolume remembers.
func (t Correlator) UploadState() (tunnels, hours int) {
	for _, d := range t.c.detectors {
		if d, ok := d.(*uploadVolume); ok {
			return len(d.tunnels), len(d.hours)
		}
	}
	return 0, 0
}

// PastMost bounds half of PastAnswers.
const PastMost = pastMost

// PastAnswers is the memory of past answers.
type PastAnswers struct{ pastAnswers }

// Observe takes an event.
func (p *PastAnswers) Observe(e Event) { p.observe(&e) }

// Expire forgets what is old.
func (p *PastAnswers) Expire(now time.Time) { p.expire(now) }

// Size counts what is remembered.
func (p *PastAnswers) Size() int { return len(p.newer) + len(p.older) }
