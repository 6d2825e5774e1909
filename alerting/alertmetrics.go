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
	alerts     *prometheus.CounterVec
	deliveries *prometheus.CounterVec
	queue      prometheus.Gauge
}

// newAlertMetrics registers them; a nil registerer registers nothing.
func newAlertMetrics(r prometheus.Registerer) *alertMetrics {
	m := &alertMetrics{
		alerts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_alerts_total", Help: "Findings of the correlator, repeats included.",
		}, []string{"pool", "alert", "severity"}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_alert_deliveries_total", Help: "Tries to deliver a message.",
		}, []string{"sink", "outcome"}),
		queue: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sallyport_alert_queue", Help: "Alert groups that wait for delivery.",
		}),
	}
	if r != nil {
		r.MustRegister(m.alerts, m.deliveries, m.queue)
	}
	return m
}
