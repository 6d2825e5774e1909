package alerting

import (
	"fmt"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// firstSeen raises first-seen: a connection that was allowed and carried bytes,
// to a destination that is new for this pool. One group per pool and
// destination. Its state is the baseline; without a store there is none.
type firstSeen struct {
	baseline *baseline // nil: silent
	// suspects are the clients that teach nothing.
	suspects *suspects
}

func (d *firstSeen) observe(e *Event, now time.Time) []finding {
	if d.baseline == nil || !carried(e) {
		return nil
	}
	host := hostOf(e)
	to := destination(host, e.IP, e.Port)
	if !d.baseline.visit(e, to, !d.suspects.has(ofClient(e)), now) {
		return nil
	}
	f := found(e, AlertFirstSeen, Medium)
	f.subject = to
	f.summary = fmt.Sprintf("%s reached %s, which is allowed but new for %s", f.asker, to, poolName(f.pool))
	return []finding{f}
}

func (d *firstSeen) expire(now time.Time) {
	if d.baseline != nil {
		d.baseline.expire(now)
	}
}

// carried reports whether a conn event is the first that shows bytes of a job
// in an allowed connection: a tunnel that never sends a byte raises nothing.
// A tunnel that lasts may show it several times.
func carried(e *Event) bool {
	if e.Kind != KindConn || e.Refused() && e.Reason != allowlists.PolicyChanged || e.Reason.Failure() {
		return false
	}
	// A plain HTTP request is itself what the job sent; Sent counts its body.
	return (e.Phase == PhaseProgress || e.Phase == PhaseClose) && (e.Sent > 0 || e.Via == proxy.ViaHTTP)
}
