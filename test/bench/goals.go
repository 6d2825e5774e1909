//go:build linux

package main

import (
	"fmt"
	"io"
)

// A goal is what one measure of Sallyport shall be: at least, or at most, some
// times that of another subject in the same round; or a plain number, if there
// is no other.
type goal struct {
	figure  string
	subject string
	measure measureName
	atLeast bool // otherwise at most
	bound   float64
	than    string // subject that the bound is a multiple of; empty: a plain number
}

// goals are those of the project: a relay does nothing that a gate must do, so
// it is a measure of what is left to save, and the peers are those to be better
// than, each with its log on, as a gate without a log is none.
var goals = []goal{
	{"setup", "sallyport", cpu, false, 1.2, "relay"},
	{"setup", "sallyport", rate, true, 0.85, "relay"},
	{"setup", "sallyport", rate, true, 1.1, "squid"},
	{"setup1", "sallyport", p50, false, 1, "squid"},
	{"setup1", "sallyport", p50, false, 1.15, "relay"},
	{"setup1", "sallyport", p99, false, 1, "squid"},
	{"setup1", "sallyport", p99, false, 1.15, "relay"},
	{"refused", "sallyport", cpu, false, 1.5, "relay"},
	{"refused", "sallyport", rate, true, 1.1, "squid"},
	{"ping", "sallyport", p50, false, 1.05, "relay"},
	{"bulk1-down", "sallyport", cpu, false, 1.05, "relay"},
	{"bulk1-up", "sallyport", cpu, false, 1.05, "relay"},
	{"bulk8-down", "sallyport", cpu, false, 1.05, "relay"},
	{"bulk8-up", "sallyport", cpu, false, 1.05, "relay"},
	{"http", "sallyport", cpu, false, 1, "goproxy"},
	{"http", "sallyport", cpu, false, 0.9, "squid"},
	{"idle", "sallyport", each, false, 14, ""},
	{"idle", "sallyport", descriptor, false, 2, ""},
	{"cached", "sallyport", cpu, false, 0.9, "unbound-log"},
	{"cached", "sallyport-nolog", cpu, false, 1, "unbound"},
	{"refused-dns", "sallyport", cpu, false, 0.9, "unbound-log"},
	{"uncached", "sallyport", cpu, false, 1, "unbound-log"},
	{"uncached", "sallyport", p99, false, 1, "unbound-log"},
	{"many-setup", "sallyport-many", rate, true, 0.95, "sallyport-10"},
	{"many-cached", "sallyport-many", rate, true, 0.95, "sallyport-10"},
	{"many-refused", "sallyport-many", rate, true, 0.95, "sallyport-10"},
	{"page-setup", "sallyport-page", rate, true, 0.97, "sallyport"},
	{"page-refused", "sallyport-page", rate, true, 0.97, "sallyport"},
	{"ready", "sallyport", readyAfter, false, 25, ""},
	{"ready", "sallyport", rss, false, 16, ""},
	{"reload", "sallyport-many", p999, false, 50_000, ""},
	{"reload-dns", "sallyport-many", p999, false, 50_000, ""},
	{"many-idle", "sallyport", each, false, 14, ""},
}

// reached is what a goal's measure came to, the median of the rounds; false if
// it was not measured.
func (g goal) reached(samples []Sample) (value float64, ok bool) {
	if g.than == "" {
		s, ok := median(samples, g.figure, g.subject, g.measure)
		return s.median, ok
	}
	s, ok := ratio(samples, g.figure, g.subject, g.than, g.measure)
	return s.median, ok
}

// met holds a value against the goal.
func (g goal) met(value float64) bool {
	if g.atLeast {
		return value >= g.bound
	}
	return value <= g.bound
}

// text is the goal in words.
func (g goal) text() string {
	side := "at most"
	if g.atLeast {
		side = "at least"
	}
	if g.than == "" {
		return fmt.Sprintf("%s %s", side, number(g.bound))
	}
	return fmt.Sprintf("%s %s of %s", side, number(g.bound), g.than)
}

// printGoals prints each goal that was measured, and whether it was reached.
func printGoals(out io.Writer, samples []Sample) {
	var rows [][]string
	for _, g := range goals {
		value, ok := g.reached(samples)
		if !ok {
			continue
		}
		verdict := "yes"
		if !g.met(value) {
			verdict = "**no**"
		}
		rows = append(rows, []string{g.figure, g.subject, string(g.measure), g.text(), number(value), verdict})
	}
	if len(rows) > 0 {
		fmt.Fprintf(out, "\n### Goals\n\n")
		printRows(out, []string{"figure", "subject", "measure", "goal", "is", "reached"}, rows)
	}
}
