package alerting

import (
	"fmt"
	"net/netip"
	"time"

	"sallyport/allowlists"
)

// rebinding raises rebinding: an allowed name was answered with a special
// address. The unspecified addresses, with which filtering upstreams block, are
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
	f.summary = fmt.Sprintf("the allowed name %s was answered with %s (%s) in %s", f.host, f.ip, class, poolName(f.pool))
	return []finding{f}
}

func (rebinding) expire(time.Time) {}

// special gives the special addresses that an allowed name led to: those taken
// out of an answer, or the one that was not dialled.
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
