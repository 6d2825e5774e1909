package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/allowlists"
)

// An explanation is the way of one decision, for a person or a program.
type explanation struct {
	Pool     string `json:"pool"`
	Source   string `json:"source,omitempty"`
	Target   string `json:"target"`
	Mode     string `json:"mode"`
	Verdict  string `json:"verdict"`
	Reason   string `json:"reason"`
	Would    string `json:"would,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Where    string `json:"where,omitempty"`
	TLS      string `json:"tls,omitempty"`
	Refusal  string `json:"refusal,omitempty"`
	AllowBy  string `json:"allow_by,omitempty"`
	exitCode int
}

// newExplain tells what would become of a connection, and why.
func newExplain() *cobra.Command {
	var config, pool, client, format, events, control string
	cmd := &cobra.Command{
		Use:   "explain [HOST[:PORT] | ID]",
		Short: "Say what becomes of a destination, by which rule, and what would allow it",
		Long: `Say what becomes of a destination: which pool, which rule at file:line, what a
refusal looks like and which line would allow it. The port is 443 unless given.
An ID, as refusals and alerts show it, is looked up in --events FILE, or in the
running daemon through the control listener of -c. Exit code 0 if allowed, 3 if
refused.`,
		Example: "  sallyport explain -c sallyport.yaml --pool build registry.corp.example\n  sallyport explain --client 10.20.0.7 github.com:22\n  sallyport explain --events events.jsonl k3v9x2m4p7qa\n  sallyport explain -c sallyport.yaml k3v9x2m4p7qa",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("explain takes one HOST[:PORT] or ID, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return unknownFormat(format)
			}
			id := isEventID(args[0]) && pool == "" && client == ""
			if id && (events != "" || control != "") {
				return explainEvent(cmd.OutOrStdout(), args[0], format, eventSource{events: events, control: control})
			}
			file, _, err := loadConfig(config, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if id && file.Settings.Listen.Control != "" {
				source := eventSource{control: file.Settings.Listen.Control, tokenFile: file.Settings.Admin.TokenFile}
				return explainEvent(cmd.OutOrStdout(), args[0], format, source)
			}
			e, err := explain(file.Policy, pool, client, args[0])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if err := e.print(cmd.OutOrStdout(), format); err != nil {
				return &exitError{exitFailed, err}
			}
			if e.exitCode != 0 {
				return &exitError{e.exitCode, nil}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&config, "config", "c", "", "configuration: a file, or a directory whose *.yaml are merged")
	flags.StringVar(&pool, "pool", "", "the pool that asks")
	flags.StringVar(&client, "client", "", "the client address that asks, instead of --pool")
	flags.StringVar(&format, "format", "text", "text or json")
	flags.StringVar(&events, "events", "", "an event log to look an ID up in")
	flags.StringVar(&control, "control", "", "the daemon's control listener to look an ID up in: unix:/path")
	return cmd
}

// explain decides for a pool, named or found by a client's address.
func explain(policy *allowlists.Policy, poolName, client, destination string) (*explanation, error) {
	pool, source, err := choosePool(policy, poolName, client)
	if err != nil {
		return nil, err
	}
	e := &explanation{Pool: pool.Name(), Source: source, Target: destination, Mode: "enforce"}
	if pool != nil {
		e.Mode = pool.Spec().Mode.String()
	}
	target, err := allowlists.ParseTarget(bracketed(destination), 443)
	var denied *allowlists.DeniedError
	var d allowlists.Decision
	switch {
	case errors.As(err, &denied):
		d = denied.Decision
		e.Refusal = err.Error()
	case target.Addr.IsValid():
		e.Target = target.String()
		d = pool.DecideLiteral(target.Addr, target.Port, time.Now())
	default:
		e.Target = target.String()
		d = pool.DecideConn(target.Host, target.Port, time.Now())
	}
	e.fill(d, target)
	return e, nil
}

// bracketed puts the brackets around a bare IPv6 address that a person typed.
func bracketed(destination string) string {
	if addr, err := netip.ParseAddr(destination); err == nil && addr.Is6() {
		return "[" + destination + "]"
	}
	return destination
}

// choosePool finds the pool that asks: by name, by client, or the only one.
func choosePool(policy *allowlists.Policy, name, client string) (*allowlists.Pool, string, error) {
	if client != "" {
		addr, err := netip.ParseAddr(client)
		if err != nil {
			return nil, "", fmt.Errorf("--client: %w", err)
		}
		_, pool := policy.Subject(addr, "", "")
		source := policy.SourceOf(addr)
		if source == "" {
			source = "default_pool"
		}
		return pool, source, nil
	}
	var names []string
	for _, pool := range policy.Pools() {
		names = append(names, pool.Name())
	}
	if name == "" && len(names) == 1 {
		name = names[0]
	}
	if pool := policy.Pool(name); pool != nil {
		return pool, "", nil
	}
	return nil, "", fmt.Errorf("--pool %q is no pool; pools are %s", name, strings.Join(names, ", "))
}

func (e *explanation) fill(d allowlists.Decision, target allowlists.Target) {
	e.Verdict, e.Reason = d.Verdict.String(), d.Reason.String()
	if d.Reason == allowlists.AllowedByAudit {
		e.Would = d.Would.String()
	}
	if d.Rule != nil {
		e.Rule, e.Where = d.Rule.Text, d.Rule.Where()
	}
	if d.Allowed() {
		e.TLS = tlsText(d.Rule, target.Port)
		return
	}
	e.exitCode = exitDenied
	if status := d.Reason.Status(); status != 0 && e.Refusal == "" {
		e.Refusal = fmt.Sprintf("HTTP %d (%s), DNS refused", status, d.Reason)
	}
	switch d.Reason {
	case allowlists.NotInAllowlist, allowlists.PortNotAllowed, allowlists.ExpiredRule, allowlists.ResolverBypass:
		if !target.Host.IsZero() {
			e.AllowBy = allowlists.AllowLine(target.Host, target.Port)
			break
		}
		e.AllowBy = fmt.Sprintf("- {cidr: %s, ports: [%d]}", netip.PrefixFrom(target.Addr, target.Addr.BitLen()), target.Port)
	case allowlists.AddressLiteral, allowlists.SpecialAddress:
		e.AllowBy = fmt.Sprintf("- {cidr: %s, ports: [%d]}", netip.PrefixFrom(target.Addr, target.Addr.BitLen()), target.Port)
	}
}

func tlsText(rule *allowlists.Rule, port uint16) string {
	switch {
	case rule == nil || rule.Prefix.IsValid():
		return ""
	case rule.RequiresTLS(port):
		return "must begin with a ClientHello for this host"
	case port == 80:
		return "HTTP, each request judged"
	default:
		return "not looked into"
	}
}

func (e *explanation) print(w io.Writer, format string) error {
	if format == "json" {
		return printJSON(w, e)
	}
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-9s %s\n", name, value)
		}
	}
	pool := e.Pool
	if pool == "" {
		pool = "none admits this client"
	}
	if e.Source != "" {
		pool += " (by " + e.Source + ")"
	}
	line("target", printable(e.Target))
	line("pool", pool+", mode "+e.Mode)
	line("verdict", strings.TrimSpace(e.Verdict+" ("+e.Reason+")"))
	line("would", e.Would)
	line("rule", strings.TrimSpace(e.Rule+" "+atPlace(e.Where)))
	line("tls", e.TLS)
	line("refusal", e.Refusal)
	line("allow by", e.AllowBy)
	_, err := io.WriteString(w, b.String())
	return err
}

func atPlace(where string) string {
	if where == "" {
		return ""
	}
	return "at " + where
}

// printable keeps a terminal from acting on what a job chose.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, text)
}
