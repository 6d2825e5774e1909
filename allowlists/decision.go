package allowlists

import "net/netip"

// A Verdict is what becomes of a question or a connection. The zero Verdict
// denies, so that a forgotten case is a refusal.
type Verdict uint8

// The verdicts.
const (
	Deny Verdict = iota
	Allow
)

// String gives the word used in events.
func (v Verdict) String() string {
	if v == Allow {
		return "allow"
	}
	return "deny"
}

// A Decision is a verdict with its cause. The zero Decision denies.
type Decision struct {
	Verdict Verdict
	Reason  Reason
	// Would is enforce's reason where the pool is in audit and Reason is
	// allowed-by-audit; otherwise it is zero and means nothing.
	Would Reason
	// Rule is the rule that allowed or refused, nil where none did. Rules are
	// immutable and belong to their Policy.
	Rule *Rule
	// Quiet is set on a refusal that the pool's quiet list, or the built-in one,
	// covers; QuietBy is its line there.
	Quiet   bool
	QuietBy *Rule
}

// Allowed reports whether the decision lets the traffic through.
func (d Decision) Allowed() bool { return d.Verdict == Allow }

// Cause is the reason that enforce gives: Would in audit, else Reason.
func (d Decision) Cause() Reason {
	if d.Reason == AllowedByAudit {
		return d.Would
	}
	return d.Reason
}

// A DeniedError is a Decision against, as an error. It also carries failures
// of the world (Decision.Reason.Failure), whose verdict is Allow.
type DeniedError struct {
	Decision Decision
	// Addr is the address that was judged, where one was.
	Addr netip.Addr
	// Err is the failure underneath; nil for a plain refusal.
	Err error
}

// Error gives the reason, and the cause where there is one.
func (e *DeniedError) Error() string {
	text := e.Decision.Reason.String()
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap gives the failure underneath.
func (e *DeniedError) Unwrap() error { return e.Err }

// An Answer is what the resolver gave for a host name. It lives here because
// it travels between dnsfilter and proxy, which do not know each other.
type Answer struct {
	// IDs are the ids of the dns events of the questions asked: AAAA, then A.
	IDs []string
	// Addrs are the judged addresses, unmapped, in the order to try them.
	Addrs []netip.Addr
	// Removed are the addresses that the policy took out of the answer.
	Removed []netip.Addr
}
