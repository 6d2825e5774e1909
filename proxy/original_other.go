//go:build !linux

package proxy

import (
	"net"
	"net/netip"
)

// originalOf needs Linux: no connection is redirected.
func originalOf(*net.TCPConn) netip.AddrPort { return netip.AddrPort{} }
