package alerting

import (
	"fmt"
	"time"

	"sallyport/allowlists"
)

// direct raises direct-ip, a connection to an address that no answer of ours
// gave this pool, and in its place denied-then-direct where a name was refused
// to the same client shortly before.
//
// State: the refused names of each client, see refusedNames, and the answers of
// each pool, see pastAnswers.
type direct struct {
	window time.Duration // from the refused name to the connection
	names  *refusedNames
	past   pastAnswers
}

func (d *direct) observe(e *Event, now time.Time) []finding {
	d.past.observe(e)
	if e.Kind != KindConn || !decides(e) {
		return nil
	}
	if f, ok := d.afterRefusal(e, now); ok {
		return []finding{f}
	}
	cause := e.Cause()
	if cause != allowlists.AddressLiteral && cause != allowlists.AddressMismatch || len(e.Names) > 0 {
		return nil
	}
	f := found(e, AlertDirectIP, High)
	f.subject = directSubject(e)
	f.summary = fmt.Sprintf("%s connected to %s, an address that no answer gave %s", f.asker, destination("", e.IP, e.Port), poolName(f.pool))
	f.suggest = allowLine(e)
	if a, ok := d.past.last(e.Pool, e.IP); ok && a.time.Before(e.Time) {
		f.evidence = []string{a.id, e.ID}
		f.summary = fmt.Sprintf("%s connected to %s, which %s was given for %s %s before: that answer is no longer good", f.asker,
			destination("", e.IP, e.Port), poolName(f.pool), a.host, e.Time.Sub(a.time).Round(time.Second))
	}
	return []finding{f}
}

// expire forgets old answers; names belongs to the correlator.
func (d *direct) expire(now time.Time) { d.past.expire(now) }

// directSubject is the address, so that all ports of it are one group.
func directSubject(e *Event) string {
	if e.IP.IsValid() {
		return e.IP.String()
	}
	return hostOf(e)
}

// afterRefusal finds the refused name that a connection made straight to an
// address follows: the one it names itself, however long ago, else the last
// within the window.
func (d *direct) afterRefusal(e *Event, now time.Time) (finding, bool) {
	if !e.IP.IsValid() || !straight(e) {
		return finding{}, false
	}
	name, ok := d.names.find(ofClient(e), now, e.SNI, e.Host)
	how := "and names it"
	if !ok && tried(e) {
		name, ok = d.names.last(ofClient(e), now, d.window)
		how = fmt.Sprintf("%s later", now.Sub(name.time).Round(100*time.Millisecond))
	}
	if !ok {
		return finding{}, false
	}
	f := found(e, AlertDeniedThenDirect, Critical)
	f.host = name.host
	f.subject = f.client.String()
	f.evidence = []string{name.id, e.ID}
	did := "connected to"
	if isPacket(e) {
		did = "sent " + e.Via + " to"
	}
	f.summary = fmt.Sprintf("%s was refused to %s, which then %s %s directly, %s", name.host, f.asker, did, destination("", e.IP, e.Port), how)
	return f, true
}

// straight reports whether a connection was made to an address rather than, in
// explicit mode, asked for by name.
func straight(e *Event) bool { return literal(e) || e.Via != "connect" && e.Via != "http" }

// tried reports whether the address is one that no answer and no rule gave,
// and one where a refused name might lie: not this machine.
func tried(e *Event) bool {
	switch e.Cause() {
	case allowlists.AddressLiteral, allowlists.AddressMismatch, allowlists.ProtocolBlocked:
		return len(e.Names) == 0
	case allowlists.SpecialAddress:
		return len(e.Names) == 0 && !e.IP.IsLoopback() && !e.IP.IsUnspecified() && !staysOnLink(e.IP) && !e.IP.IsLinkLocalUnicast()
	default:
		return false
	}
}
