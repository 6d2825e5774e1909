package proxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// originalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, which have one
// number: include/uapi/linux/netfilter_ipv4.h and netfilter_ipv6/ip6_tables.h.
const originalDst = 80

// originalOf asks conntrack where a redirected connection wanted to go. The
// zero AddrPort means that it was not redirected.
func originalOf(conn *net.TCPConn) netip.AddrPort {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}
	}
	local := unmapped(conn.LocalAddr().(*net.TCPAddr).AddrPort())
	var found netip.AddrPort
	err = raw.Control(func(fd uintptr) {
		if local.Addr().Is4() {
			found = original4(int(fd))
		} else {
			found = original6(int(fd))
		}
	})
	if err != nil || found == local {
		return netip.AddrPort{}
	}
	return found
}

// original4 reads a sockaddr_in, which fits into the 20 bytes of an IPv6Mreq:
// x/sys/unix has no getsockopt for it.
func original4(fd int) netip.AddrPort {
	raw, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, originalDst)
	if err != nil {
		return netip.AddrPort{}
	}
	b := raw.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4]))
}

// original6 reads a sockaddr_in6, the first part of an IPv6MTUInfo.
func original6(fd int) netip.AddrPort {
	raw, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, originalDst)
	if err != nil {
		return netip.AddrPort{}
	}
	port := (*[2]byte)(unsafe.Pointer(&raw.Addr.Port)) // in network order
	return unmapped(netip.AddrPortFrom(netip.AddrFrom16(raw.Addr.Addr), binary.BigEndian.Uint16(port[:])))
}
