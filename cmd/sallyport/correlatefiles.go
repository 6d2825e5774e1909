package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sallyport/alerting/foreignlog"
	"sallyport/alerting/hindsight"
)

// openLogs finds out what each file is. All that cannot be read are told at
// once; the error then sums them up, with exit code 1.
func openLogs(names []string, formats map[string]*foreignlog.Format, zone *time.Location, stdin io.Reader, stderr io.Writer) ([]*foreignlog.Source, error) {
	var sources []*foreignlog.Source
	faults := 0
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			continue // given twice, as globs do
		}
		source, err := foreignlog.Probe(name, formats[name], foreignlog.Options{Zone: zone}, stdin)
		switch {
		case errors.Is(err, foreignlog.ErrUnknownFormat):
			fmt.Fprintf(stderr, "%s is no log that I know by its first lines; if it is one, say --format-of %[1]s=FORMAT; formats are %s\n", printable(name), formatNames())
			faults++
		case err != nil:
			fmt.Fprintln(stderr, printable(err.Error()))
			faults++
		default:
			sources = append(sources, source)
		}
	}
	if faults > 0 {
		return nil, &exitError{exitFailed, fmt.Errorf("%s cannot be read", counted(faults, "file"))}
	}
	return sources, nil
}

// tellLacks says once what the formats at hand cannot show.
func tellLacks(stderr io.Writer, sources []*foreignlog.Source) {
	var told []*foreignlog.Format
	questions, answers, conns := false, false, false
	for _, s := range sources {
		f := s.Format
		if f == nil || slices.Contains(told, f) {
			continue
		}
		told = append(told, f)
		questions, answers, conns = questions || f.Questions, answers || f.Answers, conns || f.Conns
		if f.Lacks != "" {
			fmt.Fprintf(stderr, "note: logs of %s do not show %s\n", f.Title, f.Lacks)
		}
	}
	switch {
	case len(told) == 0:
	case !questions:
		fmt.Fprintln(stderr, "note: no log of a resolver is given: no direct-ip, no denied-then-direct after a question, nothing about names that were only asked")
	case !conns:
		fmt.Fprintln(stderr, "note: no log of connections is given: alerts on questions only")
	case !answers:
		fmt.Fprintln(stderr, "note: no log here shows the addresses in answers: no direct-ip, no denied-then-direct by an address alone, no address-mismatch, no rebinding by an answer")
	}
}

// tellSummary says what was read and what could not be joined.
func tellSummary(w io.Writer, sources []*foreignlog.Source, sum *hindsight.Summary) {
	for _, s := range sources {
		if s.Format == nil {
			fmt.Fprintf(w, "%s: empty\n", printable(s.Name))
			continue
		}
		fmt.Fprintf(w, "%s: %s, %s in %s", printable(s.Name), s.Format.Title, counted(s.Stats.Records, "record"), counted(s.Stats.Lines, "line"))
		if s.Stats.Records > 0 {
			fmt.Fprintf(w, ", %s to %s", stamp(s.Stats.First), stamp(s.Stats.Last))
		}
		if s.Stats.Skipped > 0 {
			fmt.Fprintf(w, "; %s skipped (%s)", counted(s.Stats.Skipped, "line"), lineNumbers(&s.Stats))
		}
		if s.Stats.Cut {
			fmt.Fprint(w, "; it ends in its middle")
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%s, %s, %s\n", counted(sum.Questions, "question"), counted(sum.Connections, "connection"), counted(sum.Alerts, "alert"))
	tell := func(n int, what string, why ...any) {
		if n > 0 {
			fmt.Fprintf(w, "%s %s\n", counted(n, "record"), fmt.Sprintf(what, why...))
		}
	}
	tell(sum.Copies, "stood in two files and counted once")
	tell(sum.Late, "came late in their file and were judged by what was known then")
	tell(sum.NoPool, "of clients that no pool has were left out (%s); --pool NAME puts them into one", clientList(sum))
	tell(sum.Uncovered, "of connections to addresses could not be held against answers, as no log has those of that time")
	if sum.Offsets >= 20 && sum.Offset < -500*time.Millisecond {
		fmt.Fprintf(w, "connections come %s before their answers (median of %d): the clocks of the logs differ; say --skew %s\n",
			-sum.Offset, sum.Offsets, (-2*sum.Offset).Round(time.Second)+time.Second)
	}
}

// stamp is a time in the summary.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func lineNumbers(stats *foreignlog.Stats) string {
	var texts []string
	for _, n := range stats.SkippedAt {
		texts = append(texts, fmt.Sprint(n))
	}
	if stats.Skipped > len(stats.SkippedAt) {
		texts = append(texts, "...")
	}
	return strings.Join(texts, ", ")
}

func clientList(sum *hindsight.Summary) string {
	var texts []string
	for _, addr := range sum.NoPoolClients {
		texts = append(texts, addr.String())
	}
	return strings.Join(texts, ", ")
}
