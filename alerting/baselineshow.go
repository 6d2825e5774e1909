package alerting

import (
	"errors"
	"maps"
	"slices"
)

// ErrNoBaseline is what a daemon without alerts.state_dir and without
// alerts.baseline.file says of its baseline.
var ErrNoBaseline = errors.New("there is no baseline; it takes alerts.state_dir or alerts.baseline.file")

// Baseline gives what a pool, or with "" every pool, has learnt or is about to:
// by pool and destination, as copies. It waits for Open.
func (a *Alerting) Baseline(pool string) ([]BaselineEntry, error) {
	if err := a.Open(); err != nil {
		return nil, err
	}
	c := a.correlator
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.baseline == nil {
		return nil, ErrNoBaseline
	}
	if pool != "" {
		return c.baseline.list(pool), nil
	}
	var all []BaselineEntry
	for _, name := range slices.Sorted(maps.Keys(c.baseline.pools)) {
		all = append(all, c.baseline.list(name)...)
	}
	return all, nil
}

// RemoveFromBaseline makes a destination of a pool as good as new, for good if
// there is a state_dir, and reports whether it was known. The error says that
// the removal could not be kept, and holds for this run only.
func (a *Alerting) RemoveFromBaseline(pool, destination string) (bool, error) {
	if err := a.Open(); err != nil {
		return false, err
	}
	c := a.correlator
	c.mu.Lock()
	if c.baseline == nil {
		c.mu.Unlock()
		return false, ErrNoBaseline
	}
	known := c.baseline.remove(pool, destination, c.config.now())
	c.usual.set(c.baseline)
	c.mu.Unlock()
	if !known {
		return false, nil
	}
	return true, c.commit()
}
