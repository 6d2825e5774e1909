package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sallyport/allowlists/diag"
	"sallyport/allowlists/importers"
)

// importOptions is what the command line says.
type importOptions struct {
	importers.Options
	format string
}

// newImport turns other tools' allowlists into ours.
func newImport() *cobra.Command {
	var options importOptions
	cmd := &cobra.Command{
		Use:   "import FORMAT FILE",
		Short: "Turn the allowlist of another tool into a pool",
		Long: `Read the allowlist of another tool and print what it is here: a configuration
with a pool for each list, without sources. FORMAT is one of
` + strings.Join(importers.Formats(), ", ") + `; FILE may be "-".

Nothing becomes wider than it was. What cannot be said exactly is left out: it
stands in a comment with its cause, for a person to decide; --wider takes the
narrowest rule that covers it. Every rule that means something else here has a
comment above it, and a row of the table on standard error.

Exit code 0; 1 if something was left out or the file cannot be read, 2 for a
faulty command line or a file that is not of that format. docs/import.md says
what is kept of each format.`,
		Example: "  sallyport import harden-runner .github/workflows/build.yml > pool.yaml\n" +
			"  sallyport import squid --pool build --ports 80,443 /etc/squid/squid.conf\n" +
			"  sallyport import gh-aw --format json - < workflow.md",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return options.run(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args[0], args[1])
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return importers.Formats(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.Pool, "pool", "imported", "the name of the pool, where the file has no names of its own")
	flags.StringVar(&options.Ports, "ports", "", "ports of rules that are for every port, such as 80,443 (default: every port, as there)")
	flags.BoolVar(&options.Wider, "wider", false, "where a rule cannot be said exactly, take one that allows more, and say so")
	flags.StringVar(&options.format, "format", "yaml", "yaml, or json with every note")
	return cmd
}

// run reads, imports and prints.
func (o *importOptions) run(stdin io.Reader, stdout, stderr io.Writer, format, path string) error {
	usage := func(err error) error { return &exitError{exitUsage, err} }
	if o.format != "yaml" && o.format != "json" {
		return usage(fmt.Errorf("--format %s: formats are yaml and json", printable(o.format)))
	}
	if !slices.Contains(importers.Formats(), format) {
		mend := "formats are " + strings.Join(importers.Formats(), ", ")
		if near := diag.Nearest(format, importers.Formats()); near != "" {
			mend = fmt.Sprintf("did you mean %q?", near)
		}
		return usage(fmt.Errorf("no format %q; %s", printable(format), mend))
	}
	text, err := readForeign(stdin, path)
	if err != nil {
		return &exitError{exitFailed, err}
	}
	result, err := importers.Import(format, path, text, o.Options)
	var source *importers.SourceError
	if errors.As(err, &source) {
		if err := source.Report.WriteErrors(stderr); err != nil {
			return err
		}
		return usage(printedError{err})
	}
	if err != nil {
		return usage(err)
	}
	if o.format == "json" {
		err = printJSON(stdout, result)
	} else {
		_, err = io.WriteString(stdout, result.YAML)
	}
	if err != nil {
		return &exitError{exitFailed, err}
	}
	return tellImport(stderr, result)
}

// readForeign reads a file, or standard input.
func readForeign(stdin io.Reader, path string) ([]byte, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, importers.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", printable(path), err)
	}
	return text, nil
}

// maxImportRows bounds the table.
const maxImportRows = 50

// importRows gives a row for each note of what means something else here, and
// counts the rules.
func importRows(result *importers.Result) (rows []string, rules int) {
	add := func(line int, source string, notes []importers.Note) {
		for _, n := range notes {
			if n.Effect != importers.Same {
				rows = append(rows, fmt.Sprintf("%d\t%s\t%s\t%s\t%s", line, n.Effect, n.About, source, n.Text))
			}
		}
	}
	for i := range result.Pools {
		p := &result.Pools[i]
		add(0, "pool "+p.Name, p.Notes)
		for _, e := range slices.Concat(p.Presets, p.Allow, p.Deny) {
			rules += len(e.Rules)
			add(e.Line, e.Source, e.Notes)
		}
	}
	return rows, rules
}

// tellImport prints a table of what changed, and gives the error of what was
// left out.
func tellImport(stderr io.Writer, result *importers.Result) error {
	rows, rules := importRows(result)
	table := tabwriter.NewWriter(stderr, 0, 0, 2, ' ', 0)
	if len(rows) > 0 {
		fmt.Fprintln(table, "LINE\tMEANS\tABOUT\tSOURCE\tNOTE")
	}
	for _, row := range rows[:min(len(rows), maxImportRows)] {
		fmt.Fprintln(table, row)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if more := len(rows) - maxImportRows; more > 0 {
		fmt.Fprintf(stderr, "and %d more; --format json has them\n", more)
	}
	fmt.Fprintf(stderr, "%s, %s, %d left out; the pools have no sources yet, and sallyport check tells the rest\n", counted(len(result.Pools), "pool"), counted(rules, "line"), result.LeftOut)
	if result.LeftOut > 0 {
		return &exitError{exitFailed, nil}
	}
	return nil
}
