package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/alerting/foreignlog"
	"sallyport/alerting/replay"
	"sallyport/allowlists"
)

// replayOptions is what the command line says.
type replayOptions struct {
	config, old, format string
	enforce             bool
}

// newReplay says what a policy would have done to a log.
func newReplay() *cobra.Command {
	var options replayOptions
	cmd := &cobra.Command{
		Use:   "replay [-c FILE] EVENTS...",
		Short: "Say what a policy would have done to an event log",
		Long: `Decide every question and connection of event logs again, by the policy of -c,
and print what would be newly refused and newly allowed: by pool and destination,
with count, first, last, reason, and the rule at file:line. Without --old that is
held against what was done; with it, against what the policy of that file says.

A pool in audit refuses little: --enforce takes every pool for enforcing, to see
what would break. Logs may be packed with gzip; "-" is standard input. A rule
counts if it had not expired at the time of the event.

Exit code 0 if nothing that was allowed is refused, 3 if something is, so that a
change of a policy can be gated; 1 if a log cannot be read or has no decision, 2
for a faulty command line or configuration. docs/suggest.md has more.`,
		Example: "  sallyport replay -c sallyport.yaml /var/log/sallyport/events.jsonl*\n" +
			"  sallyport replay -c new.yaml --old sallyport.yaml events.jsonl\n" +
			"  zcat old/*.gz | sallyport replay -c sallyport.yaml --enforce --format json -",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			return options.run(ctx, cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&options.config, "config", "c", "", "the policy to judge by: a file, or a directory whose *.yaml are merged")
	flags.StringVar(&options.old, "old", "", "the policy to compare with, in place of what was done")
	flags.BoolVar(&options.enforce, "enforce", false, "take pools in mode audit for enforcing")
	flags.StringVar(&options.format, "format", "", "table or json (default: table on a terminal, else json)")
	return cmd
}

// run replays and prints.
func (o *replayOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	out, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	table, err := wantsTable(out, o.format)
	if err != nil {
		return err
	}
	config := replay.Config{}
	if config.New, err = o.judge(o.config, stderr); err != nil {
		return err
	}
	if o.old != "" {
		if config.Old, err = o.judge(o.old, stderr); err != nil {
			return err
		}
	}
	if config.Sources, err = openEvents(args, cmd.InOrStdin(), stderr); err != nil {
		return err
	}
	stop := showProgress(stderr, config.Sources)
	report, err := replay.Run(ctx, config)
	stop()
	if err != nil {
		return &exitError{exitFailed, err}
	}
	tellSkipped(stderr, config.Sources)
	if table {
		err = printReplay(out, report)
	} else {
		err = printJSON(out, report)
	}
	switch {
	case err != nil:
		return &exitError{exitFailed, err}
	case report.Refused.Decisions > 0:
		return &exitError{exitDenied, nil}
	case report.Decisions == 0:
		return &exitError{exitFailed, errors.New("no log given has a decision that a policy has a say in: nothing was replayed, and nothing is proven")}
	default:
		return nil
	}
}

// judge is that of the configuration at a path.
func (o *replayOptions) judge(path string, stderr io.Writer) (*replay.Judge, error) {
	file, _, err := loadConfig(path, stderr)
	if err != nil {
		return nil, err
	}
	policy := file.Policy
	if o.enforce {
		if policy, err = replay.Enforced(file.Spec); err != nil {
			return nil, &exitError{exitUsage, err}
		}
	}
	return replay.NewJudge(policy, file.Search), nil
}

// wantsTable reports whether a --format of table or json asks for a table.
func wantsTable(out io.Writer, format string) (bool, error) {
	switch format {
	case "":
		return isTerminal(out), nil
	case "table", "json":
		return format == "table", nil
	default:
		return false, &exitError{exitUsage, fmt.Errorf("--format %s: formats are table and json", printable(format))}
	}
}

// openEvents opens the event logs that a command line names.
func openEvents(names []string, stdin io.Reader, stderr io.Writer) ([]*foreignlog.Source, error) {
	if len(names) == 0 {
		return nil, &exitError{exitUsage, errors.New("no event log is given; name its files, such as those of log.events, or - for standard input")}
	}
	if n := slices.Index(names, "-"); n >= 0 && slices.Contains(names[n+1:], "-") {
		return nil, &exitError{exitUsage, errors.New("standard input can be read once only")}
	}
	formats := make(map[string]*foreignlog.Format)
	for _, name := range names {
		formats[name] = foreignlog.FormatNamed("sallyport")
	}
	return openLogs(names, formats, time.UTC, stdin, stderr)
}

// tellSkipped says which lines of event logs are none.
func tellSkipped(stderr io.Writer, sources []*foreignlog.Source) {
	for _, s := range sources {
		if s.Stats.Skipped > 0 {
			fmt.Fprintf(stderr, "%s: %s skipped, being no events (%s)\n", printable(s.Name), counted(s.Stats.Skipped, "line"), lineNumbers(&s.Stats))
		}
		if s.Stats.Cut {
			fmt.Fprintf(stderr, "%s ends in its middle\n", printable(s.Name))
		}
	}
}

// changeRow is the shape of a row: pool, destination, count, first, last, reason
// before and now, rule.
const changeRow = "%-12s %-44s %7s  %-20s  %-20s  %-36s %s"

// printReplay writes a report for people.
func printReplay(out io.Writer, r *replay.Report) error {
	for _, part := range []struct {
		title   string
		changes *replay.Changes
	}{{"newly refused", &r.Refused}, {"newly allowed", &r.Allowed}} {
		if part.changes.Decisions == 0 {
			continue
		}
		fmt.Fprintf(out, "%s: %s to %s\n", part.title, counted(part.changes.Decisions, "decision"), counted(len(part.changes.Destinations), "destination"))
		fmt.Fprintf(out, changeRow+"\n", "POOL", "DESTINATION", "COUNT", "FIRST (UTC)", "LAST (UTC)", "WAS -> NOW", "RULE")
		for i := range part.changes.Destinations {
			c := &part.changes.Destinations[i]
			row := fmt.Sprintf(changeRow, poolText(c.Pool), changeTarget(c), strconv.Itoa(c.Count), stamp(c.First), stamp(c.Last), c.Was+" -> "+c.Reason, printable(c.Rule))
			fmt.Fprintln(out, strings.TrimRight(row, " "))
		}
		if part.changes.Folded {
			fmt.Fprintf(out, "more than %d destinations: what came after them is one row a pool\n", replay.MaxDestinations)
		}
		fmt.Fprintln(out)
	}
	if r.AuditOnly > 0 {
		fmt.Fprintf(out, "%s pass only as their pool is in audit; --enforce shows what would be refused\n", counted(r.AuditOnly, "decision"))
	}
	_, err := fmt.Fprintf(out, "%s, %d newly refused, %d newly allowed\n", counted(r.Decisions, "decision"), r.Refused.Decisions, r.Allowed.Decisions)
	return err
}

// poolText is a pool, or a dash.
func poolText(pool string) string {
	if pool == "" {
		return "-"
	}
	return printable(pool)
}

// changeTarget is a destination as a row shows it.
func changeTarget(c *replay.Change) string {
	switch {
	case c.Others:
		return "(others)"
	case c.Kind == "dns":
		return printable(c.Host) + " (dns)"
	case c.IP.IsValid():
		return allowlists.Target{Addr: c.IP, Port: c.Port}.String()
	default:
		return printable(c.Host) + ":" + strconv.Itoa(int(c.Port))
	}
}
