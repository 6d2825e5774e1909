package hindsight

import "time"

// The shape of an offsets.
const (
	offsetStep = 50 * time.Millisecond
	offsetSpan = 60 * time.Second // either way
)

// offsets counts how long after the nearest answer connections were, in steps,
// to tell clocks that differ.
type offsets struct {
	steps [2*offsetSpan/offsetStep + 1]int
	n     int
}

// add counts one; what is beyond the span says nothing about clocks.
func (o *offsets) add(after time.Duration) {
	if after.Abs() > offsetSpan {
		return
	}
	o.steps[(after+offsetSpan)/offsetStep]++
	o.n++
}

// median is the middle one, and how many there were.
func (o *offsets) median() (time.Duration, int) {
	seen := 0
	for i, n := range o.steps {
		if seen += n; n > 0 && 2*seen >= o.n {
			return time.Duration(i)*offsetStep - offsetSpan, o.n
		}
	}
	return 0, 0
}
