package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/allowlists"
)

// daemonMetrics are the metrics of the daemon itself; each package brings its own.
type daemonMetrics struct {
	reloads *prometheus.CounterVec
	rules   *prometheus.GaugeVec
	holds   *prometheus.GaugeVec
}

func newDaemonMetrics(r prometheus.Registerer) *daemonMetrics {
	m := &daemonMetrics{
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sallyport_policy_reloads_total", Help: "Reloads of the configuration, by outcome (applied, failed).",
		}, []string{"outcome"}),
		rules: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sallyport_policy_rules", Help: "Allow and deny rules of each pool.",
		}, []string{"pool"}),
	}
	enforced := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sallyport_enforced", Help: "1 if it was measured that nothing leaves by another way, by placement. Explicit mode cannot enforce, and is 0.",
	}, []string{"placement"})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sallyport_build_info", Help: "Always 1; the labels say what runs.",
	}, []string{"version", "goversion"})
	r.MustRegister(m.reloads, m.rules, enforced, build)
	m.reloads.WithLabelValues("applied")
	m.reloads.WithLabelValues("failed")
	m.holds = enforced
	build.WithLabelValues(version, runtime.Version()).Set(1)
	return m
}

// policyLoaded counts the rules of a policy that now serves.
func (m *daemonMetrics) policyLoaded(p *allowlists.Policy) {
	m.rules.Reset()
	for _, pool := range p.Pools() {
		spec := pool.Spec()
		m.rules.WithLabelValues(pool.Name()).Set(float64(len(spec.Allow) + len(spec.Deny)))
	}
}

// enforced says whether enforcement was measured to be in place.
func (m *daemonMetrics) enforced(placement string, holds bool) {
	value := 0.0
	if holds {
		value = 1
	}
	m.holds.WithLabelValues(placement).Set(value)
}
