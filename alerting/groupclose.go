package alerting

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sallyport/allowlists"
)

// The bounds of closing groups.
const (
	triedPorts = 8    // ports that a group remembers; with more of them it stays open
	maxClosing = 4096 // closed groups of which sinks are still to be told; the end of more is in the log only
)

// mendable are the alerts that are about a destination and nothing else, so
// that an allow rule ends the story. What a job did beside being refused, such
// as going around the resolver, no rule undoes.
var mendable = map[string]bool{AlertDeniedEgress: true, AlertDirectIP: true, AlertForeignResolver: true}

// mendableReasons are the reasons that a rule can take away, as findings have them.
var mendableReasons = map[string]bool{
	allowlists.NotInAllowlist.String(): true, allowlists.PortNotAllowed.String(): true, allowlists.ExpiredRule.String(): true,
	allowlists.DeniedByRule.String(): true, allowlists.ResolverBypass.String(): true, allowlists.AddressLiteral.String(): true,
	allowlists.AddressMismatch.String(): true,
}

// attempts are what a group's findings came to, as far as a later policy may allow
// it. The zero value is a group of which nothing is known, which stays open.
type attempts struct {
	Ports []uint16 `json:"ports,omitempty"` // 0 is a question; at most triedPorts
	Firm  bool     `json:"firm,omitempty"`  // a rule for the destination would not have helped everywhere, or there were more ports
}

// note adds a finding.
func (t *attempts) note(f *finding) {
	if !mendableReasons[f.reason] || f.reason == allowlists.DeniedByRule.String() && f.host != "" && f.ip.IsValid() {
		t.Firm = true // the last is a name that was denied for its address
	}
	t.port(f.port)
}

func (t *attempts) port(port uint16) {
	switch {
	case slices.Contains(t.Ports, port):
	case len(t.Ports) < triedPorts:
		t.Ports = append(t.Ports, port)
	default:
		t.Firm = true
	}
}

// join adds what another group's findings came to.
func (t *attempts) join(other attempts) {
	t.Firm = t.Firm || other.Firm || len(other.Ports) == 0
	for _, port := range other.Ports {
		t.port(port)
	}
}

// allowedBy reports whether a policy allows all that the group is about: each
// destination, with each port that was tried at any.
func (s *groups) allowedBy(policy *allowlists.Policy, g *group, now time.Time) bool {
	if g.Closed != "" || !mendable[g.Alert.Alert] || g.Tried.Firm || len(g.Tried.Ports) == 0 {
		return false
	}
	destinations := []string{s.subjectOf(g)}
	if g.Fold != nil {
		if destinations = g.Destinations; g.More || g.DestinationCount != len(destinations) {
			return false
		}
	}
	pool := policy.Pool(g.Pool)
	if pool == nil {
		return false
	}
	for _, to := range destinations {
		for _, port := range g.Tried.Ports {
			if !allows(pool, to, port, now) {
				return false
			}
		}
	}
	return true
}

// allows reports whether a pool allows a host or address, by a rule: that an
// audit lets it pass is not enough. Port 0 is a question for the name.
func allows(pool *allowlists.Pool, to string, port uint16, now time.Time) bool {
	var d allowlists.Decision
	host, err := allowlists.ParseHost(to)
	addr, literal := netip.ParseAddr(to)
	switch {
	case literal == nil:
		d = pool.DecideLiteral(addr, port, now)
	case err != nil:
		return false
	case port == 0:
		d = pool.DecideName(host, now)
	default:
		d = pool.DecideConn(host, port, now)
	}
	return d.Reason == allowlists.Allowed
}

// closeAllowed closes the groups whose destinations the policy in force allows,
// which a reload or a start has just made so. The caller holds mu.
func (c *correlator) closeAllowed(event string, now time.Time) {
	if c.config.policy == nil {
		return
	}
	policy := c.config.policy()
	if policy == nil {
		return
	}
	since := fmt.Sprintf("allowed since policy generation %d", policy.Generation())
	if event == SystemStarted {
		since = "allowed since the restart"
	}
	for _, g := range c.groups.open {
		if c.groups.allowedBy(policy, g, now) {
			c.groups.end(g, since, now)
		}
	}
	for _, s := range c.sinks {
		signal(s.wake)
	}
}

// end closes a group for a reason, which the log and the sinks that were told of
// it still have to hear; it lies under a key of its own until then, so that the
// next finding opens a new group.
func (s *groups) end(g *group, why string, now time.Time) {
	was := g.Key
	s.remove(g)
	g.Closed, g.Touched, g.Key = why, now, was+closedMark+g.ID
	if g.Fold != nil {
		g.Fold.Seen, g.Fold.seen = nil, nil
	}
	if s.closing >= maxClosing {
		for sink, share := range g.Shares {
			share.Closed = sink != logSinkName
		}
	}
	s.insert(g)
	s.repoint(was, g.Key)
}

// closedMark stands in the key of a closed group, before its id. No subject has
// a NUL in it.
const closedMark = "\x00"

// owes reports whether a sink still has to be told of the group: of findings,
// or, if it was told of some, that it is closed. The log is told in any case.
func (g *group) owes(sink *sinkWants) bool {
	switch told := g.Shares[sink.name]; {
	case !sink.wants(g):
		return false
	case g.Closed != "" && sink.renews:
		return false // it is told by ends
	case g.Closed == "":
		return g.untold(sink.name) > 0
	case told == nil || told.Messages == 0:
		return sink.name == logSinkName
	default:
		return !told.Closed
	}
}

// repoint makes messages under way count for another group.
func (s *groups) repoint(from, to string) {
	for _, m := range s.sending {
		for i := range m.Items {
			if m.Items[i].GroupKey == from {
				m.Items[i].GroupKey = to
				s.dirtyMessages[m.Sink] = true
			}
		}
	}
}
