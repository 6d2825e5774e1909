package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/alerting"
)

// newBaseline shows what a daemon's pools usually reach, writes it to a file
// that another daemon can begin with, and takes entries out.
func newBaseline() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "baseline",
		Short: "Show, export or correct what the pools usually reach",
		Long: `Show, export or correct the baseline that first-seen and upload-volume go by.
Each command asks the running daemon, through --control or the control listener
of -c.`,
		Example: "  sallyport baseline list -c sallyport.yaml --pool build\n  sallyport baseline export -c sallyport.yaml -o baseline.jsonl\n  sallyport baseline remove -c sallyport.yaml --pool build evil.example:443",
	}
	cmd.AddCommand(newBaselineList(), newBaselineExport(), newBaselineRemove())
	return cmd
}

// entries asks for the baseline.
func (f *daemonFlags) entries(cmd *cobra.Command) ([]alerting.BaselineEntry, error) {
	client, err := f.client(cmd)
	if err != nil {
		return nil, err
	}
	entries := []alerting.BaselineEntry{}
	err = client.do(http.MethodGet, "/api/v1/baseline?"+url.Values{"pool": {f.pool}}.Encode(), func(body io.Reader) error {
		lines := json.NewDecoder(body)
		for {
			var entry alerting.BaselineEntry
			switch err := lines.Decode(&entry); {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			}
			entries = append(entries, entry)
		}
	})
	if err != nil {
		return nil, &exitError{exitFailed, err}
	}
	return entries, nil
}

func newBaselineList() *cobra.Command {
	var from daemonFlags
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the destinations: who came first, when, and how much is usually sent",
		Long: `List the destinations of a pool, or of all: who came first and when, whether the
destination is in the baseline (since when) or on its way there, and the most
that clients usually send there within an hour.`,
		Example: "  sallyport baseline list -c sallyport.yaml\n  sallyport baseline list --control unix:/run/sallyport/control.sock --pool build --format json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return unknownFormat(format)
			}
			entries, err := from.entries(cmd)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), entries)
			}
			if len(entries) == 0 {
				from.sayNone(cmd.ErrOrStderr())
			}
			return printEntries(cmd.OutOrStdout(), entries)
		},
	}
	from.add(cmd, "the pool; every pool if it is not given")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// printEntries writes a table.
func printEntries(w io.Writer, entries []alerting.BaselineEntry) error {
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "POOL\tDESTINATION\tIN SINCE\tFIRST\tLAST\tBY\tUSUAL UPLOAD")
	for _, e := range entries {
		since := "not yet"
		if !e.Entered.IsZero() {
			since = day(e.Entered)
		}
		by := e.By
		if e.Job != nil {
			by += " " + e.Job.Repo + " " + e.Job.RunID
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(e.Pool), printable(e.Destination), since, day(e.First), day(e.Last), printable(by), alerting.SizeText(e.Usual))
	}
	return table.Flush()
}

func newBaselineExport() *cobra.Command {
	var from daemonFlags
	var out string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the baseline as a file that another daemon can begin with",
		Long: `Write the destinations that are in the baseline, one JSON object a line: the form
of alerts.baseline.file, with which a daemon begins that has learnt nothing yet.
A file named by -o is replaced in one step, or not at all.`,
		Example: "  sallyport baseline export -c sallyport.yaml -o baseline.jsonl\n  sallyport baseline export --control unix:/run/sallyport/control.sock --pool build > build.jsonl",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, err := from.entries(cmd)
			if err != nil {
				return err
			}
			lines, in := exported(entries)
			if len(entries) == 0 {
				from.sayNone(cmd.ErrOrStderr())
			} else if in < len(entries) {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d destinations are in the baseline and were written; the others have not entered it yet\n", in, len(entries))
			}
			if out == "" {
				_, err = cmd.OutOrStdout().Write(lines)
			} else {
				err = replaceFile(out, lines)
			}
			if err != nil {
				return &exitError{exitFailed, fmt.Errorf("writing the baseline: %w", err)}
			}
			return nil
		},
	}
	from.add(cmd, "the pool; every pool if it is not given")
	cmd.Flags().StringVarP(&out, "out", "o", "", "the file; standard output if it is not given")
	return cmd
}

// sayNone tells a person that there is nothing to show, and where a misspelt
// pool would be the cause.
func (f *daemonFlags) sayNone(w io.Writer) {
	if f.pool != "" {
		fmt.Fprintf(w, "the daemon has seen no destination of a pool %s\n", printable(f.pool))
		return
	}
	fmt.Fprintln(w, "the daemon has seen no destination yet")
}

// exported are the lines of the entries that are in the baseline, without what
// only the daemon that learnt them needs, and how many they are.
func exported(entries []alerting.BaselineEntry) ([]byte, int) {
	var lines bytes.Buffer
	in := 0
	to := json.NewEncoder(&lines)
	for _, e := range entries {
		if e.Entered.IsZero() {
			continue
		}
		in++
		_ = to.Encode(alerting.BaselineEntry{ // a buffer takes everything
			Pool: e.Pool, Destination: e.Destination, First: e.First, Last: e.Last, By: e.By, Job: e.Job, Entered: e.Entered, Usual: e.Usual,
		})
	}
	return lines.Bytes(), in
}

// replaceFile writes beside path and renames.
func replaceFile(path string, data []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func newBaselineRemove() *cobra.Command {
	var from daemonFlags
	cmd := &cobra.Command{
		Use:   "remove DESTINATION",
		Short: "Take a destination out of a pool's baseline",
		Long: `Take a destination, HOST:PORT as list shows it, out of a pool's baseline: it is
new again, and enters as any other. With alerts.state_dir a removal survives
restarts, also where alerts.baseline.file names the destination. Exit code 1 if
it is not in the baseline.`,
		Example: "  sallyport baseline remove -c sallyport.yaml --pool build evil.example:443",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from.pool == "" {
				return &exitError{exitUsage, errors.New("remove needs --pool")}
			}
			client, err := from.client(cmd)
			if err != nil {
				return err
			}
			what := url.Values{"pool": {from.pool}, "destination": {args[0]}}.Encode()
			err = client.do(http.MethodDelete, "/api/v1/baseline?"+what, func(io.Reader) error { return nil })
			if errors.Is(err, errNotFound) {
				err = fmt.Errorf("%s is not in the baseline of pool %s; \"sallyport baseline list\" shows what is, as HOST:PORT", printable(args[0]), printable(from.pool))
			}
			if err != nil {
				return &exitError{exitFailed, err}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is new to pool %s again\n", printable(args[0]), printable(from.pool))
			return err
		},
	}
	from.add(cmd, "the pool")
	return cmd
}
