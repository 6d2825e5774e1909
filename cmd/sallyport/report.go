package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/alerting/report"
)

// reportOptions is what the command line says.
type reportOptions struct {
	config, job, pool, since, until, format string
}

// newReport tells what left, or tried to, in a job, a pool or a period.
func newReport() *cobra.Command {
	var options reportOptions
	cmd := &cobra.Command{
		Use:   "report EVENTS...",
		Short: "Report the egress of one job, one pool or a period from an event log",
		Long: `Read event logs and report what left, or tried to leave: connections by
destination with their bytes, refusals with the line that would allow each and the
command that explains it, alerts, what happened to the daemon, and what the log
does not show. With -c, also the allow rules that nothing used.

--job takes a run id, where events name runs, or a client's address. --since and
--until take a time (RFC 3339), a day (2026-11-23) or how long ago: 24h, 7d.

Markdown fits the summary of a GitHub job and GitLab, with at most 50 rows a table.
HTML is one file that needs nothing else. JSON has everything that is remembered;
its schema is docs/report.schema.json. What a job chose is shown inert in each.

Logs may be packed with gzip; "-" is standard input. Exit code 0, also if there is
nothing to report; 1 if a log cannot be read, 2 for a faulty command line or
configuration. docs/report.md has more.`,
		Example: "  sallyport report --job 10.20.0.7 --since 1h /var/log/sallyport/events.jsonl >> \"$GITHUB_STEP_SUMMARY\"\n" +
			"  sallyport report -c sallyport.yaml --pool build --since 7d --format html /var/log/sallyport/events.jsonl* > report.html\n" +
			"  zcat old/*.gz | sallyport report --format json - | jq .refusals",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			return options.run(ctx, cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&options.config, "config", "c", "", "the configuration whose unused rules to show: a file, or a directory whose *.yaml are merged")
	flags.StringVar(&options.job, "job", "", "the only job: a run id, or a client's address")
	flags.StringVar(&options.pool, "pool", "", "the only pool")
	flags.StringVar(&options.since, "since", "", "the begin: a time, a day, or how long ago")
	flags.StringVar(&options.until, "until", "", "the end, which is not part of it: a time, a day, or how long ago")
	flags.StringVar(&options.format, "format", "md", "md, html or json")
	return cmd
}

// run reads the logs and prints.
func (o *reportOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	stderr := cmd.ErrOrStderr()
	config, err := o.read(time.Now(), stderr)
	if err != nil {
		return err
	}
	if config.Sources, err = openEvents(args, cmd.InOrStdin(), stderr); err != nil {
		return err
	}
	stop := showProgress(stderr, config.Sources)
	result, err := report.Run(ctx, config)
	stop()
	if err != nil {
		return &exitError{exitFailed, err}
	}
	tellSkipped(stderr, config.Sources)
	if result.Scope.First.IsZero() {
		fmt.Fprintln(stderr, "the logs have no decision of what was asked for; the report says so")
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	switch o.format {
	case "html":
		err = result.WriteHTML(out)
	case "json":
		err = result.WriteJSON(out)
	default:
		err = result.WriteMarkdown(out)
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// read checks the flags and reads the configuration, if there is one.
func (o *reportOptions) read(now time.Time, stderr io.Writer) (config report.Config, err error) {
	usage := func(format string, args ...any) error { return &exitError{exitUsage, fmt.Errorf(format, args...)} }
	if !slices.Contains([]string{"md", "html", "json"}, o.format) {
		return config, usage("--format %s: formats are md, html and json", printable(o.format))
	}
	config.Job, config.Pool = o.job, o.pool
	if config.Since, err = moment(o.since, now); err != nil {
		return config, usage("--since %w", err)
	}
	if config.Until, err = moment(o.until, now); err != nil {
		return config, usage("--until %w", err)
	}
	if !config.Until.IsZero() && !config.Since.Before(config.Until) {
		return config, usage("--since is not before --until")
	}
	if o.config == "" {
		return config, nil
	}
	file, _, err := loadConfig(o.config, stderr)
	if err != nil {
		return config, err
	}
	config.Policy, config.Search = file.Policy, file.Search
	if o.pool != "" && file.Policy.Pool(o.pool) == nil {
		_, _, err = choosePool(file.Policy, o.pool, "")
		return config, &exitError{exitUsage, err}
	}
	return config, nil
}

// moment reads a time, a day in UTC, or how long before now; "" is the zero time.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	ago, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		ago = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || ago < 0 {
		return time.Time{}, fmt.Errorf("%q is no time; write one such as 2026-11-23T12:00:00Z, a day such as 2026-11-23, or how long ago, such as 24h or 7d", printable(text))
	}
	return now.Add(-ago).UTC(), nil
}
