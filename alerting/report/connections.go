package report

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// rowKey tells destinations apart.
type rowKey struct {
	pool, host, via string
	ip              netip.Addr
	port            uint16
}

// opened is a connection whose end is awaited.
type opened struct {
	row            *Destination // nil if its destination has none
	cause          allowlists.Reason
	audit          bool
	sent, received int64 // so far
}

// connection takes a conn event.
func (g *gather) connection(e *alerting.Event) {
	switch e.Phase {
	case alerting.PhaseOpen, alerting.PhaseRefused:
		g.verdict(e)
	case alerting.PhaseProgress:
		if o := g.open[e.ID]; o != nil {
			o.sent, o.received = e.Sent, e.Received
			o.last(e)
		}
	case alerting.PhaseClose:
		g.closed(e)
	}
}

// verdict takes the line that every connection has once.
func (g *gather) verdict(e *alerting.Event) {
	row := g.row(e)
	one := Traffic{Connections: 1}
	slot := Slot{}
	switch {
	case e.Refused():
		one.Refused, slot.Refused = 1, 1
		g.refuse(e, g.refusals)
	case e.Reason == allowlists.AllowedByAudit:
		one.Allowed, one.Audit, slot.Audit = 1, 1, 1
		g.refuse(e, g.would)
	default:
		one.Allowed, slot.Allowed = 1, 1
		if e.Reason.Failure() {
			one.Failed = 1
		}
	}
	g.time.add(e.Time, slot)
	g.count(row, one)
	if row != nil {
		row.see(e)
	}
	switch {
	case e.Phase != alerting.PhaseOpen:
	case len(g.open) < maxOpen:
		g.open[e.ID] = &opened{row: row, cause: e.Cause(), audit: one.Audit > 0}
	default:
		g.untold++
	}
}

// closed takes the end of a connection. One that its first bytes, or a reload,
// ended says so here.
func (g *gather) closed(e *alerting.Event) {
	o := g.open[e.ID]
	delete(g.open, e.ID)
	if o == nil { // opened before the period, or beyond maxOpen
		o = &opened{row: g.rows[keyOf(e)], cause: e.Cause()}
	}
	end := Traffic{Sent: e.Sent, Received: e.Received}
	switch {
	case e.Refused():
		g.refuse(e, g.refusals)
		if !endsWhatWasAllowed(e.Reason) {
			end.Refused, end.Allowed = 1, -1
			if o.audit {
				end.Audit = -1
			}
			g.time.add(e.Time, Slot{Refused: 1})
		}
	case e.Reason == allowlists.AllowedByAudit && (!o.audit || e.Would != o.cause):
		g.refuse(e, g.would)
		if !o.audit {
			end.Audit = 1
		}
	case e.Reason.Failure() && !o.cause.Failure():
		end.Failed = 1
	}
	g.count(o.row, end)
	o.last(e)
}

// endsWhatWasAllowed reports whether a refusal at the end of a connection says
// nothing about whether it should have begun.
func endsWhatWasAllowed(r allowlists.Reason) bool {
	switch r {
	case allowlists.PolicyChanged, allowlists.UploadLimit, allowlists.LimitExceeded, allowlists.ShuttingDown, allowlists.LogDegraded:
		return true
	}
	return false
}

// endOpen counts what was carried by connections that have no end in the log.
func (g *gather) endOpen() {
	for _, o := range g.open {
		g.count(o.row, Traffic{Sent: o.sent, Received: o.received})
	}
}

// last notes the latest line of a connection.
func (o *opened) last(e *alerting.Event) {
	if o.row != nil {
		o.row.see(e)
	}
}

// keyOf is what an event's destination is told apart by.
func keyOf(e *alerting.Event) rowKey {
	key := rowKey{pool: e.Pool, host: e.Host, port: e.Port}
	if key.host == "" {
		key.ip = e.IP
	}
	if packetVia(e.Via) {
		key.via = e.Via
	}
	return key
}

// packetVia reports whether it is a way of packets that no listener took.
func packetVia(via string) bool { return via == "udp" || via == "icmp" || via == "other" }

// row finds the row of an event's destination; nil if there is no room.
func (g *gather) row(e *alerting.Event) *Destination {
	key := keyOf(e)
	row := g.rows[key]
	if row == nil && len(g.rows) < maxRows {
		row = &Destination{Pool: key.pool, Host: key.host, IP: key.ip, Port: key.port, Via: key.via, First: e.Time}
		g.rows[key] = row
	}
	return row
}

// see notes when, and by which rule.
func (d *Destination) see(e *alerting.Event) {
	if e.Time.Before(d.First) {
		d.First = e.Time
	}
	if e.Time.After(d.Last) {
		d.Last = e.Time
	}
	if e.Rule != "" && len(d.Rules) < maxRules && !slices.Contains(d.Rules, e.Rule) {
		d.Rules = append(d.Rules, e.Rule)
	}
}

// count adds to the totals, and to a row or what has none.
func (g *gather) count(row *Destination, t Traffic) {
	g.report.Totals.add(t)
	switch {
	case row != nil:
		row.add(t)
	case g.report.More == nil:
		g.report.More = &t
	default:
		g.report.More.add(t)
	}
}

func (t *Traffic) add(other Traffic) {
	t.Connections += other.Connections
	t.Allowed += other.Allowed
	t.Audit += other.Audit
	t.Failed += other.Failed
	t.Refused += other.Refused
	t.Sent += other.Sent
	t.Received += other.Received
}

// destinations lists the rows: by pool, the most connections first.
func (g *gather) destinations() []Destination {
	list := make([]Destination, 0, len(g.rows))
	for row := range maps.Values(g.rows) {
		list = append(list, *row)
	}
	slices.SortFunc(list, func(a, b Destination) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(b.Connections, a.Connections), cmp.Compare(a.Host, b.Host),
			a.IP.Compare(b.IP), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Via, b.Via))
	})
	return list
}

// sortedKeys lists the keys of a set, sorted.
func sortedKeys(set map[string]struct{}) []string {
	keys := slices.AppendSeq(make([]string, 0, len(set)), maps.Keys(set))
	slices.Sort(keys)
	return keys
}
