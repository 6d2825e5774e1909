package replay

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// MaxDestinations bounds the rows of a table; what comes after them is one row a
// pool.
const MaxDestinations = 10000

// Changes are the decisions that would be others, by pool and destination.
type Changes struct {
	Decisions    int      `json:"decisions"`
	Destinations []Change `json:"destinations"`
	// Folded is set if there were more than MaxDestinations.
	Folded bool `json:"folded,omitempty"`
}

// A Change is a destination that a pool would reach, or not, other than before.
// Host may hold anything: it is from the job.
type Change struct {
	Pool    string     `json:"pool"`
	Kind    string     `json:"kind"`             // "dns" or "conn"
	Host    string     `json:"host,omitempty"`   // "" for an address, and for others
	IP      netip.Addr `json:"ip,omitzero"`      // where there is no host
	Port    uint16     `json:"port,omitempty"`   // of a connection
	Others  bool       `json:"others,omitempty"` // all that found no room in the table
	Count   int        `json:"count"`
	First   time.Time  `json:"first"`
	Last    time.Time  `json:"last"`
	Reason  string     `json:"reason"`             // now
	Rule    string     `json:"rule,omitempty"`     // that decides now, as file:line
	Was     string     `json:"was"`                // the reason before
	WasRule string     `json:"was_rule,omitempty"` // that decided before
	Event   string     `json:"event"`              // id of the first
}

// done is what became of an event before.
type done struct {
	allowed bool
	reason  allowlists.Reason
	rule    string
}

// A changeKey tells rows apart.
type changeKey struct {
	pool, host, rule string
	ip               netip.Addr
	port             uint16
	dns              bool
	reason           allowlists.Reason
}

// A table gathers changes.
type table struct {
	rows   map[changeKey]*Change
	others map[string]*Change // by pool
	total  int
}

func newTable() *table {
	return &table{rows: make(map[changeKey]*Change), others: make(map[string]*Change)}
}

// add counts an event of which something else would become.
func (t *table) add(e *alerting.Event, was done, now allowlists.Decision) {
	t.total++
	key := changeKey{pool: e.Pool, host: e.Host, rule: now.Rule.Where(), port: e.Port, dns: e.Kind == alerting.KindDNS, reason: now.Reason}
	switch {
	case key.dns && e.Host == "":
		key.host = e.Name
	case key.host == "":
		key.ip = e.IP
	}
	row := t.rows[key]
	switch {
	case row != nil:
	case len(t.rows) < MaxDestinations:
		row = &Change{
			Pool: e.Pool, Kind: e.Kind, Host: key.host, IP: key.ip, Port: e.Port, First: e.Time, Event: e.ID,
			Reason: now.Reason.String(), Rule: key.rule, Was: was.reason.String(), WasRule: was.rule,
		}
		t.rows[key] = row
	default:
		if row = t.others[e.Pool]; row == nil {
			row = &Change{Pool: e.Pool, Kind: e.Kind, Others: true, First: e.Time, Event: e.ID, Reason: now.Reason.String(), Was: was.reason.String()}
			t.others[e.Pool] = row
		}
	}
	row.Count++
	if e.Time.Before(row.First) {
		row.First = e.Time
	}
	if e.Time.After(row.Last) {
		row.Last = e.Time
	}
}

// changes lists the rows: by pool, the most frequent first, the others last.
func (t *table) changes() Changes {
	c := Changes{Decisions: t.total, Folded: len(t.others) > 0, Destinations: []Change{}}
	for _, row := range slices.Collect(maps.Values(t.rows)) {
		c.Destinations = append(c.Destinations, *row)
	}
	slices.SortFunc(c.Destinations, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Host, b.Host), a.IP.Compare(b.IP),
			cmp.Compare(a.Port, b.Port), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Rule, b.Rule))
	})
	for _, pool := range slices.Sorted(maps.Keys(t.others)) {
		c.Destinations = append(c.Destinations, *t.others[pool])
	}
	return c
}
