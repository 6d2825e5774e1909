package alerting

import (
	"encoding/json"
	"fmt"
	"time"

	"sallyport/allowlists"
)

// storeDay is the kind of the record that holds the day so far, key "".
const storeDay = "day"

// ends is when a day that began at from is over: the next time that it is at
// since midnight in UTC.
func ends(from time.Time, at time.Duration) time.Time {
	end := from.UTC().Truncate(24 * time.Hour).Add(at)
	if !end.After(from) {
		end = end.Add(24 * time.Hour)
	}
	return end
}

// dayWait is how long it is until a sink has a daily summary to send; 0 if it
// has one now. The caller holds mu.
func (c *correlator) dayWait(s *sink, now time.Time) time.Duration {
	if !s.daily || c.day == nil {
		return time.Hour
	}
	return min(time.Hour, max(0, ends(c.day.From, c.config.alerts.Slack.Daily.Since).Sub(now)))
}

// dayMessage makes the daily summary if it is due, and begins the next day; nil
// if it is not. A summary that is late, as nobody was there, tells of all the
// time since the last one. The caller holds mu.
func (c *correlator) dayMessage(s *sink, now time.Time) *message {
	if c.dayWait(s, now) > 0 {
		return nil
	}
	over := c.day
	over.To = eventTime(now)
	c.day = over.next()
	m := &message{ID: allowlists.NewID(), Sink: s.name, Made: over.To, Day: over}
	c.groups.sending[s.name] = m
	c.groups.dirtyMessages[s.name] = true
	c.dayUnkept = true
	return m
}

// keepDay has the day so far kept with the next commit. The caller holds mu.
func (c *correlator) keepDay() {
	if c.day != nil && c.day.dirty {
		c.dayUnkept, c.day.dirty = true, false
	}
}

func (c *correlator) loadDay(_ string, value []byte) error {
	if c.day == nil {
		return nil
	}
	kept := newDay(time.Time{})
	if err := json.Unmarshal(value, kept); err != nil {
		return fmt.Errorf("the day so far: %w", err)
	}
	kept.dirty = false
	c.day = kept
	return nil
}
