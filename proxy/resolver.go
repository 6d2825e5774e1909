package proxy

import (
	"context"
	"errors"
	"net/netip"

	"sallyport/allowlists"
)

// A Resolver gives the addresses of names, by the same rules as for a client
// that asks itself. It must be safe for concurrent use.
type Resolver interface {
	// Lookup finds the addresses of h for sub. The error is a
	// *allowlists.DeniedError with a refusal, or with no-such-host,
	// upstream-failed or timed-out. The answer's IDs hold beside an error, too.
	Lookup(ctx context.Context, sub allowlists.Subject, h allowlists.Host) (allowlists.Answer, error)
	// Names lists the names that the pool of sub was answered with for addr,
	// newest first, as long as those answers are good.
	Names(sub allowlists.Subject, addr netip.Addr) []string
	// Answered reports whether the pool of sub was answered with addr for h,
	// and that answer is good.
	Answered(sub allowlists.Subject, h allowlists.Host, addr netip.Addr) bool
}

// asDenial gives the denial inside err. An error without one is a failure of
// the world: timed-out if it says so, else upstream-failed, by rule.
func asDenial(err error, rule *allowlists.Rule) *allowlists.DeniedError {
	var denial *allowlists.DeniedError
	if errors.As(err, &denial) {
		return denial
	}
	d := allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.UpstreamFailed, Rule: rule}
	if isTimeout(err) {
		d.Reason = allowlists.TimedOut
	}
	return &allowlists.DeniedError{Decision: d, Err: err}
}

// isTimeout reports whether err is a deadline that passed.
func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// refusal makes an error of a decision, which err caused; err may be nil.
func refusal(d allowlists.Decision, err error) *allowlists.DeniedError {
	return &allowlists.DeniedError{Decision: d, Err: err}
}
