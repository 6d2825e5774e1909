// Sallyport is the one guarded gate through which a CI job may go out: a DNS
// resolver and an HTTP CONNECT proxy that know one allowlist, and tell people
// when a job tries to leave by another way.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log" //nolint:depguard // to silence it
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes, as DESIGN and every --help promise.
const (
	exitFailed = 1
	exitUsage  = 2
	exitDenied = 3
)

// version is set by the linker; see the Makefile.
var version = "dev"

// An exitError carries the exit code that its command ends with. A nil err
// means that everything was said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// A printedError was printed whole already, and only sums that up.
type printedError struct{ error }

func main() {
	// net/http writes what a peer sent to the standard logger; a peer could fill
	// our messages with it, and whatever matters is in a record of ours.
	log.SetOutput(io.Discard)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and gives the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var exit *exitError
	var file *fs.PathError
	switch {
	case errors.As(err, &exit):
	case errors.As(err, &file): // the output, on a disk that is full
		exit = &exitError{exitFailed, err}
	default: // cobra's own: unknown command, flag or argument
		exit = &exitError{exitUsage, fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	}
	var printed printedError
	if exit.err != nil && !errors.As(exit.err, &printed) {
		fmt.Fprintf(stderr, "sallyport: %s\n", inert(exit.err.Error()))
	}
	return exit.code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "The one guarded gate through which a CI job may go out",
		Long: `Sallyport is a DNS resolver and an HTTP CONNECT proxy in one binary. It stands
beside a CI runner, lets a job reach only what its pool's allowlist names, and
alerts people when a job tries anything else.`,
		Example:       "  sallyport run\n  curl -x http://127.0.0.1:3128 https://github.com",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.Version = version // for --version
	root.SetVersionTemplate(versionText())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.RunE = func(cmd *cobra.Command, _ []string) error { return wantsMore(cmd) }
	root.AddCommand(
		newRun(),
		newCheck(),
		newExplain(),
		newPresets(),
		newImport(),
		newAllow(),
		newBaseline(),
		newFirewall(),
		newCorrelate(),
		newReplay(),
		newSuggest(),
		newReport(),
		newDoctor(),
		newPage(),
		newEnv(),
		newWaitReady(),
		newHealthcheck(),
		newVersion(),
		newProbe(),
	)
	addExamples(root)
	wantSubcommands(root)
	return root
}

// legalValues says what flags take, by the type that pflag gives them.
var legalValues = map[string]string{
	"duration": "is no length of time; write a number with its unit, such as 500ms, 5s, 15m or 24h",
	"uint32":   "is no number of a user; write one such as 65532",
	"int":      "is no whole number; write one such as 2",
	"bool":     "is neither true nor false; write one of them",
}

// flagError says of a flag that does not fit what would, in no words of Go.
func flagError(err error) error {
	var wrong *pflag.InvalidValueError
	if !errors.As(err, &wrong) {
		return err
	}
	legal, ok := legalValues[wrong.GetFlag().Value.Type()]
	if !ok {
		return err
	}
	return fmt.Errorf("--%s %q %s", wrong.GetFlag().Name, printable(wrong.GetValue()), legal)
}

// wantSubcommands makes a command that only groups others refuse a word that is
// none of them, instead of showing its help as if all were well.
func wantSubcommands(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		if !cmd.HasSubCommands() || cmd.Runnable() {
			continue
		}
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return wantsMore(cmd)
			}
			var names []string
			for _, sub := range cmd.Commands() {
				names = append(names, sub.Name())
			}
			return fmt.Errorf("%s has no %q, only %s", cmd.CommandPath(), printable(args[0]), strings.Join(names, ", "))
		}
	}
}

// wantsMore is the end of a command line that names no command: its help, and
// the code of a wrong usage.
func wantsMore(cmd *cobra.Command) error {
	cmd.SetOut(cmd.ErrOrStderr())
	if err := cmd.Help(); err != nil {
		return err
	}
	return &exitError{code: exitUsage}
}

// configByFlag takes no argument, and tells who gives the configuration as one.
func configByFlag(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s takes no argument; for a configuration write %[1]s -c %s", cmd.CommandPath(), printable(args[0]))
}

// knownCommand takes the words of a command, as help does.
func knownCommand(cmd *cobra.Command, args []string) error {
	found, rest, err := cmd.Root().Find(args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%s has no %q", found.CommandPath(), printable(rest[0]))
	}
	return err
}

// addExamples completes the commands that cobra brings: every --help has one.
func addExamples(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("completion")
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Example = "  sallyport help explain"
			cmd.Args = knownCommand
		case "completion":
			cmd.Example = "  source <(sallyport completion bash)"
			for _, shell := range cmd.Commands() {
				shell.Example = "  sallyport completion " + shell.Name()
			}
		}
	}
}

// newVersion says what runs.
func newVersion() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  sallyport version\n  sallyport version --format json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			switch format {
			case "text":
				_, err := io.WriteString(out, versionText())
				return err
			case "json":
				return printJSON(out, map[string]string{"version": version, "go": runtime.Version()})
			default:
				return unknownFormat(format)
			}
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

// versionText is what version and --version print.
func versionText() string { return fmt.Sprintf("sallyport %s (%s)\n", version, runtime.Version()) }

// unknownFormat is the error of a --format that is neither text nor json.
func unknownFormat(format string) error {
	return &exitError{exitUsage, fmt.Errorf("--format %s: formats are text and json", format)}
}
