package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"sallyport/allowlists"
	"sallyport/proxy/firewall"
)

// doctorOptions is what the command line says.
type doctorOptions struct {
	enforcementFlags
	from, mode, config, format string
}

// newDoctor looks for the layer that is missing where it stands.
func newDoctor() *cobra.Command {
	var options doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say which layer of the enforcement is missing here, and what mends it",
		Long: `Look at every layer that makes Sallyport the only way out, from where doctor runs:
beside the daemon or on the gateway (--from daemon), or inside a job's container
(--from job). One line for each: OK, FAIL with what mends it, or SKIP with why it
cannot be seen from here. Nothing is changed; what is sent goes to addresses of a
documentation range. docs/doctor.md has every line.

Say the same --uid, --cgroup and --allow-input as to run and firewall. Exit code 0
if no layer fails, 1 if one does, 2 for a faulty configuration or command line.`,
		Example: "  sallyport doctor -c /etc/sallyport/sallyport.yaml\n" +
			"  sallyport doctor --from job --mode sidecar\n" +
			"  sallyport doctor --mode gateway -c /etc/sallyport/sallyport.yaml --format json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if options.format != "text" && options.format != "json" {
				return unknownFormat(options.format)
			}
			d, err := options.doctor(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return options.report(cmd.OutOrStdout(), d.examine())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.from, "from", "daemon", "where this runs: daemon (or on the gateway), or job")
	flags.StringVar(&options.mode, "mode", "", "sidecar, gateway or explicit; needed where the configuration does not say it")
	flags.StringVarP(&options.config, "config", "c", "", "configuration: a file, or a directory whose *.yaml are merged")
	flags.StringVar(&options.format, "format", "text", "text or json")
	options.addShared(cmd)
	return cmd
}

// explicitMode is the word for the mode that redirects nothing.
const explicitMode = "explicit"

// doctor reads the configuration; every error is one of usage.
func (o *doctorOptions) doctor(stderr io.Writer) (*doctor, error) {
	job := o.from == "job"
	switch {
	case o.from != "daemon" && !job:
		return nil, &exitError{exitUsage, fmt.Errorf("--from %s: doctor runs from daemon or from job", o.from)}
	case job && o.mode == "" && o.config == "":
		return nil, &exitError{exitUsage, errors.New("say --mode sidecar, gateway or explicit; inside a job there is no configuration to tell it by")}
	case o.mode != "" && o.mode != explicitMode:
		if _, err := firewall.ParseMode(o.mode); err != nil {
			return nil, &exitError{exitUsage, fmt.Errorf("--mode %s: modes are sidecar, gateway and explicit", o.mode)}
		}
	}
	file, _, err := loadConfig(o.config, stderr)
	if err != nil {
		return nil, err
	}
	d := newMachineDoctor()
	d.job, d.byUser, d.system = job, o.cgroup == "", slices.Contains(file.Settings.DNS.Upstreams, "system")
	if o.mode != explicitMode {
		d.mode = placementOf(firewall.Mode(o.mode), &file.Settings, file.Policy)
	}
	return d, o.plan(d, file)
}

// plan gives the doctor what the kernel should hold.
func (o *doctorOptions) plan(d *doctor, file *allowlists.File) (err error) {
	if d.mode == "" || d.job {
		return nil
	}
	if d.plan, err = planFor(d.mode, &file.Settings, file.Policy, &o.enforcementFlags); err != nil {
		return &exitError{exitUsage, err}
	}
	return nil
}

// A doctorLine is what was found of one layer.
type doctorLine struct {
	Layer string `json:"layer"`
	State string `json:"state"` // ok, fail, skip
	Text  string `json:"text"`
	Mend  string `json:"mend,omitempty"`
}

// report writes what was found, and gives its exit code.
func (o *doctorOptions) report(w io.Writer, lines []doctorLine) error {
	var err error
	if o.format == "json" {
		err = printJSON(w, lines)
	} else {
		_, err = io.WriteString(w, doctorText(lines, coloured(w)))
	}
	switch {
	case err != nil:
		return &exitError{exitFailed, err}
	case slices.ContainsFunc(lines, func(l doctorLine) bool { return l.State == stateFail }):
		return &exitError{exitFailed, nil}
	default:
		return nil
	}
}

// coloured reports whether colours are welcome: on a terminal, unless NO_COLOR
// (no-color.org) says otherwise.
func coloured(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// stateColours are the SGR parameters of ECMA-48.
var stateColours = map[string]string{stateOK: "32", stateFail: "1;31", stateSkip: "33"}

// doctorText is one line for each layer, with its mend below it, and a sum.
func doctorText(lines []doctorLine, colours bool) string {
	var b strings.Builder
	count := map[string]int{}
	for _, l := range lines {
		count[l.State]++
		state := fmt.Sprintf("%-4s", strings.ToUpper(l.State))
		if colours {
			state = "\x1b[" + stateColours[l.State] + "m" + state + "\x1b[0m"
		}
		fmt.Fprintf(&b, "%s  %-11s  %s\n", state, l.Layer, steady(l.Text))
		if l.Mend != "" {
			fmt.Fprintf(&b, "%19smend: %s\n", "", steady(l.Mend))
		}
	}
	fmt.Fprintf(&b, "%d fine, %d failed, %d skipped\n", count[stateOK], count[stateFail], count[stateSkip])
	return b.String()
}

// steady keeps what others named, such as tables, from steering a terminal.
func steady(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}
