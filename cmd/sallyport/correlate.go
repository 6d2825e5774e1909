package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/alerting/hindsight"
)

// correlateOptions is what the command line says.
type correlateOptions struct {
	config, pool, format, zone, baseline string
	dns, proxy, formatOf, askers         []string
	resolvers                            []string
	skew, ttl                            time.Duration
	exitCode                             bool
}

// newCorrelate finds the alerts in logs of other programs.
func newCorrelate() *cobra.Command {
	var options correlateOptions
	cmd := &cobra.Command{
		Use:   "correlate --dns FILE... --proxy FILE...",
		Short: "Find the alerts in logs of other programs",
		Long: `Read logs of a resolver and of a proxy (or of Zeek, which sees both), join them by
client, name, address and time, and print the alerts that Sallyport would have
raised. Files may be packed with gzip, overlap, and be given in any order; "-" is
standard input. What each holds is found by its first lines: Zeek's dns, ssl, http
and conn logs (TSV, JSON), dnsmasq, Unbound, CoreDNS, Squid, Sallyport's own events.

With -c every record is judged by that policy, as the daemon would have. Without,
the refusals in the logs count, and everything else is held against the answers.

Alerts are JSON lines as in the event log, or a table on a terminal; what was read
and what could not be told goes to standard error. Exit code 0, 1 if a file cannot
be read or is no known log, 2 for a faulty command line or configuration; with
--exit-code 3 if there was an alert above info. docs/correlate.md has more.`,
		Example: "  sallyport correlate --dns /var/log/dnsmasq.log* --proxy /var/log/squid/access.log*\n" +
			"  sallyport correlate -c sallyport.yaml --dns dns.log --proxy ssl.log http.log conn.log\n" +
			"  zcat old/*.gz | sallyport correlate --dns - --proxy access.log --format table",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := untilInterrupted(cmd.Context())
			defer stop()
			return options.run(ctx, cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&options.dns, "dns", nil, "a log of a resolver; more may follow")
	flags.StringArrayVar(&options.proxy, "proxy", nil, "a log of a proxy, or of connections; more may follow")
	flags.StringVarP(&options.config, "config", "c", "", "the policy to judge by: a file, or a directory whose *.yaml are merged")
	flags.StringVar(&options.pool, "pool", "", "the pool of clients that no source of -c matches (default: those are left out); without -c of all (default \"default\")")
	flags.StringArrayVar(&options.formatOf, "format-of", nil, "FILE=FORMAT, where the first lines would mislead: "+formatNames())
	flags.StringVar(&options.format, "format", "", "table or json (default: table on a terminal, else json)")
	flags.DurationVar(&options.skew, "skew", 2*time.Second, "how far the clocks of the logs may differ: a connection this long before its answer still finds it")
	flags.DurationVar(&options.ttl, "ttl", time.Hour, "how long an answer counts where its log has no TTL; dns.book_grace is added")
	flags.StringVar(&options.zone, "zone", "Local", "the time zone of times without one: Local, UTC, Europe/Berlin")
	flags.StringArrayVar(&options.askers, "dns-client", nil, "ADDRESS that asks for others, as a proxy does: its answers count for every client; any: all answers do")
	flags.StringArrayVar(&options.resolvers, "resolver", nil, "ADDRESS of a resolver that may be asked: questions to others are foreign-resolver (Zeek only)")
	flags.StringVar(&options.baseline, "baseline", "", "a baseline to hold first-seen against (default: alerts.baseline.file of -c)")
	flags.BoolVar(&options.exitCode, "exit-code", false, "exit with 3 if there was an alert above info")
	return cmd
}

func formatNames() string {
	var names []string
	for _, f := range foreignlog.Formats() {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}

// run reads, joins and prints.
func (o *correlateOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	out, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	printer, err := newAlertPrinter(out, o.format)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	names := slices.Concat(o.dns, o.proxy, args)
	config, err := o.hindsight(stderr)
	if err != nil {
		return err
	}
	formats, zone, err := o.reading(names)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	if config.Sources, err = openLogs(names, formats, zone, cmd.InOrStdin(), stderr); err != nil {
		return err
	}
	tellLacks(stderr, config.Sources)
	found := alerting.Info
	var broken error
	config.Found = func(a alerting.Alert) {
		found = max(found, a.Severity)
		if err := printer.print(&a); err != nil && broken == nil {
			broken = err
		}
	}
	stop := showProgress(stderr, config.Sources)
	summary, err := hindsight.Run(ctx, config)
	stop()
	err = errors.Join(err, broken, printer.flush())
	tellSummary(stderr, config.Sources, &summary)
	switch {
	case err != nil:
		return &exitError{exitFailed, err}
	case o.exitCode && found > alerting.Info:
		return &exitError{exitDenied, nil}
	default:
		return nil
	}
}

// hindsight is the configuration of the run, but for its files.
func (o *correlateOptions) hindsight(stderr io.Writer) (hindsight.Config, error) {
	file, _, err := loadConfig(o.config, stderr)
	if err != nil {
		return hindsight.Config{}, err
	}
	config := hindsight.Config{
		Pool: o.pool, Alerts: file.Settings.Alerts, Skew: o.skew, TTL: o.ttl, MaxTTL: file.Settings.DNS.MaxTTL,
		Grace: file.Settings.DNS.BookGrace, Entries: file.Settings.Limits.BookEntries,
	}
	if o.config != "" {
		config.Policy, config.Search = file.Policy, file.Search
		if o.pool != "" && file.Policy.Pool(o.pool) == nil {
			_, _, err := choosePool(file.Policy, o.pool, "")
			return config, &exitError{exitUsage, err}
		}
	}
	if o.baseline != "" {
		config.Alerts.Baseline.File = o.baseline
	}
	if config.Alerts.Baseline.File != "" {
		config.Store = &alerting.MemoryStore{}
	}
	if o.skew < 0 || o.skew > time.Minute || o.ttl <= 0 {
		return config, &exitError{exitUsage, errors.New("--skew is from 0s to 1m, --ttl more than 0s")}
	}
	for _, text := range o.askers {
		if text == "any" {
			config.AnyAsker = true
			continue
		}
		if config.Askers, err = withAddress(config.Askers, "--dns-client", text); err != nil {
			return config, err
		}
	}
	for _, text := range o.resolvers {
		if config.Resolvers, err = withAddress(config.Resolvers, "--resolver", text); err != nil {
			return config, err
		}
	}
	return config, nil
}

// withAddress adds the address in a flag's text.
func withAddress(list []netip.Addr, flag, text string) ([]netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("%s %q is no address, such as 10.20.0.53", flag, printable(text))}
	}
	return append(list, addr.Unmap().WithZone("")), nil
}

// reading checks how files are to be read: the format of each that --format-of
// names, and the zone.
func (o *correlateOptions) reading(names []string) (map[string]*foreignlog.Format, *time.Location, error) {
	if len(names) == 0 {
		return nil, nil, errors.New("no log is given; name those of the resolver with --dns and those of the proxy with --proxy")
	}
	if n := slices.Index(names, "-"); n >= 0 && slices.Contains(names[n+1:], "-") {
		return nil, nil, errors.New("standard input can be read once only")
	}
	formats := make(map[string]*foreignlog.Format)
	for _, text := range o.formatOf {
		i := strings.LastIndexByte(text, '=')
		if i < 0 || !slices.Contains(names, text[:i]) {
			return nil, nil, fmt.Errorf("--format-of %s: say FILE=FORMAT of a file that is given", printable(text))
		}
		if formats[text[:i]] = foreignlog.FormatNamed(text[i+1:]); formats[text[:i]] == nil {
			return nil, nil, fmt.Errorf("--format-of %s: formats are %s", printable(text), formatNames())
		}
	}
	zone, err := time.LoadLocation(o.zone)
	if err != nil {
		return nil, nil, fmt.Errorf("--zone %q is unknown here; say Local, UTC or a name such as Europe/Berlin", printable(o.zone))
	}
	return formats, zone, nil
}
