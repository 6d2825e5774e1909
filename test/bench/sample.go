//go:build linux

package main

import (
	"math"
	"slices"
)

// A Sample is one repetition of one figure on one subject.
type Sample struct {
	Figure  string  `json:"figure"`
	Subject string  `json:"subject"`
	Round   int     `json:"round"`
	Ops     float64 `json:"ops"`
	Seconds float64 `json:"seconds"`
	// Values are the sample's measures, by the names of measures below; what
	// was not measured is absent.
	Values     map[measureName]float64 `json:"values"`
	Errors     int64                   `json:"errors,omitempty"`
	FirstError string                  `json:"first_error,omitempty"`
}

// A measureName names one number of a sample, with its unit.
type measureName string

// The measures. Each figure has some of them.
const (
	rate       measureName = "rate"        // operations a second; GB a second of bulk
	cpu        measureName = "cpu ms/1000" // CPU of the subject per 1,000 operations, or per GB
	p50        measureName = "p50 us"
	p99        measureName = "p99 us"
	p999       measureName = "p99.9 us"
	slowest    measureName = "slowest ms"
	rss        measureName = "RSS MiB"
	each       measureName = "KiB each"
	descriptor measureName = "descriptors each"
	readyAfter measureName = "ready ms"
	reloadTime measureName = "reload ms"
	shownRows  measureName = "rows/s"        // that an open page was shown
	leftRows   measureName = "not shown/s"   // of which it was told
	subjectUse measureName = "subject cores" // near 1 means the subject is its own limit
	loadUse    measureName = "load cores"    // near 1 means that the load may be the limit
)

// newSample has no values yet.
func newSample() Sample { return Sample{Values: map[measureName]float64{}} }

// latencies adds the percentiles of durations in nanoseconds.
func (s *Sample) latencies(nanoseconds []int64) {
	if len(nanoseconds) == 0 {
		return
	}
	slices.Sort(nanoseconds)
	s.Values[p50] = percentile(nanoseconds, 0.50)
	s.Values[p99] = percentile(nanoseconds, 0.99)
	s.Values[p999] = percentile(nanoseconds, 0.999)
}

// percentile is the nearest-rank percentile of sorted nanoseconds, in
// microseconds.
func percentile(sorted []int64, q float64) float64 {
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[max(i, 0)]) / 1e3
}

// A spread is what several rounds gave. The zero value is of no round.
type spread struct{ least, median, most float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	middle := v[len(v)/2]
	if len(v)%2 == 0 {
		middle = (middle + v[len(v)/2-1]) / 2
	}
	return spread{v[0], middle, v[len(v)-1]}
}

// values are a subject's values of one measure, by round.
func values(samples []Sample, figure, subject string, m measureName) map[int]float64 {
	out := map[int]float64{}
	for _, s := range samples {
		if v, ok := s.Values[m]; ok && s.Figure == figure && s.Subject == subject {
			out[s.Round] = v
		}
	}
	return out
}

// median of a subject's values; false if there are none.
func median(samples []Sample, figure, subject string, m measureName) (spread, bool) {
	var list []float64
	for _, v := range values(samples, figure, subject, m) {
		list = append(list, v)
	}
	return spreadOf(list), len(list) > 0
}

// ratio divides a subject's values by those of another in the same round, so
// that slow spells of a shared machine, which hit neighbours alike, mostly
// cancel. False if no round has both.
func ratio(samples []Sample, figure, subject, base string, m measureName) (spread, bool) {
	below := values(samples, figure, base, m)
	var list []float64
	for round, v := range values(samples, figure, subject, m) {
		if b := below[round]; b > 0 {
			list = append(list, v/b)
		}
	}
	return spreadOf(list), len(list) > 0
}
