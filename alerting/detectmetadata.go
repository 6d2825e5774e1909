package alerting

import (
	"fmt"
	"time"

	"sallyport/allowlists"
)

// metadataAccess raises metadata-access: an attempt at the address of a cloud's
// metadata service, which hands out credentials. One group per pool and day.
// It keeps no state of its own.
type metadataAccess struct {
	window time.Duration // how long before a refused name counts
	names  *refusedNames
}

func (d *metadataAccess) observe(e *Event, now time.Time) []finding {
	if e.Kind != KindConn || !decides(e) || !allowlists.IsMetadata(e.IP) || e.Reason == allowlists.Allowed {
		return nil
	}
	f := found(e, AlertMetadataAccess, High)
	f.subject = e.Time.UTC().Format(time.DateOnly)
	f.summary = fmt.Sprintf("%s tried the cloud metadata address %s in %s", f.asker, destination("", e.IP, e.Port), poolName(f.pool))
	if e.Via == "http" && e.Method != "" && e.Method != "CONNECT" {
		f.severity = Critical
		f.summary += ", with a request"
	}
	if name, ok := d.names.last(ofClient(e), now, d.window); ok {
		f.severity = Critical
		f.evidence = []string{name.id, e.ID}
		f.summary += fmt.Sprintf(", after %s was refused", name.host)
	}
	return []finding{f}
}

func (d *metadataAccess) expire(time.Time) {} // names belongs to the correlator
