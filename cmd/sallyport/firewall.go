package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"sallyport/proxy/firewall"
)

// appliedTables is the plan that this daemon put into the kernel.
type appliedTables struct {
	mu   sync.Mutex
	plan *firewall.Plan // nil: none was
}

// applyFirewall puts the tables of this daemon's placement into the kernel, if
// the command line asks for it.
func (d *daemon) applyFirewall() error {
	if d.options.firewall == "" {
		return nil
	}
	_, err := d.reapplyFirewall()
	return err
}

// reapplyFirewall puts the tables into the kernel if a reload has changed what
// they should be, and says whether it did. A daemon that was started without
// --firewall leaves them to whoever applied them. It needs NET_ADMIN.
func (d *daemon) reapplyFirewall() (changed bool, err error) {
	if d.options.firewall == "" {
		return false, nil
	}
	plan, err := d.firewallPlan()
	if err != nil {
		return false, fmt.Errorf("planning the firewall: %w", err)
	}
	d.tables.mu.Lock()
	defer d.tables.mu.Unlock()
	if d.tables.plan != nil {
		// Devices that have come since are of containers inside a sidecar's
		// namespace: their packets are taken as they come in.
		plan.Devices = d.tables.plan.Devices
	}
	if reflect.DeepEqual(plan, d.tables.plan) {
		return false, nil
	}
	if err := firewall.Apply(plan); err != nil {
		return false, fmt.Errorf("applying the firewall: %w", err)
	}
	d.tables.plan = plan
	d.log.Info().Msg("firewall applied: " + describePlan(plan))
	for _, way := range plan.Ways {
		if plan.Mode == firewall.Gateway && len(way.Interfaces) == 0 {
			d.log.Warn().Str("pool", way.Pool).Msg("this pool of a gateway has sources and no interfaces: nothing is routed for anybody, and its machines are judged only as far as they keep their addresses; name the interfaces they come in by")
		}
	}
	return true, nil
}

// firewallPlan is what the kernel should hold for this daemon.
func (d *daemon) firewallPlan() (*firewall.Plan, error) {
	if d.placement == "" {
		return nil, errors.New("explicit mode has no firewall of ours")
	}
	return planFor(d.placement, &d.settings, d.policy.Load(), &d.options.enforcementFlags)
}

// firewallOptions is what the command line says to every firewall command.
type firewallOptions struct {
	enforcementFlags
	mode, config, format string
	control              string // of a daemon to ask, where the tables cannot be read
}

// newFirewall is the group of commands on the kernel's tables.
func newFirewall() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "firewall",
		Short: "Show, apply, check or remove the nftables tables that shut every other way out",
		Long: `The tables inet sallyport and netdev sallyport take a job's TCP and DNS to
Sallyport and refuse everything else. They stay when Sallyport ends, however it
ends; only "firewall remove" opens the way. No nft program is needed.

A sidecar shares its network namespace with the job and is let out by its user
(--uid) or its cgroup (--cgroup). A gateway routes for the pools' interfaces and
sources. Say the same --uid, --cgroup and --allow-input to every command and to run.`,
		Example: "  sallyport firewall print --mode sidecar -c sallyport.yaml | less\n  sallyport firewall apply --mode gateway -c sallyport.yaml --allow-input dhcp,ntp\n  sallyport firewall status --mode gateway -c sallyport.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &exitError{exitUsage, errors.New("say print, apply, status or remove; see sallyport firewall --help")}
		},
	}
	cmd.AddCommand(newFirewallPrint(), newFirewallApply(), newFirewallStatus(), newFirewallRemove())
	return cmd
}

func (o *firewallOptions) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.mode, "mode", "", "sidecar or gateway; needed unless the configuration says it by a transparent listener or interfaces")
	cmd.Flags().StringVarP(&o.config, "config", "c", "", "configuration: a file, or a directory whose *.yaml are merged")
	o.addShared(cmd)
}

// plan is that of the configuration; every error is one of usage.
func (o *firewallOptions) plan(stderr io.Writer) (*firewall.Plan, error) {
	file, _, err := loadConfig(o.config, stderr)
	if err != nil {
		return nil, err
	}
	mode := placementOf(firewall.Mode(o.mode), &file.Settings, file.Policy)
	if mode == "" {
		return nil, &exitError{exitUsage, errors.New("say --mode sidecar or --mode gateway; the configuration has no transparent listener to tell it by")}
	}
	if _, err := firewall.ParseMode(string(mode)); err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("--mode: %w", err)}
	}
	plan, err := planFor(mode, &file.Settings, file.Policy, &o.enforcementFlags)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return plan, nil
}

func newFirewallPrint() *cobra.Command {
	var options firewallOptions
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print exactly what apply loads, as nft -f takes it",
		Example: "  sallyport firewall print --mode sidecar -c sallyport.yaml\n" +
			"  sallyport firewall print --mode gateway -c sallyport.yaml | nft --check -f -",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan, err := options.plan(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), firewall.Text(plan))
			return err
		},
	}
	options.add(cmd)
	return cmd
}

func newFirewallApply() *cobra.Command {
	var options firewallOptions
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Put the tables into the kernel, in place of what is there",
		Long: `Put the tables into the kernel in one transaction, in place of what is there:
whatever happens, the old ones or the new ones hold, never a part. Needs the
capability NET_ADMIN. Exit code 0 if they are in place, 1 if not, 2 for a faulty
configuration or command line.`,
		Example: "  sallyport firewall apply --mode sidecar -c /etc/sallyport/sallyport.yaml --uid 65532\n" +
			"  sallyport firewall apply --mode gateway -c /etc/sallyport/sallyport.yaml --allow-input dhcp",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan, err := options.plan(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if err := firewall.Apply(plan); err != nil {
				return &exitError{exitFailed, fmt.Errorf("applying the firewall: %w", err)}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "applied: %s\n", describePlan(plan))
			return err
		},
	}
	options.add(cmd)
	return cmd
}

func newFirewallRemove() *cobra.Command {
	var options firewallOptions
	cmd := &cobra.Command{
		Use:     "remove",
		Short:   "Take the tables out of the kernel: this opens the way",
		Example: "  sallyport firewall remove",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := firewall.Remove(); err != nil {
				return &exitError{exitFailed, fmt.Errorf("removing the firewall: %w", err)}
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "removed: nothing of ours holds traffic any more")
			return err
		},
	}
	// Both modes have the same tables; the flags are taken so that the same
	// command line works with every word.
	options.add(cmd)
	return cmd
}

// A tableState is what was found in the kernel.
type tableState struct {
	Mode    firewall.Mode `json:"mode"`
	State   string        `json:"state"` // in-place, not-in-place, unknown
	By      string        `json:"by"`    // how it was measured: table; by the daemon: table, probe; or none
	Faults  []string      `json:"faults"`
	Unknown string        `json:"unknown,omitempty"` // why nothing could be measured
	Daemon  bool          `json:"daemon"`            // the daemon measured, not this command
}

// The states.
const (
	tableInPlace    = "in-place"
	tableNotInPlace = "not-in-place"
	tableUnknown    = "unknown"
)

// stateOf compares the kernel with a plan.
func stateOf(plan *firewall.Plan) tableState {
	found, err := firewall.Compare(plan)
	s := tableState{Mode: plan.Mode, State: tableInPlace, By: "table", Faults: append([]string{}, found...)}
	switch {
	case errors.Is(err, fs.ErrPermission):
		s.State, s.By, s.Unknown = tableUnknown, "none", "reading the tables needs the capability NET_ADMIN"
	case err != nil:
		s.State, s.By, s.Unknown = tableUnknown, "none", err.Error()
	case len(found) > 0:
		s.State = tableNotInPlace
	}
	return s
}

func newFirewallStatus() *cobra.Command {
	var options firewallOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether the kernel holds exactly the tables of the configuration",
		Long: `Compare the kernel's tables with those of the configuration and say every
difference. That takes the capability NET_ADMIN; without it, the daemon is asked what
it measured, at --control or the configuration's listen.control. The answer says how it
was measured. Exit code 0 if they are in place, 1 if not or if that cannot be seen, 2
for a faulty configuration or command line.`,
		Example: "  sallyport firewall status --mode sidecar -c /etc/sallyport/sallyport.yaml\n" +
			"  sallyport firewall status --mode gateway -c /etc/sallyport/sallyport.yaml --format json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if options.format != "text" && options.format != "json" {
				return unknownFormat(options.format)
			}
			plan, err := options.plan(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			state := stateOf(plan)
			if state.State == tableUnknown {
				options.askDaemon(&state)
			}
			return options.report(cmd.OutOrStdout(), state)
		},
	}
	options.add(cmd)
	cmd.Flags().StringVar(&options.format, "format", "text", "text or json")
	cmd.Flags().StringVar(&options.control, "control", "", "control listener of a running daemon, as listen.control; by default that of the configuration")
	return cmd
}

// askDaemon takes the daemon's measurement where this command may not measure.
func (o *firewallOptions) askDaemon(s *tableState) {
	client := controlClient{address: o.control}
	if file, _, err := loadConfig(o.config, io.Discard); err == nil && client.address == "" {
		client = controlClient{file.Settings.Listen.Control, file.Settings.Admin.TokenFile}
	}
	if client.address == "" {
		s.Unknown += ", and there is no control listener to ask the daemon at"
		return
	}
	var answer struct {
		Enforced measurement `json:"enforced"`
	}
	if err := client.get("/api/v1/status", &answer); err != nil {
		s.Unknown += "; " + err.Error()
		return
	}
	m := answer.Enforced
	s.State, s.By, s.Faults, s.Daemon = m.State, m.By, m.Faults, true
	if s.Unknown = ""; m.State == tableUnknown {
		s.Unknown = strings.Join(m.Faults, "; ")
	}
}

// report writes a state, and gives its exit code.
func (o *firewallOptions) report(w io.Writer, s tableState) error {
	var err error
	if o.format == "json" {
		err = printJSON(w, s)
	} else {
		_, err = io.WriteString(w, s.text())
	}
	switch {
	case err != nil:
		return &exitError{exitFailed, err}
	case s.State != tableInPlace:
		return &exitError{exitFailed, nil}
	default:
		return nil
	}
}

func (s *tableState) text() string {
	switch {
	case s.State == tableInPlace && s.Daemon:
		return fmt.Sprintf("in place: measured by the daemon, by %s\n", s.By)
	case s.State == tableUnknown && s.Daemon:
		return fmt.Sprintf("not known to the daemon: %s\n", s.Unknown)
	}
	switch s.State {
	case tableInPlace:
		return fmt.Sprintf("in place: the kernel's tables are those of this %s\n", s.Mode)
	case tableUnknown:
		return fmt.Sprintf("not known: %s\n", s.Unknown)
	default:
		return fmt.Sprintf("not in place: %s\n  %s\n", counted(len(s.Faults), "difference"), strings.Join(s.Faults, "\n  "))
	}
}
