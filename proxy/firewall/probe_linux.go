package firewall

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// spoof asks from an address that is not ours, which every user may over IPv6:
// ipv6(7), IPV6_FREEBIND. Whether it came, the parent knows.
func spoof(s Spoof) {
	wire, err := dnsQuestion(s.Name)
	if err != nil {
		return
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1) }); failed != nil {
			return failed
		}
		return err
	}}
	conn, err := config.ListenPacket(context.Background(), "udp6", netip.AddrPortFrom(s.From, 0).String())
	if err != nil {
		return // then no job can
	}
	defer conn.Close()
	_, _ = conn.WriteTo(wire, net.UDPAddrFromAddrPort(s.To))
}
