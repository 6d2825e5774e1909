package alerting

import (
	"fmt"
	"time"

	"sallyport/allowlists"
)

// deniedEgress raises denied-egress: a destination was refused. One group per
// pool and host, questions and connections together. It remembers nothing.
//
// Quiet refusals, search-suffix echoes, reverse look-ups, and packets to
// multicast and broadcast addresses raise nothing; they are counted by sallyport_dns_queries_total and sallyport_connections_total.
type deniedEgress struct {
	// found is what observe returns, good until the next call: it finds something
	// more often than all others, mostly alone.
	found [1]finding
}

// deniedReasons are the reasons whose refusal is denied-egress (DESIGN section
// 5), and whether an allow line would have helped.
var deniedReasons = map[allowlists.Reason]bool{
	allowlists.NotInAllowlist:  true,
	allowlists.PortNotAllowed:  true,
	allowlists.ExpiredRule:     true,
	allowlists.DeniedByRule:    false,
	allowlists.AddressLiteral:  true,
	allowlists.SpecialAddress:  false,
	allowlists.SNIMissing:      false,
	allowlists.NotTLS:          false,
	allowlists.ECHNotAllowed:   false,
	allowlists.ProtocolBlocked: false,
	allowlists.NoPool:          false,
}

func (d *deniedEgress) observe(e *Event, _ time.Time) []finding {
	_, denied := deniedReasons[e.Reason]
	if !decides(e) || !e.Refused() || !denied || e.Quiet || e.Search || e.Reverse() {
		return nil
	}
	if e.Reason == allowlists.AddressLiteral && len(e.Names) == 0 {
		return nil // direct-ip
	}
	if isPacket(e) && staysOnLink(e.IP) {
		return nil
	}
	d.found[0] = found(e, AlertDeniedEgress, Medium)
	f := &d.found[0]
	f.subject = destination(f.host, f.ip, 0) // never "", also where a message could not be read
	f.words, f.event = deniedWords, e
	return d.found[:]
}

// deniedWords says what was refused, and the line that would allow it.
func deniedWords(f *finding, e *Event) {
	what := destination(f.host, f.ip, f.port)
	if isPacket(e) {
		what = e.Via + " to " + what
	}
	f.summary = fmt.Sprintf("%s was refused to %s in %s (%s)", what, f.asker, poolName(f.pool), f.reason)
	if deniedReasons[e.Reason] {
		f.suggest = allowLine(e)
	}
}

func (*deniedEgress) expire(time.Time) {}

// allowLine is the line of an allow list that would admit what e is about; ""
// if no line would.
func allowLine(e *Event) string {
	if host, err := allowlists.ParseHost(hostOf(e)); err == nil {
		return allowlists.AllowLine(host, e.Port)
	}
	if literal(e) && e.Port != 0 {
		return allowlists.AllowAddrLine(e.IP, e.Port)
	}
	return ""
}
