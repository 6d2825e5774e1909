package main

import (
	"errors"
	"net/netip"
	"os"

	"sallyport/alerting"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
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
		Policy:    d.policy.Load, Gate: d.gate, Observe: d.alerts.ObserveQuery,
		Upstreams: s.Upstreams, Own: func(addr netip.AddrPort) bool { return takenBy(listeners, addr) },
		Search: search, Blocked: s.BlockedReply, BookGrace: s.BookGrace, MaxTTL: s.MaxTTL, Stale: s.Stale,
		CacheEntries: s.CacheEntries, BookEntries: d.settings.Limits.BookEntries, PerClient: d.settings.Limits.DNSPerClient,
		Log: d.log, Metrics: d.registry,
	}, nil
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

func (d *daemon) proxyConfig() proxy.Config {
	return proxy.Config{
		Listeners: proxyListeners(&d.settings, d.policy.Load()), Limits: d.settings.Limits,
		Policy: d.policy.Load, Gate: d.gate, Observe: d.alerts.ObserveConn, Resolver: d.dns,
		IsOwn: d.own.contains, Progress: d.settings.Log.Progress, Log: d.log, Registerer: d.registry,
	}
}

// dnsListeners and proxyListeners are the shared listeners and those of pools.
func dnsListeners(s *allowlists.Settings, policy *allowlists.Policy) []dnsfilter.Listener {
	var list []dnsfilter.Listener
	for _, addr := range s.Listen.DNS {
		list = append(list, dnsfilter.Listener{Addr: addr})
	}
	for _, pool := range policy.Pools() {
		for _, addr := range pool.Spec().Listen.DNS {
			list = append(list, dnsfilter.Listener{Addr: addr, Pool: pool.Name()})
		}
	}
	return list
}

func proxyListeners(s *allowlists.Settings, policy *allowlists.Policy) []proxy.Listener {
	var list []proxy.Listener
	for _, addr := range s.Listen.Proxy {
		list = append(list, proxy.Listener{Addr: addr})
	}
	for _, pool := range policy.Pools() {
		for _, addr := range pool.Spec().Listen.Proxy {
			list = append(list, proxy.Listener{Addr: addr, Pool: pool.Name()})
		}
	}
	return list
}
