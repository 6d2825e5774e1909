package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/allowlists"
	"sallyport/allowlists/diag"
)

// newCheck holds a configuration against the schema and the lint.
func newCheck() *cobra.Command {
	var config, format string
	var strict, defaults bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration: every error at once, or every warning",
		Long: `Check a configuration and print every error with its place, or, where there is
none, every warning. Exit code 0 if it can be used, 1 with --strict if there are
warnings, 2 if there are errors.`,
		Example: "  sallyport check -c sallyport.yaml\n  sallyport check --strict -c /etc/sallyport\n  sallyport check --defaults",
		Args:    configByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if defaults {
				return allowlists.WriteDefaults(out)
			}
			file, report, _, err := examine(config, nil)
			if err != nil {
				return err
			}
			if file != nil {
				checkLogPath(file, report)
			}
			switch format {
			case "text":
				err = printReport(out, cmd.ErrOrStderr(), file, report)
			case "json":
				err = printReportJSON(out, report)
			default:
				return unknownFormat(format)
			}
			return checkExit(report, strict, err)
		},
	}
	cmd.Flags().StringVarP(&config, "config", "c", "", "configuration: a file, or a directory whose *.yaml are merged")
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().BoolVar(&strict, "strict", false, "exit 1 if there are warnings")
	cmd.Flags().BoolVar(&defaults, "defaults", false, "print the whole schema with its defaults")
	return cmd
}

func checkExit(report *diag.Report, strict bool, err error) error {
	switch {
	case err != nil:
		return &exitError{exitFailed, err}
	case report.Failed():
		return &exitError{exitUsage, nil}
	case strict && len(report.Warnings()) > 0:
		return &exitError{exitFailed, nil}
	default:
		return nil
	}
}

// printReport writes the problems to stderr and, if there is no error, what
// was understood to out.
func printReport(out, stderr io.Writer, file *allowlists.File, report *diag.Report) error {
	if err := report.WriteErrors(stderr); err != nil {
		return err
	}
	if err := report.WriteWarnings(stderr); err != nil {
		return err
	}
	if file == nil {
		return nil
	}
	for _, pool := range file.Policy.Pools() {
		spec := pool.Spec()
		if _, err := fmt.Fprintf(out, "pool %s: %s, %d allow, %d deny, %d quiet rules\n", spec.Name, spec.Mode, len(spec.Allow), len(spec.Deny), len(spec.Quiet)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%s, no errors\n", counted(len(report.Warnings()), "warning"))
	return err
}

// counted is a number of things, in words: "no warnings", "1 warning".
func counted(n int, thing string) string {
	switch n {
	case 0:
		return "no " + thing + "s"
	case 1:
		return "1 " + thing
	default:
		return fmt.Sprintf("%d %ss", n, thing)
	}
}

// A problemJSON is one error or warning for a program to read.
type problemJSON struct {
	Severity string `json:"severity"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Col      int    `json:"col"`
	Text     string `json:"text"`
}

func printReportJSON(out io.Writer, report *diag.Report) error {
	problems := []problemJSON{}
	add := func(severity string, list []diag.Problem) {
		for _, p := range list {
			problems = append(problems, problemJSON{severity, p.Pos.File, p.Pos.Line, p.Pos.Col, p.Text})
		}
	}
	add("error", report.Errors())
	add("warning", report.Warnings())
	return printJSON(out, problems)
}
