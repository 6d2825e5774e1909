package report

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A view is a report laid out for people: what Markdown and HTML have in common.
type view struct {
	Title   string
	About   []fact // what it is about
	Verdict string // one sentence, all of it ours
	Totals  []fact
	Tables  []table
	Lacks   []Lack
}

// A fact is a label, which is ours, and a value, which may be a job's.
type fact struct {
	Label string
	Value string
	Ours  bool // the value is made by us of numbers and times
}

// A table is a part with rows. Title, Note and Head are ours.
type table struct {
	ID    string // of the heading
	Title string
	Of    string // a value that belongs to the title
	Note  string
	None  string // what to say in place of a table without rows
	Head  []string
	Rows  [][]cell
	More  string // how many rows were left out
}

// A cell is made of parts, one below the other.
type cell []part

// A part is text. Code is for what may be a job's, and for what is to be copied.
type part struct {
	Text string
	Code bool
}

// Class is how a part looks in HTML: a short one is not broken into lines.
func (p part) Class() string {
	switch {
	case !p.Code && slices.Contains(severities, p.Text):
		return "severity-" + p.Text
	case utf8.RuneCountInString(p.Text) <= 32:
		return "short"
	default:
		return "long"
	}
}

// ours is a cell of our own words and numbers.
func ours(format string, args ...any) cell { return cell{{Text: fmt.Sprintf(format, args...)}} }

// code is a cell of values; empty ones are left out.
func code(values ...string) cell {
	var c cell
	for _, v := range values {
		if v != "" {
			c = append(c, part{v, true})
		}
	}
	return c
}

// span is a cell of a time, or two.
func span(first, last time.Time) cell {
	if last.Sub(first) < time.Second {
		return ours("%s", clock(first))
	}
	return cell{{Text: clock(first)}, {Text: "to " + clock(last)}}
}

// clock is a time without its zone, which the heads of tables name.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// bytesText is a size as people write it.
func bytesText(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
}

// A layout makes views whose tables have at most rows rows, and which have the
// unused rules of at most pools pools.
type layout struct {
	*Report
	rows, pools int
}

func (l layout) view() view {
	tables := []table{l.refusals("refused", "Refused", "Nothing was refused.", l.Refusals)}
	if len(l.WouldRefuse) > 0 {
		t := l.refusals("would", "Would be refused by enforce", "", l.WouldRefuse)
		t.Note = "These passed only as their pool is in audit."
		tables = append(tables, t)
	}
	if l.MoreRefusals > 0 {
		last := &tables[len(tables)-1]
		last.More = joined(last.More, "Further destinations than are remembered: "+count(l.MoreRefusals, "event")+" of such are not in these tables.")
	}
	tables = append(tables, l.alerts(), l.destinations(), l.system())
	for i := range l.Unused[:min(len(l.Unused), l.pools)] {
		tables = append(tables, l.unused(i, &l.Unused[i]))
	}
	if more := len(l.Unused) - l.pools; more > 0 {
		last := &tables[len(tables)-1]
		last.More = joined(last.More, "The unused rules of "+count(more, "further pool")+" are not shown; --pool shows those of one.")
	}
	return view{Title: l.title(), About: l.about(), Verdict: l.verdict(), Totals: l.totals(), Tables: tables, Lacks: l.Lacks}
}

func (l layout) title() string {
	switch {
	case l.Scope.Job != "":
		return "Egress of a job"
	case l.Scope.Pool != "":
		return "Egress of a pool"
	default:
		return "Egress"
	}
}

// about says what the report is about.
func (l layout) about() []fact {
	s := &l.Scope
	facts := []fact{{"Job", s.Job, false}}
	if id := s.Identity; id != nil {
		facts = append(facts, fact{"Repository", id.Repo, false}, fact{"Workflow", id.Workflow, false}, fact{"Run", id.RunID, false},
			fact{"Job name", id.Job, false}, fact{"Ref", id.Ref, false})
	}
	pool := s.Pool
	if pool == "" {
		pool = strings.Join(first(s.Pools, 10), ", ")
		if more := len(s.Pools) - 10; more > 0 {
			pool += fmt.Sprintf(" and %d more", more)
		}
	}
	facts = append(facts, fact{"Pool", pool, false})
	if !s.Since.IsZero() {
		facts = append(facts, fact{"Since", stamp(s.Since), true})
	}
	if !s.Until.IsZero() {
		facts = append(facts, fact{"Until", stamp(s.Until), true})
	}
	facts = append(facts, fact{"First event", stamp(s.First), true}, fact{"Last event", stamp(s.Last), true})
	return slices.DeleteFunc(facts, func(f fact) bool { return f.Value == "" })
}

// verdict is the report in one sentence.
func (l layout) verdict() string {
	t := &l.Totals
	parts := []string{fmt.Sprintf("%d of %s and %d of %s were refused", t.Refused, count(t.Connections, "connection"), t.RefusedQuestions, count(t.Questions, "DNS question"))}
	if n := t.Audit + t.AuditQuestions; n > 0 {
		parts = append(parts, fmt.Sprintf("%d passed only in audit", n))
	}
	var alerts []string
	for _, s := range severities {
		if n := t.Alerts[s]; n > 0 {
			alerts = append(alerts, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(alerts) == 0 {
		return strings.Join(parts, "; ") + "; no alerts."
	}
	return strings.Join(parts, "; ") + "; alerts: " + strings.Join(alerts, ", ") + "."
}

func (l layout) totals() []fact {
	t := &l.Totals
	clients := fmt.Sprint(t.Clients)
	if t.MoreClients {
		clients = "more than " + clients
	}
	allowed := fmt.Sprint(t.Allowed)
	if t.Audit > 0 {
		allowed += fmt.Sprintf(" (%d only in audit)", t.Audit)
	}
	facts := []fact{
		{"Connections", fmt.Sprint(t.Connections), true}, {"Allowed", allowed, true}, {"Refused", fmt.Sprint(t.Refused), true},
		{"Sent", bytesText(t.Sent), true}, {"Received", bytesText(t.Received), true},
		{"DNS questions", fmt.Sprintf("%d, %d refused", t.Questions, t.RefusedQuestions), true}, {"Clients", clients, true},
	}
	if t.Failed > 0 {
		facts = slices.Insert(facts, 2, fact{"Allowed, but could not be reached", fmt.Sprint(t.Failed), true})
	}
	return facts
}

// first is the beginning of a list.
func first(list []string, n int) []string { return list[:min(len(list), n)] }

// joined puts two sentences together.
func joined(a, b string) string { return strings.TrimSpace(a + " " + b) }
