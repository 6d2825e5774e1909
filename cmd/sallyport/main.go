// Sallyport is the one guarded gate through which a CI job may go out: a DNS
// resolver and an HTTP CONNECT proxy that know one allowlist, and tell people
// when a job tries to leave by another way.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
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

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and gives the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return 0
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{exitUsage, err} // cobra's own: unknown command, flag or argument
	}
	if exit.err != nil {
		fmt.Fprintf(stderr, "sallyport: %v\n", exit.err)
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
	root.AddCommand(newRun(), newCheck(), newExplain(), newPresets(), newEnv(), newWaitReady(), newHealthcheck(), newVersion())
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  sallyport version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			goVersion := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "sallyport %s (%s)\n", version, goVersion)
			return err
		},
	}
}
