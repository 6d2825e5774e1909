package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/alerting/suggest"
	"sallyport/allowlists"
)

// suggestOptions is what the command line says.
type suggestOptions struct {
	config, pool, format string
	minJobs              int
	write                bool
}

// newSuggest finds the smallest change of an allowlist that a log asks for.
func newSuggest() *cobra.Command {
	var options suggestOptions
	cmd := &cobra.Command{
		Use:   "suggest [-c FILE] EVENTS...",
		Short: "Suggest the smallest change of an allowlist that an event log asks for",
		Long: `Read event logs, find what the pools of -c refuse, or would refuse once they
enforce, and print what to add to their lists, as a unified diff of the file with
its comments and order kept. Each line has its evidence behind it. Presets stand
for the hosts that they cover, and patterns for the hosts of one service.

What was seen in a single job, or only asked for, comes under "# review",
commented out, so that no single job writes itself into the list. What a detector
spoke of is never suggested. What was left out, and why, goes to standard error,
and is in --format json. A job is the run that the event names, else a client's
day; docs/suggest.md says which clients are one.

Nothing is written but with --write. Logs may be packed with gzip; "-" is standard
input. Exit code 0; 1 if a log cannot be read, has nothing of a client that a pool
has, or the file cannot be amended; 2 for a faulty command line or configuration.
docs/suggest.md has more.`,
		Example: "  sallyport suggest -c sallyport.yaml /var/log/sallyport/events.jsonl*\n" +
			"  sallyport suggest -c sallyport.yaml --pool build --min-jobs 1 --format yaml events.jsonl\n" +
			"  sallyport suggest -c sallyport.yaml --write events.jsonl && sallyport replay -c sallyport.yaml --enforce events.jsonl",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			return options.run(ctx, cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&options.config, "config", "c", "", "the configuration to add to: a file, or a directory whose *.yaml are merged")
	flags.StringVar(&options.pool, "pool", "", "the only pool to look at")
	flags.IntVar(&options.minJobs, "min-jobs", 2, "in how `many` jobs a destination is seen before it is more than a review")
	flags.StringVar(&options.format, "format", "diff", "diff, yaml (what is added, alone) or json")
	flags.BoolVar(&options.write, "write", false, "put the change into the files of -c")
	return cmd
}

// run suggests, prints and, where asked to, writes.
func (o *suggestOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	out, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	file, sources, err := o.load(stderr)
	if err != nil {
		return err
	}
	logs, err := openEvents(args, cmd.InOrStdin(), stderr)
	if err != nil {
		return err
	}
	stop := showProgress(stderr, logs)
	result, err := suggest.Run(ctx, suggest.Config{Sources: logs, Spec: file.Spec, Search: file.Search, Pool: o.pool, MinJobs: o.minJobs})
	stop()
	if err != nil {
		return &exitError{exitFailed, err}
	}
	tellSkipped(stderr, logs)
	o.tellUnplaced(stderr, &result.Unplaced)
	if err = o.print(out, stderr, result, sources); err == nil && result.Decisions == 0 {
		err = o.nothingPlaced(result)
	}
	if err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// tellUnplaced says whose events were left out, and what to do about it.
func (o *suggestOptions) tellUnplaced(stderr io.Writer, u *suggest.Unplaced) {
	if u.Decisions == 0 {
		return
	}
	var clients []string
	for _, addr := range u.Clients {
		clients = append(clients, addrText(addr))
	}
	if u.More {
		clients = append(clients, "...")
	}
	mend := "add their addresses to the sources of one, if they are yours"
	if o.config == "" {
		mend = "give -c, the configuration that the log's daemon runs with (the embedded one has loopback clients only)"
	}
	fmt.Fprintf(stderr, "%s left out, of clients that no pool has (%s): %s\n", counted(u.Decisions, "decision"), strings.Join(clients, ", "), mend)
}

// nothingPlaced is the error for a log of which nothing could be looked at.
func (o *suggestOptions) nothingPlaced(result *suggest.Result) error {
	switch {
	case result.Unplaced.Decisions > 0:
		return errors.New("no client of the log is in a pool, so nothing can be suggested")
	case o.pool != "":
		return fmt.Errorf("the log has no decision of pool %s", printable(o.pool))
	default:
		return errors.New("the log has no decision to learn from")
	}
}

// load reads the configuration and checks the flags.
func (o *suggestOptions) load(stderr io.Writer) (*allowlists.File, []allowlists.Source, error) {
	usage := func(format string, args ...any) error { return &exitError{exitUsage, fmt.Errorf(format, args...)} }
	switch {
	case o.format != "diff" && o.format != "yaml" && o.format != "json":
		return nil, nil, usage("--format %s: formats are diff, yaml and json", printable(o.format))
	case o.minJobs < 1:
		return nil, nil, usage("--min-jobs is 1 or more")
	case o.write && o.config == "":
		return nil, nil, usage("--write needs -c, the configuration to write to")
	}
	sources, err := readSources(o.config)
	if err != nil {
		return nil, nil, &exitError{exitUsage, err}
	}
	file, _, err := loadConfig(o.config, stderr)
	if err == nil && o.pool != "" && file.Policy.Pool(o.pool) == nil {
		_, _, err = choosePool(file.Policy, o.pool, "")
		err = &exitError{exitUsage, err}
	}
	return file, sources, err
}

// print shows a result, and puts it into the files.
func (o *suggestOptions) print(out, stderr io.Writer, result *suggest.Result, sources []allowlists.Source) error {
	tellLeftOut(stderr, result)
	var amended []allowlists.Amended
	var err error
	if o.write || o.format == "diff" {
		if amended, err = amend(sources, result); err != nil {
			return err
		}
	}
	switch o.format {
	case "json":
		err = printJSON(out, result)
	case "yaml":
		err = printFragment(out, result)
	default:
		for i := range amended {
			text := amended[i].Diff()
			if isTerminal(out) {
				text = inert(text) // else it is for git apply, to the byte
			}
			if _, err = io.WriteString(out, text); err != nil {
				break
			}
		}
	}
	if err != nil || !o.write {
		return err
	}
	if len(amended) == 0 {
		fmt.Fprintln(stderr, "nothing is written: the files have all of it")
	}
	for i := range amended {
		if err := amendFile(amended[i].Name, amended[i].Old, amended[i].New); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "%s is written; sallyport check and replay tell what it does\n", printable(amended[i].Name))
	}
	return nil
}

// amend adds a result to the configuration, and loads what comes of it.
func amend(sources []allowlists.Source, result *suggest.Result) ([]allowlists.Amended, error) {
	amended, err := allowlists.Amend(sources, result.Amendments())
	if err != nil {
		return nil, fmt.Errorf("%w; --format yaml prints what to add", err)
	}
	next := append([]allowlists.Source{}, sources...)
	for i := range next {
		for j := range amended {
			if amended[j].Name == next[i].Name {
				next[i].Text = amended[j].New
			}
		}
	}
	if _, report := allowlists.Load(next, os.LookupEnv, time.Now()); report.Failed() {
		return nil, fmt.Errorf("the configuration would not load any more: %w", report.Err())
	}
	return amended, nil
}

// printFragment prints what is added, as a configuration of nothing else.
func printFragment(out io.Writer, result *suggest.Result) error {
	amendments := result.Amendments()
	if len(amendments) == 0 {
		return nil
	}
	text := "pools:\n"
	for _, a := range amendments {
		text += fmt.Sprintf("  %s: {}\n", a.Pool)
	}
	amended, err := allowlists.Amend([]allowlists.Source{{Name: "suggestion", Text: []byte(text)}}, amendments)
	if err == nil {
		_, err = out.Write(amended[0].New)
	}
	return err
}

// maxLeftOut bounds the lines about what was left out.
const maxLeftOut = 20

// tellLeftOut says what is not suggested, and why, the most wanted first.
func tellLeftOut(stderr io.Writer, result *suggest.Result) {
	if len(result.Pools) == 0 && result.Decisions > 0 {
		fmt.Fprintln(stderr, "the log asks for nothing that the policy does not allow")
	}
	for i := range result.Pools {
		p := &result.Pools[i]
		fmt.Fprintf(stderr, "pool %s: %s, %s, %d for review, %d left out\n", p.Pool, counted(len(p.Presets), "preset"), counted(len(p.Allow), "line"), len(p.Review), len(p.Left)+p.More)
		for j := range p.Left[:min(len(p.Left), maxLeftOut)] {
			l := &p.Left[j]
			fmt.Fprintf(stderr, "  left out: %s: %s (%s)\n", brief(l.Target), printable(l.Why), l.Evidence)
		}
		if more := len(p.Left) - maxLeftOut; more > 0 {
			fmt.Fprintf(stderr, "  and %d more; --format json has them\n", more)
		}
	}
	if result.Unseen > 0 {
		fmt.Fprintf(stderr, "%s of further destinations were not looked at: the log has more than are remembered\n", counted(result.Unseen, "event"))
	}
}
