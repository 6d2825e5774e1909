package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// withPool puts a column for the pool into a table where there are several.
func (l layout) withPool(t *table, pools []string) {
	if len(l.Scope.Pools) < 2 {
		return
	}
	t.Head = slices.Insert(slices.Clone(t.Head), 0, "Pool")
	for i := range t.Rows {
		pool := code(pools[i])
		if pools[i] == "" {
			pool = ours("none")
		}
		t.Rows[i] = slices.Insert(t.Rows[i], 0, pool)
	}
}

func (l layout) refusals(id, title, none string, list []Refusal) table {
	t := table{ID: id, Title: title, None: none, Head: []string{"Destination", "Why", "Times", "When (UTC)", "Allow by", "Its story"}}
	var pools []string
	for i := range list[:min(len(list), l.rows)] {
		r := &list[i]
		what := code(target(r.Host, r.IP, r.Port, r.Via, r.Type))
		if r.Kind == "dns" {
			what = append(what, part{Text: "DNS question"})
		}
		why := ours("%s", r.Reason)
		if r.Rule != "" {
			why = append(why, part{r.Rule, true})
		}
		if r.Alert != "" {
			why = append(why, part{Text: "alert"}, part{r.Alert, true})
		}
		if r.Quiet {
			why = append(why, part{Text: "on a quiet list"})
		}
		story := code(r.Explain)
		if story == nil {
			story = ours("-")
		}
		allow := code(r.AllowBy)
		if allow == nil {
			allow = ours("-")
		}
		t.Rows = append(t.Rows, []cell{what, why, ours("%d", r.Count), span(r.First, r.Last), allow, story})
		pools = append(pools, r.Pool)
	}
	if more := list[len(t.Rows):]; len(more) > 0 {
		events := 0
		for i := range more {
			events += more[i].Count
		}
		t.More = fmt.Sprintf("%d of %s are shown; %s more with %s.", len(t.Rows), count(len(list), "row"), count(len(more), "row"), count(events, "event"))
	}
	l.withPool(&t, pools)
	return t
}

func (l layout) alerts() table {
	t := table{ID: "alerts", Title: "Alerts", None: "No alerts.", Head: []string{"Severity", "What", "Times", "When (UTC)", "Evidence", "Allow by"}}
	var pools []string
	for i := range l.Alerts[:min(len(l.Alerts), l.rows)] {
		a := &l.Alerts[i]
		what := code(a.Alert, a.Summary, a.Closed)
		evidence := code(first(a.Evidence, 3)...)
		if more := len(a.Evidence) - 3; more > 0 {
			evidence = append(evidence, part{Text: fmt.Sprintf("and %d more", more)})
		}
		if a.Explain != "" {
			evidence = append(evidence, part{a.Explain, true})
		}
		allow := code(a.AllowBy)
		if allow == nil {
			allow = ours("-")
		}
		t.Rows = append(t.Rows, []cell{ours("%s", a.Severity), what, ours("%d", a.Count), span(a.First, a.Last), evidence, allow})
		pools = append(pools, a.Pool)
	}
	if more := len(l.Alerts) - len(t.Rows); more > 0 {
		t.More = fmt.Sprintf("%d of %s are shown, the gravest first.", len(t.Rows), count(len(l.Alerts), "alert"))
	}
	if l.MoreAlerts > 0 {
		t.More = joined(t.More, "More alerts than are remembered: "+count(l.MoreAlerts, "line")+" of such are not in this table.")
	}
	l.withPool(&t, pools)
	return t
}

func (l layout) destinations() table {
	t := table{ID: "destinations", Title: "Connections by destination", None: "No connections.",
		Head: []string{"Destination", "Connections", "Allowed", "Refused", "Sent", "Received", "When (UTC)", "Rule"}}
	var pools []string
	for i := range l.Destinations[:min(len(l.Destinations), l.rows)] {
		d := &l.Destinations[i]
		allowed := ours("%d", d.Allowed)
		if d.Audit > 0 {
			allowed = append(allowed, part{Text: fmt.Sprintf("%d only in audit", d.Audit)})
		}
		if d.Failed > 0 {
			allowed = append(allowed, part{Text: fmt.Sprintf("%d failed", d.Failed)})
		}
		rules := code(d.Rules...)
		if rules == nil {
			rules = ours("-")
		}
		t.Rows = append(t.Rows, []cell{code(target(d.Host, d.IP, d.Port, d.Via, "")), ours("%d", d.Connections), allowed, ours("%d", d.Refused),
			ours("%s", bytesText(d.Sent)), ours("%s", bytesText(d.Received)), span(d.First, d.Last), rules})
		pools = append(pools, d.Pool)
	}
	if more := l.Destinations[len(t.Rows):]; len(more) > 0 {
		var rest Traffic
		for i := range more {
			rest.add(more[i].Traffic)
		}
		t.More = fmt.Sprintf("%d of %s are shown; the others: %s.", len(t.Rows), count(len(l.Destinations), "destination"), rest.text())
	}
	if l.More != nil {
		t.More = joined(t.More, fmt.Sprintf("Beyond the first %d destinations, which is all that have rows: %s.", maxRows, l.More.text()))
	}
	l.withPool(&t, pools)
	return t
}

// text is traffic in a few words.
func (t *Traffic) text() string {
	return fmt.Sprintf("%s, %d refused, %s sent, %s received", count(t.Connections, "connection"), t.Refused, bytesText(t.Sent), bytesText(t.Received))
}

func (l layout) system() table {
	t := table{ID: "system", Title: "What happened to Sallyport", None: "Nothing is logged.", Head: []string{"When (UTC)", "Event", "Details"}}
	for i := range l.System[:min(len(l.System), l.rows)] {
		s := &l.System[i]
		details := code(detailTexts(s)...)
		if details == nil {
			details = ours("-")
		}
		t.Rows = append(t.Rows, []cell{ours("%s", clock(s.Time)), code(s.Event), details})
	}
	if more := len(l.System) - len(t.Rows) + l.MoreSystem; more > 0 {
		t.More = fmt.Sprintf("%d of %s are shown.", len(t.Rows), count(len(t.Rows)+more, "event"))
	}
	return t
}

// maxDetails bounds the details of a system event that are shown.
const maxDetails = 12

// detailTexts are the details of an event of whatever name, in the order of
// their names.
func detailTexts(s *System) []string {
	var texts []string
	if s.Pool != "" {
		texts = append(texts, "pool: "+s.Pool)
	}
	if s.Client.IsValid() {
		texts = append(texts, "client: "+s.Client.String())
	}
	for _, key := range slices.Sorted(maps.Keys(s.Details)) {
		if len(texts) == maxDetails {
			return append(texts, fmt.Sprintf("and %d more", len(s.Details)-maxDetails))
		}
		text := fmt.Sprint(s.Details[key])
		switch value := s.Details[key].(type) {
		case []string:
			text = strings.Join(first(value, 10), ", ")
		case float64:
			text = fmt.Sprintf("%.12g", value)
		}
		if text != "" {
			texts = append(texts, key+": "+text)
		}
	}
	return texts
}

func (l layout) unused(n int, u *Unused) table {
	t := table{ID: fmt.Sprintf("unused-%d", n), Title: "Rules that nothing here used, of pool", Of: u.Pool, Head: []string{"Rule", "Where", "Owner"}}
	switch {
	case u.Silent:
		t.None = "No event of this report is of this pool: nothing can be said of its rules."
		return t
	case u.Own == 0:
		t.Note = "The pool has no rules of its own."
	case len(u.Rules) == 0:
		t.Note = fmt.Sprintf("Of its %s each was used.", count(u.Own, "own rule"))
	}
	for i := range u.Rules[:min(len(u.Rules), l.rows)] {
		r := &u.Rules[i]
		owner := code(r.Owner)
		if owner == nil {
			owner = ours("-")
		}
		t.Rows = append(t.Rows, []cell{code(r.Rule), code(r.Where), owner})
	}
	if more := len(u.Rules) - len(t.Rows) + u.More; more > 0 {
		t.More = fmt.Sprintf("%d of %d unused rules are shown.", len(t.Rows), len(t.Rows)+more)
	}
	for _, p := range u.Presets {
		if len(t.Rows) >= 2*l.rows {
			break
		}
		t.Rows = append(t.Rows, []cell{append(ours("preset"), part{p.Preset, true}), ours("%d of %s used", p.Used, count(p.Rules, "rule")), ours("-")})
	}
	return t
}
