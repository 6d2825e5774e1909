package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"sallyport/allowlists"
	"sallyport/proxy/firewall"
)

// planFor derives what the kernel should hold from a configuration. What it
// reads of the machine (resolv.conf, devices, cgroups) does not depend on who
// asks, so that a plan applied by one process is the one that another measures.
func planFor(mode firewall.Mode, settings *allowlists.Settings, policy *allowlists.Policy, flags *enforcementFlags) (*firewall.Plan, error) {
	p := &firewall.Plan{
		Mode: mode, Metadata: allowlists.MetadataAddrs(), LogGroup: firewall.DefaultLogGroup,
		Private: privatePorts(settings),
	}
	var err error
	switch mode {
	case firewall.Gateway:
		p.Ways = gatewayWays(settings, policy)
		err = p.AllowInput(flags.services)
	case firewall.Sidecar:
		if len(flags.services) > 0 {
			return nil, errors.New("--allow-input is for a gateway; a sidecar leaves what comes in alone")
		}
		err = sidecarPlan(p, settings, policy, flags)
	}
	if err != nil {
		return nil, err
	}
	return p, p.Validate()
}

// privatePorts are the TCP ports of admin and control.
func privatePorts(s *allowlists.Settings) []uint16 {
	var ports []uint16
	for _, addr := range append(slices.Clone(s.Listen.Admin), s.Listen.Control) {
		if _, port, ok := splitListen(addr); ok {
			ports = append(ports, port)
		}
	}
	return ports
}

// splitListen reads an address to listen at; "" as host is every address.
// Sockets of the file system and the port 0, which nobody knows beforehand,
// are not ok.
func splitListen(addr string) (host netip.Addr, port uint16, ok bool) {
	hostText, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.Addr{}, 0, false
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || n == 0 {
		return netip.Addr{}, 0, false
	}
	if hostText == "" {
		return netip.IPv6Unspecified(), uint16(n), true
	}
	host, err = netip.ParseAddr(hostText)
	return host.Unmap(), uint16(n), err == nil
}

// redirectPorts are where redirected packets find a listener. In a sidecar a
// redirect leads to loopback, on a gateway to the address of the interface that
// a packet came in by; the first listener of each family counts.
func redirectPorts(mode firewall.Mode, addrs []string) firewall.Ports {
	var ports firewall.Ports
	open := func(family *uint16, port uint16) {
		if *family == 0 {
			*family = port
		}
	}
	for _, addr := range addrs {
		if addr == "auto" {
			open(&ports.V4, transparentPortNumber)
			if mode == firewall.Gateway || hasLoopback6() {
				open(&ports.V6, transparentPortNumber)
			}
			continue
		}
		host, port, ok := splitListen(addr)
		if !ok || !reachedByRedirect(mode, host) {
			continue
		}
		if host.Is4() || host == netip.IPv6Unspecified() {
			open(&ports.V4, port)
		}
		if host.Is6() {
			open(&ports.V6, port)
		}
	}
	return ports
}

func reachedByRedirect(mode firewall.Mode, host netip.Addr) bool {
	if host.IsUnspecified() {
		return true
	}
	if mode == firewall.Gateway {
		return !host.IsLoopback()
	}
	return host == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || host == netip.IPv6Loopback()
}

// gatewayWays are the pools that a gateway can tell by their packets. A pool's
// own listeners take its packets; the shared ones take the others'.
func gatewayWays(s *allowlists.Settings, policy *allowlists.Policy) []firewall.Way {
	var ways []firewall.Way
	for _, pool := range policy.Pools() {
		spec := pool.Spec()
		if len(spec.Interfaces)+len(spec.Sources) == 0 {
			continue
		}
		way := firewall.Way{
			Pool: spec.Name, Interfaces: spec.Interfaces, Sources: spec.Sources, PassesOther: spec.Mode == allowlists.Audit,
			TCP: redirectPorts(firewall.Gateway, slices.Concat(spec.Listen.Transparent, s.Listen.Transparent)),
			DNS: redirectPorts(firewall.Gateway, slices.Concat(spec.Listen.DNS, s.Listen.DNS)),
		}
		for _, addr := range slices.Concat(spec.Listen.Proxy, s.Listen.Proxy) {
			if host, port, ok := splitListen(addr); ok && !host.IsLoopback() && !slices.Contains(way.Explicit, port) {
				way.Explicit = append(way.Explicit, port)
			}
		}
		ways = append(ways, way)
	}
	return ways
}

// sidecarPlan fills in what a sidecar has: one way, that of the job; ourselves;
// and this network namespace.
func sidecarPlan(p *firewall.Plan, s *allowlists.Settings, policy *allowlists.Policy, flags *enforcementFlags) (err error) {
	transparent, dns := slices.Clone(s.Listen.Transparent), slices.Clone(s.Listen.DNS)
	audit := len(policy.Pools()) > 0
	for _, pool := range policy.Pools() {
		spec := pool.Spec()
		transparent, dns = append(transparent, spec.Listen.Transparent...), append(dns, spec.Listen.DNS...)
		audit = audit && spec.Mode == allowlists.Audit
	}
	p.Ways = []firewall.Way{{
		Pool: policy.Pools()[0].Name(), PassesOther: audit,
		TCP: redirectPorts(firewall.Sidecar, transparent), DNS: redirectPorts(firewall.Sidecar, dns),
	}}
	p.Own.UID = flags.uid
	if flags.cgroup != "" {
		if p.Own.Cgroup, err = firewall.FindCgroup(flags.cgroup); err != nil {
			return err
		}
	}
	p.Resolvers = loopbackResolvers(resolvConf)
	p.Devices, err = firewall.OutsideDevices()
	return err
}

// loopbackResolvers are the addresses on loopback where this machine's
// resolver may listen: those of resolv.conf, and where Docker and
// systemd-resolved have theirs.
func loopbackResolvers(path string) []netip.Addr {
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("127.0.0.53"), netip.MustParseAddr("127.0.0.54")}
	file, err := os.Open(path)
	if err != nil {
		return addrs // no such file, or none that a job can read
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		// 127.0.0.1 and ::1 hold all that is local, ourselves among it.
		if err == nil && addr.IsLoopback() && addr != netip.AddrFrom4([4]byte{127, 0, 0, 1}) && addr != netip.IPv6Loopback() && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// describePlan is one line for people.
func describePlan(p *firewall.Plan) string {
	if p.Mode == firewall.Gateway {
		return fmt.Sprintf("gateway, %s", counted(len(p.Ways), "pool"))
	}
	who := fmt.Sprintf("user %d", p.Own.UID)
	if p.Own.Cgroup.ID != 0 {
		who = "cgroup " + p.Own.Cgroup.Path
	}
	return fmt.Sprintf("sidecar, %s is let out, %s watched", who, counted(len(p.Devices), "device"))
}
