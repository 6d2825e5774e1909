package main

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"sallyport/dnsfilter"
)

// ownAddrs knows which destinations are our own listeners: a port we listen
// on, at any address of this machine. Safe for concurrent use.
type ownAddrs struct {
	mu     sync.RWMutex
	ports  map[uint16]bool
	local  map[netip.Addr]bool
	readAt time.Time
}

// localAge is how old the list of the machine's addresses may be.
const localAge = 5 * time.Second

// set takes the bound listeners.
func (o *ownAddrs) set(bound []netip.AddrPort) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ports = make(map[uint16]bool)
	for _, b := range bound {
		o.ports[b.Port()] = true
	}
}

// contains reports whether addr is one of our own listeners.
func (o *ownAddrs) contains(addr netip.AddrPort) bool {
	o.mu.RLock()
	if !o.ports[addr.Port()] { // nearly all
		o.mu.RUnlock()
		return false
	}
	ip, fresh := addr.Addr().Unmap().WithZone(""), time.Since(o.readAt) < localAge
	local := ip.IsLoopback() || ip.IsUnspecified() || o.local[ip]
	o.mu.RUnlock()
	if local || fresh {
		return local
	}
	o.read()
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.local[ip]
}

// isLocal reports whether addr is one of this machine's.
func (o *ownAddrs) isLocal(addr netip.Addr) bool {
	o.mu.RLock()
	ip := addr.Unmap().WithZone("")
	local, fresh := ip.IsLoopback() || o.local[ip], time.Since(o.readAt) < localAge
	o.mu.RUnlock()
	if local || fresh {
		return local
	}
	o.read()
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.local[ip]
}

// read asks the kernel for the machine's addresses.
func (o *ownAddrs) read() {
	local := make(map[netip.Addr]bool)
	addrs, err := net.InterfaceAddrs()
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			local[prefix.Addr().Unmap().WithZone("")] = true
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.local, o.readAt = local, time.Now()
	}
}

// takenBy reports whether one of our own listeners, not bound yet, is to take
// what is sent to addr: at that very address, or at a wildcard if addr is one of
// this machine's. Loopback as a whole is not: Docker's resolver, 127.0.0.11,
// answers beside a wildcard listener.
func takenBy(listeners []dnsfilter.Listener, addr netip.AddrPort) bool {
	own := &ownAddrs{}
	ip := addr.Addr().Unmap().WithZone("")
	for _, l := range listeners {
		at, err := netip.ParseAddrPort(l.Addr)
		if err != nil || at.Port() != addr.Port() {
			continue
		}
		if at.Addr().Unmap() == ip {
			return true
		}
		if at.Addr().IsUnspecified() {
			if own.read(); own.local[ip] {
				return true
			}
		}
	}
	return false
}
