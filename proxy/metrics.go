package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the counters of DESIGN section 8 that are the proxy's. Labels
// come from closed sets and from the configuration's pool names.
type metrics struct {
	connections *prometheus.CounterVec // pool, via, verdict, reason
	open        *prometheus.GaugeVec   // pool
	setup       prometheus.Histogram   // in seconds
	bytes       *prometheus.CounterVec // pool, direction
	packets     *prometheus.CounterVec // outcome
}

// newMetrics registers the counters; a nil registerer counts into nothing.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_connections_total",
			Help: "Connections and HTTP requests at their first verdict.",
		}, []string{"pool", "via", "verdict", "reason"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sallyport_connections_open",
			Help: "Tunnels and requests now open.",
		}, []string{"pool"}),
		setup: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sallyport_connection_setup_seconds",
			Help:    "Time from a request's arrival to its 2xx.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_bytes_total",
			Help: "Bytes carried; sent is from the job to the world.",
		}, []string{"pool", "direction"}),
		packets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_packets_total",
			Help: "Packets that the firewall refused or passed outside TCP and DNS: recorded, repeated, unrecorded, lost.",
		}, []string{"outcome"}),
	}
	for _, outcome := range []PacketOutcome{PacketRecorded, PacketRepeated, PacketUnrecorded, PacketLost} {
		m.packets.WithLabelValues(string(outcome))
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.connections, m.open, m.setup, m.bytes, m.packets} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// decided counts a first verdict.
func (m *metrics) decided(rec *ConnRecord) {
	m.connections.WithLabelValues(rec.Subject.Pool, rec.Via, rec.Decision.Verdict.String(), rec.Decision.Reason.String()).Inc()
}

// opened counts a first verdict that let something through.
func (m *metrics) opened(rec *ConnRecord) {
	m.decided(rec)
	m.open.WithLabelValues(rec.Subject.Pool).Inc()
	m.setup.Observe(rec.Took.Seconds())
}

// closed ends what opened counted, and counts the bytes of a request; those of
// a tunnel are counted while it carries them.
func (m *metrics) closed(rec *ConnRecord) {
	m.open.WithLabelValues(rec.Subject.Pool).Dec()
	if rec.Via == ViaHTTP {
		sent, received := m.counters(rec.Subject.Pool)
		sent.Add(float64(rec.Sent))
		received.Add(float64(rec.Received))
	}
}

// counters are those of a tunnel's bytes.
func (m *metrics) counters(pool string) (sent, received prometheus.Counter) {
	return m.bytes.WithLabelValues(pool, "sent"), m.bytes.WithLabelValues(pool, "received")
}
