package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"

	"sallyport/alerting"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
	"sallyport/proxy/firewall"
)

// The functions here turn settings into the Config of each part.

func (d *daemon) alertingConfig() alerting.Config {
	return alerting.Config{
		Log: d.log, Events: d.settings.Log, Stdout: d.options.stdout, Alerts: d.settings.Alerts,
		Policy: d.policy.Load, Registerer: d.registry,
	}
}

func (d *daemon) dnsConfig() (dnsfilter.Config, error) {
	s := d.settings.DNS
	search, err := d.searchSuffixes()
	if err != nil {
		return dnsfilter.Config{}, err
	}
	listeners := dnsListeners(&d.settings, d.policy.Load())
	return dnsfilter.Config{
		Listeners: listeners,
		Policy:    d.policy.Load, Gate: d.gate, Observe: d.alerts.ObserveQuery, ObserveRefused: d.alerts.ObserveRefused,
		Probe: d.enforcement.probedName, Client: d.clientOf, Machine: d.machines.of, Wanted: d.packets.wantedBy, IsForeign: d.isForeign,
		Upstreams: s.Upstreams, Own: func(addr netip.AddrPort) bool { return takenBy(listeners, addr) },
		Search: search, Blocked: s.BlockedReply, BookGrace: s.BookGrace, MaxTTL: s.MaxTTL, Stale: s.Stale,
		CacheEntries: s.CacheEntries, BookEntries: d.settings.Limits.BookEntries, PerClient: d.settings.Limits.DNSPerClient,
		BookFile: bookFile(d.settings.Alerts.StateDir), BookFault: d.bookFault,
		Tunnel: alerting.TunnelLimits(&d.settings.Alerts), Known: d.alerts.Usual,
		Log: d.log, Metrics: d.registry,
	}, nil
}

// bookFault records what became of the kept book of answers.
func (d *daemon) bookFault(state, cause string) {
	details := map[string]any{"state": state}
	if cause != "" {
		details["error"] = cause
	}
	d.alerts.System(alerting.SystemBookFailed, details)
}

// bookFile is where the book of answers is kept in a state directory; "" if
// there is none.
func bookFile(stateDir string) string {
	if stateDir == "" {
		return ""
	}
	return filepath.Join(stateDir, "book.jsonl")
}

// resolvConf is where the machine keeps its search suffixes.
const resolvConf = "/etc/resolv.conf"

// searchSuffixes are those that the file names, and the machine's where it
// says system.
func (d *daemon) searchSuffixes() ([]allowlists.Host, error) {
	suffixes := d.file.Search
	for _, word := range d.settings.DNS.Search {
		if word != "system" {
			continue
		}
		texts, err := dnsfilter.SystemSearch(resolvConf)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, text := range texts {
			if suffix, err := allowlists.ParseHost(text); err == nil {
				suffixes = append(suffixes, suffix)
			}
		}
	}
	return suffixes, nil
}

func (d *daemon) proxyConfig() (proxy.Config, error) {
	transparent, err := transparentListeners(d.placement, &d.settings, d.policy.Load())
	if err != nil {
		return proxy.Config{}, err
	}
	return proxy.Config{
		Listeners: append(proxyListeners(&d.settings, d.policy.Load()), transparent...), Limits: d.settings.Limits,
		Policy: d.policy.Load, Gate: d.gate, Observe: d.alerts.ObserveConn, Resolver: d.dns,
		IsOwn: d.own.contains, Probe: d.enforcement.probedConn, Client: d.clientOf, Machine: d.machines.of,
		Progress: d.settings.Log.Progress, Log: d.log, Registerer: d.registry,
	}, nil
}

// clientOf is the address that a client is known by. In a sidecar every local
// address is one client: a process there can take any of them.
func (d *daemon) clientOf(addr netip.Addr) netip.Addr {
	if d.placement == firewall.Sidecar && d.own.isLocal(addr) {
		return loopback
	}
	return addr
}

// loopback is the client of a sidecar.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// warnOfNoJob says that a sidecar will refuse everything, as no pool has the job.
func (d *daemon) warnOfNoJob() {
	if d.placement != firewall.Sidecar {
		return
	}
	if _, pool := d.policy.Load().Subject(loopback, "", ""); pool == nil {
		d.log.Warn().Msg("no pool has 127.0.0.1, which is what every job beside a sidecar is known by: everything will be refused; name its pool in default_pool")
	}
}
