package alerting

import "github.com/prometheus/client_golang/prometheus"

// logMetrics are the metrics of the event log.
type logMetrics struct {
	dropped prometheus.Counter
}

// newLogMetrics registers them; a nil registerer registers nothing.
func newLogMetrics(r prometheus.Registerer) *logMetrics {
	m := &logMetrics{
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_events_dropped_total",
			Help: "Events that were not logged, or did not reach the correlator, because a buffer was full.",
		}),
	}
	if r != nil {
		r.MustRegister(m.dropped)
	}
	return m
}
