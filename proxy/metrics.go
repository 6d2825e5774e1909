package proxy

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/allowlists"
)

// metrics are the counters of DESIGN section 8 that are the proxy's. Labels
// come from closed sets and from the configuration's pool names.
type metrics struct {
	connections *prometheus.CounterVec // pool, via, verdict, reason
	open        *prometheus.GaugeVec   // pool
	setup       prometheus.Histogram   // in seconds
	bytes       *prometheus.CounterVec // pool, direction
	packets     *prometheus.CounterVec // outcome
	pools       sync.Map               // *poolMetrics by the pool's name
}

// poolMetrics are the counters of one pool, so that nothing is looked up by its
// labels for each connection.
type poolMetrics struct {
	last atomic.Pointer[verdictMetric] // as the next verdict is mostly the same

	carries        sync.Once // sets the rest: there is none for a pool that is only refused
	open           prometheus.Gauge
	sent, received prometheus.Counter
}

// A verdictMetric is the counter of one kind of verdict.
type verdictMetric struct {
	via     string
	verdict allowlists.Verdict
	reason  allowlists.Reason
	count   prometheus.Counter
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

// pool gives the counters of a pool.
func (m *metrics) pool(name string) *poolMetrics {
	if known, ok := m.pools.Load(name); ok {
		return known.(*poolMetrics)
	}
	known, _ := m.pools.LoadOrStore(name, new(poolMetrics))
	return known.(*poolMetrics)
}

// carrying is pool for one that carries something.
func (m *metrics) carrying(name string) *poolMetrics {
	of := m.pool(name)
	of.carries.Do(func() {
		of.open, of.sent, of.received = m.open.WithLabelValues(name), m.bytes.WithLabelValues(name, "sent"), m.bytes.WithLabelValues(name, "received")
	})
	return of
}

// decided counts a first verdict.
func (m *metrics) decided(rec *ConnRecord) { m.verdict(m.pool(rec.Subject.Pool), rec) }

// verdict is decided in a pool.
func (m *metrics) verdict(of *poolMetrics, rec *ConnRecord) {
	verdict, reason := rec.Decision.Verdict, rec.Decision.Reason
	last := of.last.Load()
	if last == nil || last.via != rec.Via || last.verdict != verdict || last.reason != reason {
		last = &verdictMetric{rec.Via, verdict, reason, m.connections.WithLabelValues(rec.Subject.Pool, rec.Via, verdict.String(), reason.String())}
		of.last.Store(last)
	}
	last.count.Inc()
}

// opened counts a first verdict that let something through.
func (m *metrics) opened(rec *ConnRecord) {
	of := m.carrying(rec.Subject.Pool)
	m.verdict(of, rec)
	of.open.Inc()
	m.setup.Observe(rec.Took.Seconds())
}

// closed ends what opened counted, and counts the bytes of a request; those of
// a tunnel are counted while it carries them.
func (m *metrics) closed(rec *ConnRecord) {
	of := m.carrying(rec.Subject.Pool)
	of.open.Dec()
	if rec.Via == ViaHTTP {
		of.sent.Add(float64(rec.Sent))
		of.received.Add(float64(rec.Received))
	}
}

// counters are those of a tunnel's bytes.
func (m *metrics) counters(pool string) (sent, received prometheus.Counter) {
	of := m.carrying(pool)
	return of.sent, of.received
}
