package alerting

import "github.com/prometheus/client_golang/prometheus"

// logMetrics are the metrics of the event log.
type logMetrics struct {
	dropped prometheus.Counter
	stalled prometheus.Gauge
	faults  *prometheus.CounterVec
}

// newLogMetrics registers them; a nil registerer registers nothing.
func newLogMetrics(r prometheus.Registerer) *logMetrics {
	m := &logMetrics{
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_events_dropped_total",
			Help: "Events that were not logged, or did not reach the correlator, because a buffer was full.",
		}),
		stalled: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_log_stalled", Help: "1 while the last write of the event log failed, or does not return.",
		}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_log_faults_total", Help: "Faults of the event log.",
		}, []string{"state"}),
	}
	for _, state := range []string{logFailing, logDropping, logMissing, logReplaced, logMoved} {
		m.faults.WithLabelValues(state)
	}
	if r != nil {
		r.MustRegister(m.dropped, m.stalled, m.faults)
	}
	return m
}
