//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// report prints the goals, and writes the plot and the document if they are
// wanted. The tables of a run were printed as they came.
func report(o options, what about, samples []Sample) error {
	if o.from != "" {
		printAll(os.Stdout, samples)
	}
	printGoals(os.Stdout, samples)
	printAbout(os.Stdout, what)
	if o.svg != "" {
		if err := os.WriteFile(o.svg, plot(what, samples), 0o644); err != nil {
			return err
		}
	}
	if o.document == "" {
		return nil
	}
	return rewrite(o.document, what, samples)
}

// printAll prints the table of each figure that has samples.
func printAll(out io.Writer, samples []Sample) {
	for _, f := range figures {
		if slices.ContainsFunc(samples, func(s Sample) bool { return s.Figure == f.name }) {
			printTable(out, f, samples)
		}
	}
}

// columns are the measures that tables show, in this order; the one that a
// figure is about comes first, with its spread and its ratio.
var columns = []measureName{rate, p50, p99, p999, cpu, readyAfter, reloadTime, rss, each, descriptor, shownRows, leftRows, subjectUse, loadUse}

// printTable prints the samples of a figure.
func printTable(out io.Writer, f figure, samples []Sample) {
	var subjects []string
	has := map[measureName]bool{}
	errs := map[string]int64{}
	rounds := 0
	for _, s := range samples {
		if s.Figure != f.name {
			continue
		}
		if !slices.Contains(subjects, s.Subject) {
			subjects = append(subjects, s.Subject)
		}
		for m := range s.Values {
			has[m] = true
		}
		errs[s.Subject] += s.Errors
		rounds = max(rounds, s.Round)
	}
	head := []string{"subject", string(f.shown), "min-max", "ratio", "min-max"}
	shown := slices.DeleteFunc(slices.Clone(columns), func(m measureName) bool { return !has[m] || m == f.shown })
	for _, m := range shown {
		head = append(head, string(m))
	}
	var rows [][]string
	base := f.base
	if !slices.Contains(subjects, base) {
		base = subjects[0] // who is left to compare
	}
	for _, subject := range subjects {
		s, _ := median(samples, f.name, subject, f.shown)
		row := []string{subject, number(s.median), number(s.least) + "-" + number(s.most), "", ""}
		if r, ok := ratio(samples, f.name, subject, base, f.shown); ok {
			row[3], row[4] = number(r.median), number(r.least)+"-"+number(r.most)
		}
		for _, m := range shown {
			cell := ""
			if s, ok := median(samples, f.name, subject, m); ok {
				cell = number(s.median)
			}
			row = append(row, cell)
		}
		if errs[subject] > 0 {
			row[0] += fmt.Sprintf(" (%d errors)", errs[subject])
		}
		rows = append(rows, row)
	}
	fmt.Fprintf(out, "\n### %s: %s\n\nMedians of %d rounds; ratios are to %s.\n\n", f.name, f.title, rounds, base)
	printRows(out, head, rows)
}

// printRows prints a Markdown table whose columns line up.
func printRows(out io.Writer, head []string, rows [][]string) {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	line := func(row []string) {
		for i, cell := range row {
			fmt.Fprintf(out, "| %-*s ", widths[i], cell)
		}
		fmt.Fprintln(out, "|")
	}
	line(head)
	rule := make([]string, len(head))
	for i := range rule {
		rule[i] = strings.Repeat("-", widths[i])
	}
	line(rule)
	for _, row := range rows {
		line(row)
	}
}

// number is a value with three digits that count.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
}

// printAbout prints what was measured, when and where.
func printAbout(out io.Writer, what about) {
	fmt.Fprintf(out, "\n%s; %d rounds of %s; load average before and after: %s.\n\nMachine: %s.\n\n", what.Date, what.Rounds, what.Length, what.Load, what.Machine)
	for _, name := range slices.Sorted(maps.Keys(what.Versions)) {
		if version := what.Versions[name]; version != "" {
			fmt.Fprintf(out, "- %s: %s\n", name, version)
		}
	}
}

// The results of a document stand between these.
const (
	resultsBegin = "<!-- results: begin -->\n"
	resultsEnd   = "<!-- results: end -->"
)

// rewrite puts the results into a document.
func rewrite(path string, what about, samples []Sample) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), resultsBegin)
	_, after, ended := strings.Cut(rest, resultsEnd)
	if !ok || !ended {
		return errors.New(path + " has no place for results")
	}
	var results strings.Builder
	printAbout(&results, what)
	printGoals(&results, samples)
	printAll(&results, samples)
	return os.WriteFile(path, []byte(before+resultsBegin+results.String()+"\n"+resultsEnd+after), 0o644)
}
