package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
	"sallyport/proxy/firewall"
)

// A place is one address to bind, and what tells of the clients that come
// there.
type place struct {
	addr   string
	pool   string // whose own it is
	iface  string // only what comes in by it
	shared bool   // others have the same address
}

// dnsListeners and proxyListeners are the shared listeners and those of pools.
func dnsListeners(s *allowlists.Settings, policy *allowlists.Policy) []dnsfilter.Listener {
	own := func(l allowlists.PoolListen) []string { return l.DNS }
	var list []dnsfilter.Listener
	for _, p := range places(s.Listen.DNS, own, policy) {
		list = append(list, dnsfilter.Listener{Addr: p.addr, Pool: p.pool, Iface: p.iface, Shared: p.shared})
	}
	return list
}

func proxyListeners(s *allowlists.Settings, policy *allowlists.Policy) []proxy.Listener {
	own := func(l allowlists.PoolListen) []string { return l.Proxy }
	return asProxyListeners(places(s.Listen.Proxy, own, policy), false)
}

// transparentListeners are those for redirected connections; auto is filled in
// by where the daemon stands.
func transparentListeners(at placement, s *allowlists.Settings, policy *allowlists.Policy) ([]proxy.Listener, error) {
	shared, found := s.Listen.Transparent, []place(nil)
	if slices.Contains(shared, "auto") {
		var err error
		if found, err = autoPlaces(at, policy); err != nil {
			return nil, err
		}
		shared = slices.DeleteFunc(slices.Clone(shared), func(addr string) bool { return addr == "auto" })
	}
	own := func(l allowlists.PoolListen) []string { return l.Transparent }
	return asProxyListeners(append(found, places(shared, own, policy)...), true), nil
}

func asProxyListeners(all []place, transparent bool) []proxy.Listener {
	var list []proxy.Listener
	for _, p := range all {
		list = append(list, proxy.Listener{Addr: p.addr, Pool: p.pool, Iface: p.iface, Shared: p.shared, Transparent: transparent})
	}
	return list
}

// places are the shared addresses and those of the pools. Where pools have
// interfaces, an address that is not loopback has a socket for each, so that
// every connection is known by the interface it came in by.
func places(shared []string, own func(allowlists.PoolListen) []string, policy *allowlists.Policy) []place {
	var all []place
	ifaces := poolInterfaces(policy)
	for _, addr := range shared {
		all = append(all, byInterface(addr, "", ifaces)...)
	}
	for _, pool := range policy.Pools() {
		for _, addr := range own(pool.Spec().Listen) {
			all = append(all, byInterface(addr, pool.Name(), pool.Spec().Interfaces)...)
		}
	}
	return all
}

func byInterface(addr, pool string, ifaces []string) []place {
	at, err := netip.ParseAddrPort(addr)
	if len(ifaces) == 0 || err != nil || at.Addr().IsLoopback() {
		return []place{{addr: addr, pool: pool}}
	}
	// Of sockets with SO_REUSEPORT the kernel takes the first that fits, not the
	// one that fits best, and puts the latest bound before the others, but behind
	// them if it is one of IPv6 (inet_hash, udp_lib_get_port): the socket for the
	// rest must be the last that it looks at.
	rest := place{addr: addr, pool: pool, shared: true}
	var all []place
	for _, iface := range ifaces {
		all = append(all, place{addr, pool, iface, true})
	}
	if at.Addr().Is4() && !at.Addr().IsUnspecified() { // 0.0.0.0 is bound as ::, see net.Listen
		return append([]place{rest}, all...)
	}
	return append(all, rest)
}

// poolInterfaces are the interfaces of all pools, each once.
func poolInterfaces(policy *allowlists.Policy) []string {
	var all []string
	for _, pool := range policy.Pools() {
		all = append(all, pool.Spec().Interfaces...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// autoPlaces are what listen.transparent: auto means: loopback in a sidecar,
// every address of each pool interface on a gateway, as a redirected packet
// goes to the address of the interface it came in by.
func autoPlaces(at placement, policy *allowlists.Policy) ([]place, error) {
	if at != firewall.Gateway {
		all := []place{{addr: net.JoinHostPort("127.0.0.1", transparentPort)}}
		if hasLoopback6() {
			all = append(all, place{addr: net.JoinHostPort("::1", transparentPort)})
		}
		return all, nil
	}
	ifaces := poolInterfaces(policy)
	if len(ifaces) == 0 {
		return nil, fmt.Errorf("listen.transparent: auto needs pools with interfaces on a gateway; write the addresses instead")
	}
	var all []place
	for _, name := range ifaces {
		addrs, err := interfaceAddrs(name)
		if err != nil {
			return nil, err
		}
		for _, addr := range addrs {
			all = append(all, place{addr: netip.AddrPortFrom(addr, transparentPortNumber).String(), iface: name, shared: true})
		}
	}
	return all, nil
}

// interfaceAddrs are the addresses of an interface but link-local ones.
func interfaceAddrs(name string) ([]netip.Addr, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("listening on the interface %s of a pool: %w", name, err)
	}
	nets, err := iface.Addrs()
	if err != nil {
		return nil, fmt.Errorf("reading the addresses of %s: %w", name, err)
	}
	var addrs []netip.Addr
	for _, n := range nets {
		if prefix, err := netip.ParsePrefix(n.String()); err == nil && !prefix.Addr().IsLinkLocalUnicast() {
			addrs = append(addrs, prefix.Addr().Unmap())
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("the interface %s of a pool has no address to listen at", name)
	}
	return addrs, nil
}

// hasLoopback6 reports whether ::1 is an address of this machine.
func hasLoopback6() bool {
	addrs, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == netip.IPv6Loopback()
	})
}
