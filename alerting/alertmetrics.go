package alerting

import "github.com/prometheus/client_golang/prometheus"

// The outcomes of sallyport_alert_deliveries_total.
const (
	outcomeDelivered = "delivered"
	outcomeRetried   = "retried" // did not arrive, comes again
	outcomeFailed    = "failed"  // the sink stopped
	outcomeExpired   = "expired" // kept for a stopped sink until there was no more point
)

// alertMetrics are the metrics of correlator and sinks.
type alertMetrics struct {
	alerts      *prometheus.CounterVec
	deliveries  *prometheus.CounterVec
	queue       prometheus.Gauge
	sinkUp      *prometheus.GaugeVec
	stateKept   prometheus.Gauge
	stateFaults *prometheus.CounterVec
	// counters are those of alerts that were asked for, as many as it has.
	counters map[alertCounter]prometheus.Counter
}

// An alertCounter names one counter of alertMetrics.alerts.
type alertCounter struct {
	pool, alert string
	severity    Severity
}

// found is the counter of an alert's findings. Not safe for concurrent use.
func (m *alertMetrics) found(pool, alert string, severity Severity) prometheus.Counter {
	of := alertCounter{pool, alert, severity}
	counter := m.counters[of]
	if counter == nil {
		counter = m.alerts.WithLabelValues(pool, alert, severity.String())
		m.counters[of] = counter
	}
	return counter
}

// newAlertMetrics registers them; a nil registerer registers nothing.
func newAlertMetrics(r prometheus.Registerer) *alertMetrics {
	m := &alertMetrics{
		counters: make(map[alertCounter]prometheus.Counter),
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_alerts_total", Help: "Findings of the correlator, repeats included.",
		}, []string{"pool", "alert", "severity"}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_alert_deliveries_total", Help: "Tries to deliver a message.",
		}, []string{"sink", "outcome"}),
		queue: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_alert_queue", Help: "Alert groups that wait for delivery.",
		}),
		sinkUp: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sallyport_alert_sink_up", Help: "1 unless the last message to the sink did not arrive.",
		}, []string{"sink"}),
		stateKept: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_state_kept", Help: "1 while the state of alerts is kept in alerts.state_dir.",
		}),
		stateFaults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_state_faults_total", Help: "Faults of the kept state of alerts.",
		}, []string{"state"}),
	}
	for _, state := range []string{stateWrite, stateMissing, stateReplaced, stateDamaged} {
		m.stateFaults.WithLabelValues(state)
	}
	if r != nil {
		r.MustRegister(m.alerts, m.deliveries, m.queue, m.sinkUp, m.stateKept, m.stateFaults)
	}
	return m
}

// kept shows whether the state of alerts is kept.
func (m *alertMetrics) kept(is bool) {
	if is {
		m.stateKept.Set(1)
		return
	}
	m.stateKept.Set(0)
}
