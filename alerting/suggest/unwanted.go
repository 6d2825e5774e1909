package suggest

import (
	"net/netip"
	"slices"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// unread says why a line for the name would not mend what the first bytes of a
// connection lack; "" if nothing is.
func unread(e *alerting.Event) string {
	switch cause := e.Cause(); {
	case isQuestion(e) || e.Port != 443:
		return ""
	case cause == allowlists.NotTLS, cause == allowlists.SNIMissing, cause == allowlists.ECHNotAllowed:
		return "no TLS that shows its name (" + cause.String() + "); a line needs tls: off"
	default:
		return ""
	}
}

// usualTypes are the types of question that every allowed name is answered for.
var usualTypes = []string{"A", "AAAA", "CNAME", "HTTPS", "SVCB"}

// unwanted says why a refusal is none that a line should mend; "" if one might.
func unwanted(d allowlists.Decision) string {
	if d.Quiet {
		return "it is on a quiet list (" + d.QuietBy.Where() + ")"
	}
	switch d.Reason {
	case allowlists.NotInAllowlist, allowlists.PortNotAllowed:
		return ""
	case allowlists.DeniedByRule:
		return "a deny rule has it (" + d.Rule.Where() + ")"
	case allowlists.ExpiredRule:
		return "its rule has expired (" + d.Rule.Where() + ")"
	case allowlists.DNSTypeBlocked:
		return "a question of a type that no rule lists"
	case allowlists.SpecialAddress:
		if d.Rule != nil {
			return "its address is special; resolves_to of its rule opens that (" + d.Rule.Where() + ")"
		}
		return "its address is special"
	default:
		return d.Reason.String()
	}
}

// targetOf is what an event wanted, for people.
func targetOf(e *alerting.Event) string {
	switch {
	case isQuestion(e) && (e.Host == "" || !slices.Contains(usualTypes, e.Type)):
		return e.Name + " " + e.Type
	case isQuestion(e):
		return e.Host
	case e.Host != "":
		return e.Host + ":" + portText(e.Port)
	default:
		return netip.AddrPortFrom(e.IP, e.Port).String()
	}
}
