package alerting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
)

// Config is what alerting needs to know.
type Config struct {
	// Log takes our own messages; event lines go elsewhere.
	Log zerolog.Logger
	// Events says where event lines go, and what happens when they cannot.
	Events allowlists.Log
	// Stdout takes the lines where Events.Events is "stdout"; nil is the
	// standard output of the process.
	Stdout io.Writer
	// Alerts configures correlator, sinks and store.
	Alerts allowlists.Alerts
	// Policy gives the policy in force; nil means none is needed.
	Policy func() *allowlists.Policy
	// Registerer takes the metrics; nil drops them.
	Registerer prometheus.Registerer
}

// Alerting is the event log and everything that lives on it. Its Observe
// methods, System, Gate, Reopen and Decision are safe for concurrent use, from
// New on: until Run writes them, lines wait in the buffer.
type Alerting struct {
	config  Config
	log     *eventLog
	queue   *eventQueue
	recent  *recentEvents
	metrics *logMetrics
	usual   *usualNames
	hits    *ruleHits
	watches watchHub
	// reader takes the events, in the order of their lines.
	reader eventReader
	// correlator is that reader, for who asks what it knows.
	correlator *correlator

	order sync.Mutex // makes the queue's order that of the lines

	openOnce sync.Once
	openErr  error
	start    Position // the end of the file when it was opened
	history  *os.File // that file, for resume; nil for a stream
}

// New checks the configuration. It opens nothing.
func New(config Config) (*Alerting, error) {
	sink := &logSink{path: config.Events.Events}
	switch {
	case config.Events.Events == "":
		return nil, errors.New("log.events is empty; it is stdout or a file path")
	case config.Events.Events == "stdout":
		sink.path, sink.stream = "", config.Stdout
	}
	denies := false
	switch config.Events.OnError {
	case "", "continue":
	case "deny":
		denies = true
	default:
		return nil, fmt.Errorf("log.on_error %q is unknown; it is continue or deny", config.Events.OnError)
	}
	metrics := newLogMetrics(config.Registerer)
	a := &Alerting{
		config: config, metrics: metrics, log: newEventLog(sink, denies, metrics),
		queue: newEventQueue(queuedEvents), recent: newRecentEvents(recentDecisions), hits: newRuleHits(),
	}
	reader, err := newCorrelator(correlatorConfig{
		log: config.Log, alerts: config.Alerts, policy: config.Policy, registerer: config.Registerer,
		emit: func(e Event) { a.record(&e) }, system: a.System,
	})
	if err != nil {
		return nil, err
	}
	a.reader, a.correlator, a.usual = reader, reader, reader.usual
	sink.kept = reader.keptUpTo
	return a, nil
}

// Open opens the event log and the state of alerts, so that a path that cannot
// be written to, or a state that another daemon holds, is known before anything
// is served. Run does it too; it happens once.
func (a *Alerting) Open() error {
	a.openOnce.Do(func() {
		if a.openErr = a.log.sink.open(); a.openErr != nil {
			a.openErr = fmt.Errorf("opening the event log %s: %w", a.config.Events.Events, a.openErr)
			return
		}
		a.start = a.log.sink.now()
		if a.history, a.openErr = a.log.sink.history(); a.openErr != nil {
			return
		}
		a.openErr = a.reader.open()
	})
	return a.openErr
}

// Reopen opens the event log's file again, soon, as after a rotation.
func (a *Alerting) Reopen() { signal(a.log.rotate) }

// Gate reports whether new work may begin as far as the log is concerned:
// Allowed, or LogDegraded.
func (a *Alerting) Gate() allowlists.Reason {
	if a.log.refusing.Load() {
		return allowlists.LogDegraded
	}
	return allowlists.Allowed
}

// ObserveQuery records a question. For a refusal it returns when the line was
// written, or the log is stalled; else at once.
func (a *Alerting) ObserveQuery(r dnsfilter.QueryRecord) {
	e := events.Get().(*Event)
	e.fromQuery(&r)
	a.record(e)
}

// ObserveRefused records questions that were refused together, as ObserveQuery
// does each, and waits once for all of their lines. It keeps none of the slice.
func (a *Alerting) ObserveRefused(all []dnsfilter.QueryRecord) {
	var last *flush
	lines := int64(0)
	for i := range all {
		e := events.Get().(*Event)
		e.fromQuery(&all[i])
		switch batch, ok := a.put(e); {
		case !ok:
		case batch == nil:
			a.log.wait(nil, 1)
		default:
			last = batch
			lines++
		}
	}
	if last != nil {
		a.log.wait(last, lines)
	}
}

// ObserveConn records a connection, as ObserveQuery does a question.
func (a *Alerting) ObserveConn(r proxy.ConnRecord) {
	e := events.Get().(*Event)
	e.fromConn(&r)
	a.record(e)
}

// events hold zero events. The reader has taken them, and keeps none.
var events = sync.Pool{New: func() any { return new(Event) }}

// Usual reports whether a canonical name is in a pool's baseline, as it stood
// within the last minute. It waits for nobody. Safe for concurrent use.
func (a *Alerting) Usual(pool, name string) bool { return a.usual.has(pool, name) }

// System records an event of the daemon itself; docs/events.md lists them.
// Details are strings, booleans, numbers and lists of strings.
func (a *Alerting) System(event string, details map[string]any) {
	if event == SystemStarted {
		details = maps.Clone(details)
		if details == nil {
			details = make(map[string]any)
		}
		details["alerts_survive_restart"] = a.survives()
		if !a.survives() && a.config.Alerts.StateDir != "" { // else the correlator said so
			a.config.Log.Warn().Msg("log.events is no file: after a kill, nobody is told of what was logged and not told yet")
		}
	}
	e := Event{Time: eventTime(time.Now()), Kind: KindSystem, Event: event, Details: details}
	if a.config.Policy != nil {
		if policy := a.config.Policy(); policy != nil {
			e.Policy = policy.Generation()
		}
	}
	a.record(&e)
}

// survives reports whether alerting resumes where it stopped.
func (a *Alerting) survives() bool {
	return a.config.Alerts.StateDir != "" && a.log.sink.path != ""
}

// Decision gives the events of a decision or alert that was recorded lately:
// its verdict, and its latest line if there is another.
func (a *Alerting) Decision(id string) ([]Event, bool) {
	events := a.recent.get(id)
	return events, len(events) > 0
}

// record makes the line of e and hands both on; e belongs to others then. It
// waits for the line of a refusal.
func (a *Alerting) record(e *Event) {
	wait := (e.Kind == KindDNS || e.Kind == KindConn) && e.Refused()
	if batch, ok := a.put(e); wait && ok {
		a.log.wait(batch, 1)
	}
}

// put is record without the wait: it gives what to wait for, if the line found
// room. Alert events, which come from the reader, do not go there again.
func (a *Alerting) put(e *Event) (batch *flush, ok bool) {
	w := encoders.Get().(*encoder)
	line := w.encode(e)
	if e.Kind != KindSystem {
		a.recent.add(e.ID, line)
	}
	// Once pushed, e belongs to the correlator.
	kind := e.Kind
	a.order.Lock()
	end, batch, ok := a.log.append(line, kind == KindSystem)
	if kind != KindAlert {
		if !ok {
			end = 0
		}
		a.queue.push(e, end)
	} else {
		a.watches.show(e, a.watches.now())
	}
	a.order.Unlock()
	encoders.Put(w)
	return batch, ok
}

// Run writes the log and feeds the correlator until ctx ends. Then it hands
// on and writes what is left, in bounded time. It returns the first error.
func (a *Alerting) Run(ctx context.Context) error {
	if err := a.Open(); err != nil {
		return err
	}
	if a.log.sink.path == "" && (a.log.sink.stream == nil || a.log.sink.stream == os.Stdout) {
		stdout, err := ownStdout()
		if err != nil {
			return err
		}
		defer stdout.Close()
		a.log.sink.stream = stdout
	}
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	reading, stopReading := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWriting()
	defer stopReading()
	written, read := make(chan error, 1), make(chan error, 1)
	go func() { written <- a.log.run(writing) }()
	go func() { read <- a.reader.run(reading) }()

	a.feed(ctx)
	stopReading()
	err := <-read
	stopWriting()
	return errors.Join(err, <-written, a.log.sink.close())
}
