package alerting

import "fmt"

// tellStoreFaults says what the store found wrong with itself: in our messages,
// the event log, the metrics and, through the event, as an alert. Nobody else
// may use the store meanwhile.
func (c *correlator) tellStoreFaults() {
	store, ok := c.store.(interface{ faults() []storeFault })
	if !ok {
		return
	}
	for _, f := range store.faults() {
		c.metrics.stateFaults.WithLabelValues(f.state).Inc()
		c.config.log.Error().Str("state", f.state).Str("cause", f.cause).Str("moved_to", f.aside).Int("bad_lines", f.bad).
			Int("records", f.records).Msg("the kept state of alerts was not as it was left")
		c.config.system(SystemStateFailed, map[string]any{
			"state": f.state, "error": f.cause, "moved_to": f.aside, "lost_lines": f.bad, "records": f.records,
		})
	}
}

// tellKept notes how a commit ended: a store that does not keep is counted each
// time and said once, and so is that it keeps again. The caller holds mu.
func (c *correlator) tellKept(err error) {
	switch {
	case err != nil:
		c.metrics.stateFaults.WithLabelValues(stateWrite).Inc()
		if !c.broken {
			c.config.log.Error().Err(err).Msg("the state of alerts is not kept")
			c.config.system(SystemStateFailed, map[string]any{"state": stateWrite, "error": err.Error()})
		}
	case c.broken:
		c.config.log.Info().Msg("the state of alerts is kept again")
		c.config.system(SystemStateFailed, map[string]any{"state": stateWell})
	}
	c.broken = err != nil
	c.metrics.kept(c.durable && !c.broken)
}

// read loads the records of one kind. One that cannot be understood is left
// out, and makes the state count as damaged. The caller holds mu.
func (c *correlator) read(kind string, visit func(key string, value []byte) error) error {
	var bad int
	var cause error
	err := c.store.Load(kind, func(key string, value []byte) error {
		if err := visit(key, value); err != nil {
			bad, cause = bad+1, err
		}
		return nil
	})
	if err == nil && bad > 0 {
		c.damaged = true
		c.metrics.stateFaults.WithLabelValues(stateDamaged).Inc()
		c.config.log.Error().Str("kind", kind).Int("records", bad).Err(cause).Msg("records of the kept state of alerts are not understood and left out")
		c.config.system(SystemStateFailed, map[string]any{
			"state": stateDamaged, "error": fmt.Sprintf("%d records of the kind %s are not understood", bad, kind), "lost_lines": bad,
		})
	}
	return err
}
