package report

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// refusalKey tells refusals apart.
type refusalKey struct {
	rowKey
	kind, qtype, rule string
	reason            allowlists.Reason
	quiet             bool
}

// refuse counts an event that was refused, or would be, in a table of such.
func (g *gather) refuse(e *alerting.Event, table map[refusalKey]*Refusal) {
	key := refusalKey{rowKey: keyOf(e), kind: e.Kind, reason: e.Cause(), rule: e.Rule, quiet: e.Quiet}
	if e.Kind == alerting.KindDNS {
		if key.rowKey = (rowKey{pool: e.Pool, host: e.Host}); key.host == "" {
			key.host = e.Name
		}
		if e.Type != "A" && e.Type != "AAAA" {
			key.qtype = e.Type
		}
	}
	r := table[key]
	if r == nil && len(g.refusals)+len(g.would) >= maxRows {
		g.report.MoreRefusals++
		return
	}
	if r == nil {
		r = &Refusal{
			Pool: e.Pool, Kind: e.Kind, Host: key.host, Type: key.qtype, IP: key.ip, Port: key.port, Via: key.via,
			Reason: key.reason.String(), Rule: e.Rule, Quiet: e.Quiet, First: e.Time, Last: e.Time, ID: e.ID, AllowBy: alerting.AllowLine(e),
		}
		table[key] = r
	}
	r.Count++
	if e.Time.Before(r.First) {
		r.First = e.Time
	}
	if !e.Time.Before(r.Last) {
		r.Last, r.ID = e.Time, e.ID
	}
}

// sortedRefusals lists a table: the loud ones first, then the most frequent.
func sortedRefusals(table map[refusalKey]*Refusal) []Refusal {
	list := make([]Refusal, 0, len(table))
	for r := range maps.Values(table) {
		r.Explain = explainCommand(r.ID)
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), compareBool(a.Quiet, b.Quiet), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Host, b.Host),
			a.IP.Compare(b.IP), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Via, b.Via), cmp.Compare(a.Type, b.Type),
			cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Rule, b.Rule))
	})
	return list
}

// compareBool puts false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// severities are those of alerts, the gravest first.
var severities = []string{"critical", "high", "medium", "info"}

// An alertTable holds the alerts of each severity by id.
type alertTable struct {
	rows   map[string]map[string]*Alert // by severity, then id
	counts map[string]int               // by severity, of groups that have a row
	more   map[string]int               // by severity: lines without room
}

func newAlertTable() alertTable {
	t := alertTable{rows: make(map[string]map[string]*Alert), counts: make(map[string]int), more: make(map[string]int)}
	for _, s := range severities {
		t.rows[s], t.counts[s] = make(map[string]*Alert), 0
	}
	return t
}

// alert takes the line of an alert: the latest one of a group stands for it.
func (g *gather) alert(e *alerting.Event) {
	severity := e.Severity
	if !slices.Contains(severities, severity) {
		severity = "info" // forged, or of a later version
	}
	a := g.alerts.take(e.ID, severity)
	if a == nil {
		return
	}
	if a.ID == "" {
		g.time.add(e.Time, Slot{Alerts: 1})
	}
	*a = Alert{
		ID: e.ID, Alert: e.Alert, Severity: severity, Pool: e.Pool, Client: e.Client, Summary: e.Summary, Count: e.Count, First: e.First, Last: e.Last,
		Evidence: e.Evidence, AllowBy: e.Suggest, Closed: e.Closed, Host: e.Host, IP: e.IP, Port: e.Port,
	}
	if len(e.Evidence) > 0 {
		a.Explain = explainCommand(e.Evidence[len(e.Evidence)-1])
	}
}

// take finds the row of a group, which may have become graver; nil if there is
// no room. A new row has no id.
func (t *alertTable) take(id, severity string) *Alert {
	for _, s := range severities {
		a := t.rows[s][id]
		if a == nil {
			continue
		}
		if s != severity {
			delete(t.rows[s], id)
			t.counts[s]--
			t.counts[severity]++
			t.rows[severity][id] = a
		}
		return a
	}
	if len(t.rows[severity]) >= maxAlerts {
		t.more[severity]++
		return nil
	}
	t.counts[severity]++
	a := new(Alert)
	t.rows[severity][id] = a
	return a
}

// list gives the alerts, the gravest first, and how many lines had no room.
func (t *alertTable) list() ([]Alert, int) {
	list, more := []Alert{}, 0
	for _, s := range severities {
		of := make([]Alert, 0, len(t.rows[s]))
		for a := range maps.Values(t.rows[s]) {
			if a.Evidence == nil {
				a.Evidence = []string{}
			}
			of = append(of, *a)
		}
		slices.SortFunc(of, func(a, b Alert) int { return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.ID, b.ID)) })
		list, more = append(list, of...), more+t.more[s]
	}
	return list, more
}

// warn notes at refusals which grave alert spoke of them, and takes away the
// line that would allow them, also from lesser alerts about the same: nobody is
// to copy that without thinking.
func (r *Report) warn() {
	type about struct {
		pool, host string
		ip         netip.Addr
	}
	targetOf := func(a *Alert) about {
		if a.Host != "" {
			return about{pool: a.Pool, host: a.Host}
		}
		return about{pool: a.Pool, ip: a.IP}
	}
	byID, byTarget := make(map[string]string), make(map[about]string)
	for i := range slices.Backward(r.Alerts) { // the gravest last, so that it stays
		a := &r.Alerts[i]
		if a.Severity != "critical" && a.Severity != "high" {
			continue
		}
		for _, id := range a.Evidence {
			byID[id] = a.Alert
		}
		if to := targetOf(a); to != (about{pool: a.Pool}) {
			byTarget[to] = a.Alert
		}
	}
	lists := [][]Refusal{r.Refusals, r.WouldRefuse}
	for _, list := range lists { // a name in the evidence is spoken of as a whole
		for i := range list {
			if f := &list[i]; byID[f.ID] != "" && f.Host != "" && byTarget[about{pool: f.Pool, host: f.Host}] == "" {
				byTarget[about{pool: f.Pool, host: f.Host}] = byID[f.ID]
			}
		}
	}
	for _, list := range lists {
		for i := range list {
			f := &list[i]
			if f.Alert = cmp.Or(byID[f.ID], byTarget[about{f.Pool, f.Host, f.IP}]); f.Alert != "" {
				f.AllowBy = ""
			}
		}
	}
	for i := range r.Alerts {
		a := &r.Alerts[i]
		spoken := func(id string) bool { return byID[id] != "" }
		if byTarget[targetOf(a)] != "" || slices.ContainsFunc(a.Evidence, spoken) {
			a.AllowBy = ""
		}
	}
}

// target is what a refusal, or a connection, was to, for people.
func target(host string, ip netip.Addr, port uint16, via, qtype string) string {
	text := host
	if text == "" && ip.IsValid() {
		text = ip.String()
	}
	if text == "" {
		text = "(no destination)"
	}
	if port != 0 {
		text = joinPort(text, port)
	}
	for _, extra := range []string{via, qtype} {
		if extra != "" {
			text += " " + extra
		}
	}
	return text
}
