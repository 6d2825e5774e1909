package dnsfilter

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the collectors of this package. No label holds a host or a client.
type metrics struct {
	queries *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	up      *prometheus.GaugeVec
	dropped *prometheus.CounterVec
	// bookFailures counts tries to write the kept book that failed.
	bookFailures prometheus.Counter
	bookFaults   *prometheus.CounterVec
}

// newMetrics makes the collectors and registers them, unless r is nil.
// cacheEntries is asked at each scrape.
func newMetrics(r prometheus.Registerer, cacheEntries func() int) (*metrics, error) {
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_dns_queries_total", Help: "DNS questions, by pool, verdict and reason.",
		}, []string{"pool", "verdict", "reason"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sallyport_dns_query_seconds", Help: "Time from a DNS question to its reply.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"cached"}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sallyport_dns_upstream_up", Help: "1 if the upstream answered when last asked.",
		}, []string{"upstream"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_dns_dropped_total", Help: "DNS questions over UDP dropped unread, as their pool or client had its share worked on.",
		}, []string{"pool"}),
		bookFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_book_write_failures_total", Help: "Tries to write the kept book of answers that failed.",
		}),
		bookFaults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_book_faults_total", Help: "Times that the kept book of answers was not as it was left.",
		}, []string{"state"}),
	}
	for _, state := range []string{BookMissing, BookDamaged} {
		m.bookFaults.WithLabelValues(state)
	}
	entries := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sallyport_dns_cache_entries", Help: "Answers in the cache.",
	}, func() float64 { return float64(cacheEntries()) })
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.queries, m.seconds, m.up, m.dropped, m.bookFailures, m.bookFaults, entries} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// observe counts one question.
func (m *metrics) observe(r *QueryRecord) {
	queries, seconds := m.of(r)
	queries.Inc()
	seconds.Observe(r.Took.Seconds())
}

// of finds what counts questions like one.
func (m *metrics) of(r *QueryRecord) (queries prometheus.Counter, seconds prometheus.Observer) {
	return m.queries.WithLabelValues(r.Subject.Pool, r.Verdict.String(), r.Reason.String()),
		m.seconds.WithLabelValues(strconv.FormatBool(r.Cached))
}

// upstreamUp sets the state of one upstream; it is upstreamConfig.Up.
func (m *metrics) upstreamUp(name string, up bool) {
	value := 0.0
	if up {
		value = 1
	}
	m.up.WithLabelValues(name).Set(value)
}
