package alerting

import "strings"

// lost is eventReader's.
func (c *correlator) lost() bool {
	if c.open() != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.damaged
}

// recall is eventReader's. Refusals are remembered, for what they are joined
// with. Where the state was damaged, an alert in the log whose group is not
// among those that were kept opens it again, for the sinks to be told: as the
// state that said whether they were is what is gone, some hear of it twice.
func (c *correlator) recall(e *Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case e.Kind == KindDNS, e.Kind == KindConn:
		if c.config.now().Sub(e.Time) <= refusedMemory {
			c.refused.observe(e, e.Time)
		}
	case e.Kind == KindAlert && c.damaged:
		c.reopen(e)
	}
}

// reopen opens the group of an alert's line, as it stood then, or counts in the
// group what it does not know of. Info is left out, as nobody waits for it. The
// caller holds mu.
func (c *correlator) reopen(e *Event) {
	severity, err := ParseSeverity(e.Severity)
	if err != nil || severity < Medium || e.Key == "" || e.Count <= 0 {
		return
	}
	now := c.config.now()
	g := c.groups.open[e.Key]
	if g == nil {
		if len(c.groups.open) >= c.groups.limits.groups {
			return
		}
		g = &group{Alert: Alert{
			ID: e.ID, Alert: e.Alert, Severity: severity, Key: e.Key, Summary: e.Summary, Pool: e.Pool, Client: e.Client, Job: e.Job,
			First: e.First, Evidence: e.Evidence, Host: e.Host, Port: e.Port, IP: e.IP, Suggest: e.Suggest,
		}, Opened: now, Shares: make(map[string]*share)}
		g.addClient(e.Subject().Key())
		if c.groups.isFold(g) {
			g.Fold, g.More = &fold{room: &c.groups.foldRoom, list: c.groups.limits.foldListed}, true
		}
		c.groups.insert(g)
	}
	if more := e.Count - g.Count; more > 0 && g.ID == e.ID {
		g.Count, g.Last, g.Touched = e.Count, e.Last, now
		g.share(logSinkName).Told += more
		c.groups.touch(g)
	}
}

// isFold reports whether a group's key is one of a group that stands for several.
func (s *groups) isFold(g *group) bool {
	subject := s.subjectOf(g)
	return subject == "*" || subject == "more" || strings.HasPrefix(subject, "client ")
}
