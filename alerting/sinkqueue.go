package alerting

import (
	"fmt"
	"time"
)

// waitFor is how long it is until there is something to send to a sink; 0 if
// there is now. all asks for whatever is not told yet.
func (c *correlator) waitFor(s *sink, all bool) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.groups.sending[s.name] != nil {
		return 0
	}
	now := c.config.now()
	_, wait := c.groups.due(&s.sinkWants, now, all)
	if all {
		return wait
	}
	return min(wait, c.dayWait(s, now))
}

// nextMessage makes a sink's next message and keeps it, with all that led to
// it, before it is sent: a crash after that sends it again, under the same id.
// It is nil if there is nothing to send.
func (c *correlator) nextMessage(s *sink, all bool) *message {
	c.mu.Lock()
	now := c.config.now()
	m, _ := c.groups.next(&s.sinkWants, c.turns[s.name], now, all)
	if m == nil && !all {
		m = c.dayMessage(s, now)
	}
	c.mu.Unlock()
	if m != nil {
		c.commit() // what does not work is said there; the message goes out all the same
	}
	return m
}

// underWay reports whether a sink has a message that may have been sent.
func (c *correlator) underWay(s *sink) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.groups.sending[s.name] != nil
}

// delivered notes, and keeps, that a sink's message arrived, after so many
// failures.
func (c *correlator) delivered(s *sink, failures int) {
	c.metrics.deliveries.WithLabelValues(s.name, outcomeDelivered).Inc()
	c.metrics.sinkUp.WithLabelValues(s.name).Set(1)
	c.mu.Lock()
	if failures > 0 {
		c.config.system(SystemSinkFailing, map[string]any{"sink": s.name, "state": "recovered", "tries": failures})
	}
	c.groups.delivered(s.name, c.config.now())
	c.mu.Unlock()
	c.commit()
}

// retry notes that a sink's message did not arrive. If the receiver said so
// the message is made anew, with what came in between; else it may have
// arrived, and comes again as it is.
func (c *correlator) retry(s *sink, sent delivery, failures int) {
	c.config.log.Warn().Str("sink", s.name).Str("cause", sent.cause).Msg("an alert was not delivered; it comes again")
	c.metrics.deliveries.WithLabelValues(s.name, outcomeRetried).Inc()
	c.metrics.sinkUp.WithLabelValues(s.name).Set(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	if failures == 1 {
		c.config.system(SystemSinkFailing, map[string]any{"sink": s.name, "state": "failing", "cause": sent.cause})
	}
	if sent.definite {
		c.groups.takeBack(s.name)
	}
}

// stopSink stops a sink for which trying again is pointless, and says so
// everywhere else: in our messages, the event log, the metrics and the other
// sinks. What it was not told is kept for a while.
func (c *correlator) stopSink(s *sink, cause string) {
	now := c.config.now()
	s.halt(now)
	c.config.log.Error().Str("sink", s.name).Str("cause", cause).Float64("kept_hours", c.keep.Hours()).Msg("a sink of alerts has stopped; mend it and restart")
	c.metrics.deliveries.WithLabelValues(s.name, outcomeFailed).Inc()
	c.metrics.sinkUp.WithLabelValues(s.name).Set(0)
	c.mu.Lock()
	c.groups.takeBack(s.name)
	c.config.system(SystemSinkStopped, map[string]any{"sink": s.name, "cause": cause, "kept_hours": c.keep.Hours()})
	c.count(&finding{
		alert: AlertPolicy, severity: High, subject: "sink " + s.name, time: eventTime(now),
		summary: fmt.Sprintf("alerts no longer reach the sink %s: %s", s.name, cause),
	}, now)
	c.mu.Unlock()
	c.commit()
}
