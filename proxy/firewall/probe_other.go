//go:build !linux

package firewall

// spoof needs Linux.
func spoof(Spoof) {}
