package dnsfilter

import (
	"fmt"
	"net/netip"
	"strings"
)

// expandUpstreams parses the forms and puts the system's servers in place of
// "system", without our own listeners.
func expandUpstreams(cfg upstreamConfig) ([]upstreamSpec, error) {
	specs, systemAt, err := parseUpstreams(cfg.Upstreams)
	if err != nil {
		return nil, err
	}
	own := cfg.Own
	if own == nil {
		own = func(netip.AddrPort) bool { return false }
	}
	for _, spec := range specs {
		if !spec.named() && own(spec.addr) {
			return nil, fmt.Errorf("upstream %s is a listener of our own, and asking it would never end; list the resolver that shall be asked", spec.name())
		}
	}
	if systemAt < 0 {
		return specs, nil
	}
	servers, err := systemServers(cfg, own)
	if err != nil {
		return nil, err
	}
	all := append([]upstreamSpec{}, specs[:systemAt]...)
	all = append(all, servers...)
	return append(all, specs[systemAt:]...), nil
}

// systemServers reads the servers of resolv.conf that are not ours.
func systemServers(cfg upstreamConfig, own func(netip.AddrPort) bool) ([]upstreamSpec, error) {
	const mend = "list the resolver's address in dns.upstreams instead of system"
	path := cfg.ResolvConf
	if path == "" {
		path = resolvConfSystem
	}
	conf, err := readResolvConf(path)
	if err != nil {
		return nil, fmt.Errorf("upstream system: %w; %s", err, mend)
	}
	var specs []upstreamSpec
	var ours []string
	for _, addr := range conf.servers {
		if own(addr) {
			ours = append(ours, addr.String())
			continue
		}
		specs = append(specs, upstreamSpec{scheme: schemeUDP, addr: addr})
	}
	for _, bad := range conf.bad {
		cfg.Log.Warn().Str("file", path).Str("nameserver", clip(bad)).Msg("nameserver is no address; left out")
	}
	switch {
	case len(specs) > 0:
		return specs, nil
	case len(ours) > 0:
		return nil, fmt.Errorf("upstream system: %s names only our own listeners (%s); %s", path, strings.Join(ours, ", "), mend)
	}
	return nil, fmt.Errorf("upstream system: %s names no usable server; %s", path, mend)
}
