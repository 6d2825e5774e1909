package dnsfilter

import (
	"fmt"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// A tunnelError refuses a question that would carry too much to the owner of
// its domain.
type tunnelError struct {
	tally  Tally
	window time.Duration
}

func (e *tunnelError) Error() string {
	if e.tally.Over == LimitTunnelDayBytes {
		return fmt.Sprintf("questions carried %d bytes to %s within 24 hours (%s)", e.tally.DayBytes, e.tally.Domain, e.tally.Over)
	}
	return fmt.Sprintf("questions carried %d names and %d bytes to %s within %s (%s)",
		e.tally.Names, e.tally.Bytes, e.tally.Domain, e.window, e.tally.Over)
}

// guard counts a question that is about to leave, of a client or of the proxy
// for one, and refuses it where it is one too many for its domain. A cached
// answer tells nobody anything, and does not come here.
func (s *Server) guard(q *asked, v *verdict) error {
	rule := v.decision.Rule
	tally, ok := s.meter.Admit(&Carried{
		Pool: v.pool.Name(), Client: q.sub.Key(), Name: v.host.String(), Type: q.qtype, Flags: q.flags != queryFlags{}, Leaks: true, Repeats: true,
		Listed: rule != nil && rule.Host.Exact() && v.owner == v.host,
	}, time.Now())
	if ok {
		return nil
	}
	return &tunnelError{tally, s.meter.limits.Window}
}

// overLimit is the outcome of a question that a limit does not let go. Audit
// forwards none of them.
func overLimit(rule *allowlists.Rule, key string) outcome {
	out := outcome{judged: judged{rcode: dns.RcodeRefused}, failure: allowlists.LimitExceeded, limit: key}
	out.decision = allowlists.Decision{Reason: allowlists.LimitExceeded, Rule: rule}
	return out
}

// payload is how many bytes the answer's records hold beyond addresses and
// what leads to them.
func payload(records []dns.RR) (n int) {
	for _, rr := range records {
		if h := rr.Header(); !everyHostHas(h.Rrtype) {
			n += dns.Len(rr) - len(h.Name) - 11 // name, type, class, TTL and length
		}
	}
	return n
}
