//go:build !linux

package dnsfilter

import (
	"net"
	"net/netip"
)

// originalOf knows of no redirects where there is no netfilter.
func originalOf(*net.TCPConn) netip.Addr { return netip.Addr{} }
