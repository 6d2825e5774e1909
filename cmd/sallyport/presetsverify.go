package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/allowlists"
	"sallyport/allowlists/presets"
)

// verifyOptions are the flags of presets verify.
type verifyOptions struct {
	resolver, against, write, format string
	timeout                          time.Duration
}

// newPresetsVerify looks whether the hosts of presets are still there.
func newPresetsVerify() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [NAME...]",
		Short: "Look whether the hosts of the built-in allowlists are still there",
		Long: `Resolve each host of the presets (all, or those named), connect to each of its
ports, make a TLS handshake on 443 with the name checked, and follow where "/"
redirects to. Ask for the first byte of each download that a preset names, and
follow its redirects, ten at most, as far as the preset covers host and port.
Told are hosts and downloads that are dead, whose certificate is not theirs, that
redirect to a host which the preset does not have, with the line that would
cover it, to an address, or from HTTPS to plain HTTP, and, with --against the
JSON of an earlier run, that lead to another domain by CNAME than then. Patterns,
and presets that need a parameter, cannot be looked at, and are named.

--write DIR puts today's date behind verified in DIR/NAME.yaml, for each host
and download that is well; the rest of the file stays. Exit code 1 if one is not.
Where no host at all resolves, this machine is offline: that is said, with exit
code 1, and nothing is written.`,
		Example: `  sallyport presets verify npm pypi
  sallyport presets verify --format json > today.json
  sallyport presets verify --against last-month.json
  sallyport presets verify --write allowlists/presets/lists`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.format != "text" && o.format != "json" {
				return unknownFormat(o.format)
			}
			return o.verify(cmd, args)
		},
		ValidArgsFunction: func(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return presets.Names(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.resolver, "resolver", "", "resolver to ask, as ADDRESS:PORT, instead of the system's")
	flags.StringVar(&o.against, "against", "", "JSON of an earlier run, to compare with")
	flags.StringVar(&o.write, "write", "", "directory of preset files whose dates are brought up to date")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Second, "how long to wait for each host and download")
	flags.StringVar(&o.format, "format", "text", "text or json")
	return cmd
}

// A presetHost is one host or download of a preset, and how it does.
type presetHost struct {
	Preset   string   `json:"preset"`
	Host     string   `json:"host"`
	Ports    []uint16 `json:"ports"`
	Download string   `json:"download,omitempty"` // a URL at the host; "" for the host itself
	State    string   `json:"state"`              // ok, dead, certificate, redirected, moved, unchecked
	Detail   string   `json:"detail,omitempty"`   // in words
	// CNAME is the registrable domain that the name leads to, if that is another
	// than its own.
	CNAME    string `json:"cname,omitempty"`
	resolved bool
}

// what is the host, or the URL of the download.
func (h *presetHost) what() string {
	if h.Download != "" {
		return h.Download
	}
	return h.Host
}

// The states of a preset's host.
const (
	hostWell       = "ok"
	hostDead       = "dead"
	hostForged     = "certificate"
	hostRedirected = "redirected"
	hostMoved      = "moved"
	hostUnchecked  = "unchecked"
)

// errOffline says that nothing can be told from here.
var errOffline = errors.New("no host of any preset resolves: this machine is offline, or its resolver does not answer; nothing was changed")

// verify looks at every host, side by side, and prints what it saw.
func (o *verifyOptions) verify(cmd *cobra.Command, names []string) error {
	hosts, err := hostsToVerify(names)
	if err != nil {
		return err
	}
	before, err := readVerified(o.against)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	v := newHostVerifier(o.resolver, o.timeout)
	v.lookAtAll(cmd.Context(), hosts)
	offline, checked, bad := true, 0, 0
	for i := range hosts {
		h := &hosts[i]
		offline = offline && !h.resolved
		if last, ok := before[h.Preset+" "+h.what()]; ok && h.State == hostWell && last.State != hostUnchecked && last.CNAME != h.CNAME {
			h.State, h.Detail = hostMoved, fmt.Sprintf("leads to %s, and led to %s", orItself(h.CNAME), orItself(last.CNAME))
		}
		if h.State != hostUnchecked {
			checked++
		}
		if h.State != hostUnchecked && h.State != hostWell {
			bad++
		}
	}
	if checked > 0 && offline {
		return &exitError{exitFailed, errOffline}
	}
	if o.write != "" {
		if err := writeVerified(o.write, hosts, time.Now().UTC().Format(time.DateOnly)); err != nil {
			return &exitError{exitFailed, err}
		}
	}
	if o.format == "json" {
		err = printJSON(cmd.OutOrStdout(), hosts)
	} else {
		err = printVerified(cmd.OutOrStdout(), hosts, checked, bad)
	}
	if err == nil && bad > 0 {
		err = &exitError{code: exitFailed}
	}
	return err
}

func orItself(domain string) string {
	if domain == "" {
		return "no other domain"
	}
	return domain
}

// hostsToVerify lists the hosts of the presets, of all where none is named.
func hostsToVerify(names []string) ([]presetHost, error) {
	if len(names) == 0 {
		names = presets.Names()
	}
	lists := make(map[string]allowlists.PresetList)
	for _, list := range allowlists.PresetLists() {
		lists[list.Name] = list
	}
	var hosts []presetHost
	for _, name := range names {
		if _, ok := presets.Get(name); !ok {
			return nil, noPreset(name)
		}
		list, ok := lists[name]
		if !ok {
			hosts = append(hosts, presetHost{Preset: name, State: hostUnchecked, Detail: "it needs a parameter or a variable, or allows nothing"})
			continue
		}
		for i := range list.Allow {
			r := &list.Allow[i]
			h := presetHost{Preset: name, Host: r.Host.String(), Ports: r.Ports.List()}
			if r.Host.IsZero() || !r.Host.Exact() {
				h.State, h.Detail = hostUnchecked, "a pattern names no host"
				if r.Host.IsZero() {
					h.Host, h.Detail = r.Prefix.String(), "an address range names no host"
				}
			}
			hosts = append(hosts, h)
		}
		for _, u := range list.Downloads {
			hosts = append(hosts, presetHost{Preset: name, Host: u.Hostname(), Ports: []uint16{443}, Download: u.String()})
		}
	}
	return hosts, nil
}

// readVerified reads what an earlier run printed as JSON, by preset and host.
func readVerified(path string) (map[string]presetHost, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var hosts []presetHost
	if err := json.Unmarshal(text, &hosts); err != nil {
		return nil, fmt.Errorf("%s is no JSON of sallyport presets verify: %w", path, err)
	}
	before := make(map[string]presetHost)
	for _, h := range hosts {
		before[h.Preset+" "+h.what()] = h
	}
	return before, nil
}

// printVerified writes what is not well, and a sum.
func printVerified(w io.Writer, hosts []presetHost, checked, bad int) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	unchecked := 0
	for _, h := range hosts {
		switch h.State {
		case hostWell:
		case hostUnchecked:
			unchecked++
		default:
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", h.Preset, h.what(), h.State, printable(h.Detail))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d hosts and downloads looked at, %d not well; %d patterns and presets cannot be looked at\n", checked, bad, unchecked)
	return err
}

// writeVerified dates the hosts and downloads that are well in the preset files of a directory.
func writeVerified(dir string, hosts []presetHost, today string) error {
	well := make(map[string][]string)
	for _, h := range hosts {
		if h.State == hostWell {
			well[h.Preset] = append(well[h.Preset], h.what())
		}
	}
	for name, list := range well {
		path := filepath.Join(dir, name+".yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if dated := dateHosts(string(text), list, today); dated != string(text) {
			if err := amendFile(path, text, []byte(dated)); err != nil {
				return err
			}
		}
	}
	return nil
}

// dateHosts changes the verified line of each of the hosts and downloads that a
// preset's text has one for.
func dateHosts(text string, hosts []string, today string) string {
	lines := strings.SplitAfter(text, "\n")
	well := false
	for i, line := range lines {
		key, value, _ := strings.Cut(strings.TrimLeft(line, " -"), ":")
		value, _, _ = strings.Cut(strings.TrimSpace(value), " ") // a comment may follow
		if strings.HasPrefix(strings.TrimSpace(line), "- ") {
			name := strings.Trim(value, `"`)
			if key == "host" {
				name, _, _ = strings.Cut(name, ":")
			}
			well = (key == "host" || key == "url") && slices.Contains(hosts, name)
		}
		if well && key == "verified" {
			lines[i] = strings.Replace(line, value, today, 1)
		}
	}
	return strings.Join(lines, "")
}

// verifyAtOnce is how many hosts are looked at side by side.
const verifyAtOnce = 8

// lookAtAll fills in the state of each host that has none.
func (v *hostVerifier) lookAtAll(ctx context.Context, hosts []presetHost) {
	var wg sync.WaitGroup
	places := make(chan struct{}, verifyAtOnce)
	for i := range hosts {
		if hosts[i].State != "" {
			continue
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			v.lookAt(ctx, &hosts[i], coveredBy(hosts, hosts[i].Preset))
		})
	}
	wg.Wait()
}

// coveredBy says of a host and port whether a preset has them; of port 0, whether
// it has the host on any.
func coveredBy(hosts []presetHost, preset string) func(string, uint16) bool {
	type cover struct {
		pattern allowlists.Pattern
		ports   []uint16
	}
	var covers []cover
	for i := range hosts {
		if hosts[i].Preset != preset || hosts[i].Download != "" {
			continue
		}
		if p, err := allowlists.ParsePattern(hosts[i].Host); err == nil {
			covers = append(covers, cover{p, hosts[i].Ports})
		}
	}
	return func(name string, port uint16) bool {
		host, err := allowlists.ParseHost(name)
		return err == nil && slices.ContainsFunc(covers, func(c cover) bool {
			return c.pattern.Matches(host) && (port == 0 || slices.Contains(c.ports, port))
		})
	}
}

// resolverAt asks one resolver, or the system's where address is "".
func resolverAt(address string) *net.Resolver {
	if address == "" {
		return &net.Resolver{PreferGo: true}
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
}
