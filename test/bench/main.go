//go:build linux

// Bench measures Sallyport beside its peers on this machine, over loopback
// only. The load and the servers' origins run on all cores but the last, what
// is measured runs on the last. See docs/performance.md.
//
//	bench [flags]         measures, and prints tables
//	bench origin|relay|authority [flags]   one of the servers that it starts
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are what a user may choose.
type options struct {
	binary   string
	other    string // another program of Sallyport's, to compare; empty is none
	tests    string // names of figures, with commas; empty is all but the long ones
	subjects string // names, with commas; empty is each figure's own
	rounds   int
	length   time.Duration // of one timed repetition
	bound    time.Duration // of everything
	idle     int           // tunnels of the figure idle
	many     int           // rules of the figures about many rules
	out      string        // JSON lines, one a sample
	from     string        // JSON lines to report again instead of measuring
	svg      string
	document string // Markdown whose results are replaced
	keep     bool   // the directory of configurations and logs
	small    bool   // tiny counts, to see that everything works
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "origin":
			return originMain(args[1:])
		case "relay":
			return relayMain(args[1:])
		case "authority":
			return authorityMain(args[1:])
		}
	}
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil // it was printed
	}
	if err != nil {
		return err
	}
	if o.from != "" {
		samples, about, err := readSamples(o.from)
		if err != nil {
			return err
		}
		return report(o, about, samples)
	}
	if err := pin(loadCores()); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.bound)
	defer cancel()
	return measure(ctx, o)
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: bench [flags]; the figures are:")
		for _, f := range figures {
			fmt.Fprintf(flags.Output(), "  %-13s %s (%s)\n", f.name, f.title, strings.Join(f.subjects, ","))
		}
		flags.PrintDefaults()
	}
	flags.StringVar(&o.binary, "binary", "./sallyport", "Sallyport's program")
	flags.StringVar(&o.other, "other", "", "another program of Sallyport's, which takes its turns as sallyport-other")
	flags.StringVar(&o.tests, "tests", "", "figures or groups, with commas between them (default all but many-idle)")
	flags.StringVar(&o.subjects, "subjects", "", "subjects, with commas between them (default each figure's own)")
	flags.IntVar(&o.rounds, "rounds", 5, "interleaved rounds")
	flags.DurationVar(&o.length, "length", 700*time.Millisecond, "length of a timed repetition")
	flags.DurationVar(&o.bound, "bound", 10*time.Minute, "end of everything; figures that do not fit are left out")
	flags.IntVar(&o.idle, "idle", 2000, "tunnels of the figure idle")
	flags.IntVar(&o.many, "many", 100000, "rules of the figures about many rules")
	flags.StringVar(&o.out, "o", "", "file for the samples, as JSON lines")
	flags.StringVar(&o.from, "from", "", "report the samples of this file instead of measuring")
	flags.StringVar(&o.svg, "svg", "", "file for the plot")
	flags.StringVar(&o.document, "document", "", "Markdown file whose results are replaced")
	flags.BoolVar(&o.keep, "keep", false, "keep the directory of configurations and logs")
	flags.BoolVar(&o.small, "small", false, "tiny counts: shows that everything works, measures nothing")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag; see -help", flags.Arg(0))
	}
	if _, err := chosen(o.tests); err != nil {
		return o, err
	}
	if o.small {
		o.rounds, o.length, o.idle, o.many = 2, 50*time.Millisecond, 20, 2000
	}
	return o, nil
}

// subjectCore is the core of what is measured: the last one, as counted before
// this program was pinned.
func subjectCore() string {
	if core := os.Getenv(pinnedMark); core != "" {
		return core
	}
	return strconv.Itoa(runtime.NumCPU() - 1)
}

// loadCores are the cores of the load and of all servers that are no subject.
// On a machine with one core both share it, and figures mean little.
func loadCores() string {
	if runtime.NumCPU() < 3 {
		return "0"
	}
	return fmt.Sprintf("0-%d", runtime.NumCPU()-2)
}

// pinnedMark keeps a pinned process from pinning itself again; it holds the
// subjects' core.
const pinnedMark = "SALLYPORT_BENCH_PINNED"

// pin starts this program again on the given cores, as each thread has its own
// affinity and the runtime has threads already.
func pin(cores string) error {
	if os.Getenv(pinnedMark) != "" {
		return nil
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return fmt.Errorf("pinning: %w; it is part of util-linux", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	self, err = filepath.EvalSymlinks(self)
	if err != nil {
		return err
	}
	env := append(os.Environ(), pinnedMark+"="+subjectCore())
	return syscall.Exec(taskset, append([]string{"taskset", "-c", cores, self}, os.Args[1:]...), env)
}
