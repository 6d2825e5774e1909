package alerting

import (
	"fmt"
	"time"
)

// addressMismatch raises address-mismatch: a redirected connection claims an
// allowed name at an address that the name never had here; our own resolution
// was dialled in its place. One group per pool and host.
//
// State: until when it is held back. After a start without a kept book clients
// may still use answers that this daemon never gave.
type addressMismatch struct {
	hold  time.Duration
	until time.Time
}

func (d *addressMismatch) observe(e *Event, _ time.Time) []finding {
	if e.Kind == KindSystem && e.Event == SystemStarted && e.Details["book_kept"] != true {
		d.until = e.Time.Add(d.hold)
	}
	// The name had the address after all if our own resolution gave it, too.
	if e.Kind != KindConn || !decides(e) || !e.Redialled || e.Original == e.IP || e.Time.Before(d.until) {
		return nil
	}
	f := found(e, AlertAddressMismatch, Medium)
	f.subject = f.host
	f.ip = e.Original
	f.summary = fmt.Sprintf("%s claimed %s at %s, an address that the name never had in %s", f.asker, destination(f.host, f.ip, f.port), f.ip, poolName(f.pool))
	return []finding{f}
}

func (*addressMismatch) expire(time.Time) {}
