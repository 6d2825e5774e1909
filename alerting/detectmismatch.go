package alerting

import (
	"fmt"
	"time"

	"sallyport/allowlists"
)

// sniMismatch raises sni-mismatch: a connection claims another name, in TLS or
// in Host, than the one it was allowed for. One group per pool and allowed
// host, so that a job cannot make groups by claiming. It keeps no state.
type sniMismatch struct{}

func (sniMismatch) observe(e *Event, _ time.Time) []finding {
	cause := e.Cause()
	if !decides(e) || cause != allowlists.SNIMismatch && cause != allowlists.HostMismatch {
		return nil
	}
	f := found(e, AlertSNIMismatch, High)
	f.subject = f.host
	where, claim := "TLS names", e.SNI
	if cause == allowlists.HostMismatch {
		where, claim = "the request's Host names", ""
	}
	if claim == "" {
		claim = "another"
	}
	claim, _ = cut(claim, 253)
	f.summary = fmt.Sprintf("%s asked for %s, but %s %s", f.asker, destination(f.host, f.ip, f.port), where, claim)
	return []finding{f}
}

func (sniMismatch) expire(time.Time) {}
