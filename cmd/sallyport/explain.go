package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/allowlists"
)

// An explanation is the way of one decision, for a person or a program.
type explanation struct {
	Pool     string       `json:"pool"`
	Source   string       `json:"source,omitempty"`
	Target   string       `json:"target"`
	Mode     string       `json:"mode"`
	Verdict  string       `json:"verdict"`
	Reason   string       `json:"reason"`
	Would    string       `json:"would,omitempty"`
	Rule     string       `json:"rule,omitempty"`
	Where    string       `json:"where,omitempty"`
	Expired  string       `json:"expired,omitempty"` // the day at whose 00:00 UTC the rule ended
	Owner    string       `json:"owner,omitempty"`   // of the rule that ended
	DNS      *nameVerdict `json:"dns,omitempty"`     // nil where there is no name to ask for
	TLS      string       `json:"tls,omitempty"`
	Refusal  string       `json:"refusal,omitempty"`
	Quiet    string       `json:"quiet,omitempty"` // the line of the quiet list, by which no denied-egress is raised
	AllowBy  string       `json:"allow_by,omitempty"`
	Caution  string       `json:"caution,omitempty"` // why no line is given
	fromURL  bool
	exitCode int
}

// A nameVerdict is what becomes of a question for the addresses of the host,
// which knows no port.
type nameVerdict struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Would   string `json:"would,omitempty"`
	Answer  string `json:"answer,omitempty"` // to a refused one: NXDOMAIN or REFUSED
}

// explainFlags say what is asked, of whom.
type explainFlags struct{ config, pool, client, format, events, control string }

// newExplain tells what would become of a connection, and why.
func newExplain() *cobra.Command {
	var asked explainFlags
	cmd := &cobra.Command{
		Use:   "explain [HOST[:PORT] | ID]",
		Short: "Say what becomes of a destination, by which rule, and what would allow it",
		Long: `Say what becomes of a connection to a destination: which pool, which rule at
file:line, what a refusal looks like and which line would allow it; and what
becomes of a DNS question for it. The port is 443 unless given; of a URL, host
and port are taken. What sallyport allow granted counts, where alerts.state_dir
of the configuration has it and can be read.
An ID, as refusals, alerts and reports show it, is looked up in --events FILE
(packed with gzip or not); with -c in the log that it names, if that can be read
here, else in the running daemon, as with --control. Shown is its whole story:
question and answer, connection, verdict, rule at file:line, alerts, and the line
that would allow it. Exit code 0 if the connection is allowed, 3 if it is refused.`,
		Example: "  sallyport explain -c sallyport.yaml --pool build registry.corp.example\n  sallyport explain --client 10.20.0.7 github.com:22\n  sallyport explain --events events.jsonl k3v9x2m4p7qa\n  sallyport explain -c sallyport.yaml k3v9x2m4p7qa",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("explain takes one HOST[:PORT] or ID, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return asked.run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&asked.config, "config", "c", "", "configuration: a file, or a directory whose *.yaml are merged")
	flags.StringVar(&asked.pool, "pool", "", "the pool that asks")
	flags.StringVar(&asked.client, "client", "", "the client address that asks, instead of --pool")
	flags.StringVar(&asked.format, "format", "text", "text or json")
	flags.StringVar(&asked.events, "events", "", "an event log to look an ID up in")
	flags.StringVar(&asked.control, "control", "", "the daemon's control listener to look an ID up in: unix:/path")
	return cmd
}

// run looks up what is an id, and decides about what is a destination.
func (f *explainFlags) run(cmd *cobra.Command, what string) error {
	if f.format != "text" && f.format != "json" {
		return unknownFormat(f.format)
	}
	id := allowlists.IsID(what) && f.pool == "" && f.client == ""
	switch asked := f.events != "" || f.control != ""; {
	case id && asked:
		return explainEvent(cmd.OutOrStdout(), what, f.format, eventSource{events: f.events, control: f.control})
	case asked:
		return &exitError{exitUsage, fmt.Errorf("--events and --control look an id up, such as k3v9x2m4p7qa, without --pool and --client; %q is no id", what)}
	}
	file, _, err := loadConfig(f.config, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if id && file.Settings.Listen.Control != "" {
		source := eventSource{control: file.Settings.Listen.Control, tokenFile: file.Settings.Admin.TokenFile, log: ownLog(file.Settings.Log.Events)}
		return explainEvent(cmd.OutOrStdout(), what, f.format, source)
	}
	if id {
		why := "no -c says which daemon to ask; add -c FILE (its configuration, with listen.control),"
		if f.config != "" {
			why = "the configuration names no listen.control to ask; add"
		}
		return &exitError{exitUsage, fmt.Errorf("%s has the form of an id, and %s --events FILE (a log) or --control unix:/path (the daemon), or, if it is a host, its port: %[1]s:443", what, why)}
	}
	if err := addKeptGrants(file, time.Now()); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "what sallyport allow granted is left out here; run this as the daemon's user to count it: %v\n", err)
	}
	e, err := explain(file, f.pool, f.client, what)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	if err := e.print(cmd.OutOrStdout(), f.format); err != nil {
		return &exitError{exitFailed, err}
	}
	if e.exitCode != 0 {
		return &exitError{e.exitCode, nil}
	}
	return nil
}

// explain decides for a pool, named or found by a client's address.
func explain(file *allowlists.File, poolName, client, destination string) (*explanation, error) {
	pool, source, err := choosePool(file.Policy, poolName, client)
	if err != nil {
		return nil, err
	}
	destination, fromURL, err := destinationOf(destination)
	if err != nil {
		return nil, err
	}
	e := &explanation{Pool: pool.Name(), Source: source, Target: destination, Mode: "enforce", fromURL: fromURL}
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
		e.DNS = explainName(pool.DecideName(target.Host, time.Now()), file.Settings.DNS.BlockedReply)
	}
	e.fill(d, target)
	return e, nil
}

// explainName is the verdict on a question; blocked is the answer that refused
// ones get.
func explainName(d allowlists.Decision, blocked string) *nameVerdict {
	v := &nameVerdict{Verdict: d.Verdict.String(), Reason: d.Reason.String()}
	switch {
	case d.Reason == allowlists.AllowedByAudit:
		v.Would = d.Would.String()
	case d.Allowed():
	case d.Reason == allowlists.NoPool:
		v.Answer = "REFUSED"
	default:
		v.Answer = strings.ToUpper(blocked)
	}
	return v
}

// text is the verdict in one line.
func (v *nameVerdict) text() string {
	if v == nil {
		return ""
	}
	text := v.Verdict + " (" + v.Reason + ")"
	if v.Would != "" {
		text += ", would be " + v.Would
	}
	if v.Answer != "" {
		text += ", answered " + v.Answer
	}
	return text
}

// urlPorts are the schemes of URLs whose host explain takes.
var urlPorts = map[string]string{"https": "443", "http": "80"}

// destinationOf gives HOST[:PORT] of an argument, which may be a web address
// that a person copied.
func destinationOf(text string) (destination string, fromURL bool, err error) {
	if !strings.ContainsRune(text, '/') {
		return text, false, nil
	}
	u, err := url.Parse(text)
	if err != nil || urlPorts[u.Scheme] == "" || u.Host == "" {
		return "", false, fmt.Errorf("explain takes HOST[:PORT], such as git.corp.example:22, not %q", printable(text))
	}
	if u.Port() == "" {
		return strings.TrimSuffix(u.Host, ":") + ":" + urlPorts[u.Scheme], true, nil
	}
	return u.Host, true, nil
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
			return nil, "", fmt.Errorf("--client %q is no address; give that of a runner, such as 10.20.0.7", printable(client))
		}
		_, pool := policy.Subject(addr, "", "")
		source := policy.SourceOf(addr)
		if source == "" && pool != nil {
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
	switch {
	case len(names) == 0:
		return nil, "", errors.New("the configuration has no pool, so that every client is refused")
	case name == "":
		return nil, "", fmt.Errorf("which pool asks? say --pool NAME, or --client ADDRESS; pools are %s", strings.Join(names, ", "))
	default:
		return nil, "", fmt.Errorf("--pool %q is no pool; pools are %s", name, strings.Join(names, ", "))
	}
}

func (e *explanation) fill(d allowlists.Decision, target allowlists.Target) {
	e.Verdict, e.Reason = d.Verdict.String(), d.Reason.String()
	if d.Reason == allowlists.AllowedByAudit {
		e.Would = d.Would.String()
	}
	if d.Rule != nil {
		e.Rule, e.Where = d.Rule.Text, d.Rule.Where()
	}
	if d.Cause() == allowlists.ExpiredRule && d.Rule != nil {
		e.Expired, e.Owner = d.Rule.Expires.Format(time.DateOnly), d.Rule.Owner
	}
	if d.Allowed() {
		e.TLS = tlsText(d.Rule, target.Port)
		return
	}
	e.exitCode = exitDenied
	e.Quiet = quietText(d.QuietBy)
	if status := d.Reason.Status(); status != 0 && e.Refusal == "" {
		e.Refusal = fmt.Sprintf("HTTP %d (%s)", status, d.Reason)
	}
	switch d.Reason {
	case allowlists.NotInAllowlist, allowlists.PortNotAllowed, allowlists.ResolverBypass:
		if !target.Host.IsZero() {
			e.AllowBy = allowlists.AllowLine(target.Host, target.Port)
			break
		}
		e.AllowBy = allowlists.AllowAddrLine(target.Addr, target.Port)
	case allowlists.AddressLiteral, allowlists.SpecialAddress:
		e.AllowBy = allowlists.AllowAddrLine(target.Addr, target.Port)
	}
	if allowlists.IsMetadata(target.Addr) {
		e.Caution = "a cloud gives its credentials to whoever reaches this address, so no line is suggested; a cidr rule of exactly this address would open it, and is rarely meant"
	}
}

// quietText is where a line of a quiet list stands.
func quietText(rule *allowlists.Rule) string {
	if where, builtin := rule.BuiltinQuiet(); builtin {
		return "built in (" + where + ")"
	}
	return rule.Where()
}

// expiredText says until when a rule held, and whom to ask.
func (e *explanation) expiredText() string {
	switch {
	case e.Expired == "":
		return ""
	case e.Owner == "":
		return e.Expired + " at 00:00 UTC; ask who wrote the rule for a later day"
	default:
		return e.Expired + " at 00:00 UTC; ask its owner, " + printable(e.Owner) + ", for a later day"
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
	pool := e.Pool + ", mode " + e.Mode
	if e.Source != "" {
		pool = e.Pool + " (by " + e.Source + "), mode " + e.Mode
	}
	if e.Pool == "" {
		pool = "none admits this client; add it to the sources of one"
	}
	target := printable(e.Target)
	if e.fromURL {
		target += " (of the URL)"
	}
	line("target", target)
	line("pool", pool)
	line("verdict", strings.TrimSpace(e.Verdict+" ("+e.Reason+")"))
	line("would", e.Would)
	line("rule", strings.TrimSpace(e.Rule+" "+atPlace(e.Where)))
	line("expired", e.expiredText())
	line("dns", e.DNS.text())
	line("tls", e.TLS)
	line("refusal", e.Refusal)
	if e.Quiet != "" {
		line("quiet", e.Quiet+": no denied-egress alert")
	}
	line("allow by", e.AllowBy)
	line("caution", e.Caution)
	_, err := io.WriteString(w, b.String())
	return err
}

func atPlace(where string) string {
	if where == "" {
		return ""
	}
	return "at " + where
}
