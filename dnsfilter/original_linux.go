package dnsfilter

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// originalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, which have one
// number: include/uapi/linux/netfilter_ipv4.h and netfilter_ipv6/ip6_tables.h.
const originalDst = 80

// originalOf asks conntrack which address a connection was made to, our own if
// it was not redirected; the zero Addr where conntrack does not know it.
func originalOf(conn *net.TCPConn) (found netip.Addr) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.Addr{}
	}
	_ = raw.Control(func(fd uintptr) {
		// Both structs are as long as the socket address that they are filled with.
		if four, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, originalDst); err == nil {
			found = netip.AddrFrom4([4]byte(four.Multiaddr[4:8]))
		} else if six, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, originalDst); err == nil {
			found = netip.AddrFrom16(six.Addr.Addr).Unmap()
		}
	})
	return found
}
