package alerting

import (
	"net/netip"

	"sallyport/allowlists"
)

// AllowLine is the line of an allow list that would admit what a refused event,
// or one that only audit let pass, is about. It is "" where no line would do:
// where something else was wrong, where a name stands for the address, and for
// addresses that nobody should open by a line from a report.
func AllowLine(e *Event) string {
	switch e.Cause() {
	case allowlists.NotInAllowlist, allowlists.PortNotAllowed, allowlists.ExpiredRule, allowlists.ResolverBypass:
		return allowLine(e)
	case allowlists.AddressLiteral, allowlists.AddressMismatch:
		if len(e.Names) == 0 && opens(e.IP) {
			return allowLine(e)
		}
	case allowlists.SpecialAddress:
		if literal(e) && opens(e.IP) {
			return allowLine(e)
		}
	}
	return ""
}

// opens reports whether a cidr line for an address is one to offer.
func opens(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsValid() && !addr.IsUnspecified() && !addr.IsLoopback() && !staysOnLink(addr) && !allowlists.IsMetadata(addr)
}
