package alerting

import (
	"fmt"
	"net/netip"
	"time"

	"sallyport/allowlists"
)

// rebinding raises rebinding: a name that may be asked for, by a rule or as the
// pool is in audit, was answered with a special address. The unspecified addresses, with which filtering upstreams block, are
// info. One group per pool and host. It keeps no state.
type rebinding struct{}

func (rebinding) observe(e *Event, _ time.Time) []finding {
	bad, ok := special(e)
	if !ok {
		return nil
	}
	severity := Info
	for _, addr := range bad {
		if !addr.IsUnspecified() {
			severity = High
		}
	}
	f := found(e, AlertRebinding, severity)
	f.ip = worst(bad)
	class := allowlists.SpecialClass(f.ip)
	if class == "" {
		class = "not for it"
	}
	f.subject = f.host
	f.reason = allowlists.SpecialAddress.String()
	name := "name" // in audit nobody need have allowed it
	if e.Rule != "" || e.Reason == allowlists.Allowed {
		name = "allowed name"
	}
	f.summary = fmt.Sprintf("the %s %s was answered with %s (%s) in %s", name, f.host, f.ip, class, poolName(f.pool))
	if e.Kind == KindConn && !e.Refused() {
		f.summary += ", and audit forwarded the connection"
	}
	return []finding{f}
}

func (rebinding) expire(time.Time) {}

// special gives the special addresses that a name led to: those taken out of an
// answer, or the one that was dialled by audit only, or not at all.
func special(e *Event) ([]netip.Addr, bool) {
	switch {
	case e.Kind == KindDNS:
		named := !e.Refused() || e.Reason == allowlists.SpecialAddress
		return e.Removed, named && len(e.Removed) > 0
	case !decides(e) || e.Cause() != allowlists.SpecialAddress || literal(e) || !e.IP.IsValid():
		return nil, false
	default:
		return []netip.Addr{e.IP}, e.Via == "connect" || e.Via == "http"
	}
}

// worst is the first address that is more than unspecified.
func worst(addrs []netip.Addr) netip.Addr {
	for _, addr := range addrs {
		if !addr.IsUnspecified() {
			return addr
		}
	}
	return addrs[0]
}
