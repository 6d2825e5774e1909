package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"

	"sallyport/alerting"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
)

// The states of a daemon; only stateReady takes new work.
const (
	stateStarting int32 = iota
	stateReady
	stateStopping
)

// A daemon is every part of a running Sallyport, wired together.
type daemon struct {
	options  runOptions
	log      zerolog.Logger
	file     *allowlists.File // as at the start, without its policy: what needs a restart is compared with it
	settings allowlists.Settings
	policy   atomic.Pointer[allowlists.Policy]
	grants   grants
	state    atomic.Int32
	began    time.Time              // when this was made
	sources  atomic.Pointer[string] // digest of the configuration that was read last, or of why it could not be
	own      ownAddrs
	// placement is where the daemon stands; a reload does not move it.
	placement   placement
	privileges  privileges // after the start
	leftRoot    bool       // it was started as root, and is another user now
	enforcement enforcement
	tables      appliedTables
	packets     packets
	machines    *machines
	metrics     *daemonMetrics
	registry    *prometheus.Registry

	alerts *alerting.Alerting
	dns    *dnsfilter.Server
	proxy  *proxy.Server
	http   []httpListener
}

// newDaemon loads the configuration and makes every part, without binding
// anything. A faulty configuration is an exitError with code 2.
func newDaemon(options runOptions, log zerolog.Logger) (*daemon, error) {
	d := &daemon{options: options, log: log, registry: prometheus.NewRegistry(), began: time.Now()}
	file, digest, err := d.loadConfig(options.config, nil)
	if err != nil {
		return nil, err
	}
	if options.pprof && file.Settings.Listen.Control == "" {
		return nil, &exitError{exitUsage, errors.New("--pprof serves on the control listener, and there is none; set listen.control, such as unix:/run/sallyport/control.sock")}
	}
	began := *file // a policy is replaced, and must not stay for the sake of the rest
	began.Policy, began.Spec = nil, allowlists.PolicySpec{}
	d.file, d.settings = &began, file.Settings
	d.sources.Store(&digest)
	d.policy.Store(file.Policy)
	d.machines = newMachines(log)
	d.placement = placementOf(options.firewall, &file.Settings, file.Policy)
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.metrics = newDaemonMetrics(d.registry)
	d.metrics.policyLoaded(file.Policy)
	d.metrics.enforced(d.placementName(), false)
	if err := d.makeParts(); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return d, nil
}

func (d *daemon) makeParts() (err error) {
	if d.alerts, err = alerting.New(d.alertingConfig()); err != nil {
		return err
	}
	dnsConfig, err := d.dnsConfig()
	if err != nil {
		return err
	}
	if d.dns, err = dnsfilter.New(dnsConfig); err != nil {
		return err
	}
	proxyConfig, err := d.proxyConfig()
	if err != nil {
		return err
	}
	d.proxy, err = proxy.New(proxyConfig)
	return err
}

// gate says whether new work may begin, and if not, why.
func (d *daemon) gate() allowlists.Reason {
	switch d.state.Load() {
	case stateReady:
		return d.alerts.Gate()
	case stateStopping:
		return allowlists.ShuttingDown
	default:
		return allowlists.NotReady
	}
}

// listen opens the event log and binds every listener. The first that cannot be bound is the error.
func (d *daemon) listen() error {
	if err := d.alerts.Open(); err != nil {
		return err
	}
	if err := d.dns.Listen(); err != nil {
		return withMend(err)
	}
	if err := d.proxy.Listen(); err != nil {
		return withMend(err)
	}
	for _, addr := range d.settings.Listen.Admin {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return withMend(fmt.Errorf("listening for admin: %w", err))
		}
		d.http = append(d.http, httpListener{l, newHTTPServer(adminHandler(d, d.registry), d.settings.Admin.Hosts)})
	}
	if d.settings.Listen.Control != "" {
		l, err := d.listenControl()
		if err != nil {
			return withMend(fmt.Errorf("listening for control: %w", err))
		}
		d.http = append(d.http, l)
	}
	d.own.set(d.boundAddrs())
	return nil
}

// listenControl binds the control listener: a socket that only our user opens,
// or TCP, where every request needs the token.
func (d *daemon) listenControl() (httpListener, error) {
	address, token := d.settings.Listen.Control, ""
	path, isUnix := strings.CutPrefix(address, "unix:")
	var l net.Listener
	var err error
	if isUnix {
		l, err = listenUnix(path)
	} else {
		if token, err = readToken(d.settings.Admin.TokenFile); err != nil {
			return httpListener{}, fmt.Errorf("reading admin.token_file: %w", err)
		}
		l, err = net.Listen("tcp", address)
	}
	if err != nil {
		return httpListener{}, err
	}
	handler, err := controlHandler(d, token, d.options.pprof)
	if err != nil {
		return httpListener{}, errors.Join(err, l.Close())
	}
	return httpListener{l, newHTTPServer(handler, d.settings.Admin.Hosts)}, nil
}

// boundAddrs are the addresses of every TCP or UDP listener.
func (d *daemon) boundAddrs() []netip.AddrPort {
	bound := append(d.dns.Addrs(), d.proxy.Addrs()...)
	for _, l := range d.http {
		if addr, ok := l.Addr().(*net.TCPAddr); ok {
			bound = append(bound, addr.AddrPort())
		}
	}
	return bound
}

// close gives back what listen took, after a listener could not be bound.
func (d *daemon) close() {
	for _, l := range d.http {
		l.Close()
	}
	d.dns.Close()
	d.proxy.Close()
}

// reload reads the configuration again. A valid one is swapped in whole; an
// invalid one leaves the last good policy serving, and says so everywhere.
func (d *daemon) reload(path string) {
	file, digest, err := d.loadConfig(path, new(pacer).rest)
	d.sources.Store(&digest)
	var policy *allowlists.Policy
	if err == nil {
		policy, err = d.adopt(file.Policy)
	}
	if err != nil {
		d.metrics.reloads.WithLabelValues("failed").Inc()
		d.log.Error().Err(err).Msg("the new configuration is not valid; the last good policy goes on serving")
		d.alerts.System(alerting.SystemReloadFailed, map[string]any{"error": err.Error()})
		return
	}
	for _, key := range d.file.NeedsRestart(file) {
		d.log.Warn().Str("key", key).Msg("this change takes effect at the next restart")
	}
	d.metrics.policyLoaded(policy)
	d.metrics.reloads.WithLabelValues("applied").Inc()
	if _, err := d.reapplyFirewall(); err != nil {
		d.log.Error().Err(err).Msg("the firewall is still that of the policy before")
		d.enforcement.reapplying(err)
	} else {
		d.enforcement.reapplying(nil)
	}
	d.policyChanged()
	d.log.Info().Uint64("policy", policy.Generation()).Msg("a new configuration serves")
	d.alerts.System(alerting.SystemReloaded, map[string]any{"policy": policy.Generation(), "pools": len(policy.Pools())})
}

// policyChanged makes the parts close what the policy no longer allows.
func (d *daemon) policyChanged() {
	d.dns.PolicyChanged()
	d.proxy.PolicyChanged()
}

// startDetails says in the log what serves, and what this start cannot promise.
func (d *daemon) startDetails() map[string]any {
	details := map[string]any{
		"version": version, "pools": len(d.policy.Load().Pools()),
		"user": d.privileges.UID, "capabilities": d.privileges.Capabilities, "landlock": d.privileges.Landlock, "seccomp": d.privileges.Seccomp,
		"enforced": false, "placement": d.placementName(), "book_kept": d.dns.BookKept(),
	}
	maps.Copy(details, map[string]any{"proxy": addrTexts(d.proxy.ListenerAddrs(false)), "dns": addrTexts(d.dns.Addrs())})
	if transparent := d.proxy.ListenerAddrs(true); len(transparent) > 0 {
		details["transparent"] = addrTexts(transparent)
	}
	maps.Copy(details, d.packetDetails())
	return details
}

func first(addrs []netip.AddrPort) netip.AddrPort {
	if len(addrs) == 0 {
		return netip.AddrPort{}
	}
	return addrs[0]
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func addrTexts(addrs []netip.AddrPort) []string {
	texts := make([]string, len(addrs))
	for i, addr := range addrs {
		texts[i] = addr.String()
	}
	return texts
}
