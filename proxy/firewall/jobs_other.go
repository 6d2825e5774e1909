//go:build !linux

package firewall

import "net/netip"

// Jobs needs Linux.
type Jobs struct {
	Root  string
	Self  int
	Child int
	Own   Identity
}

// Faults needs Linux.
func (*Jobs) Faults() ([]string, int, error) { return nil, 0, ErrUnsupported }

// HiddenDoors needs Linux.
func HiddenDoors(string, []netip.Addr) []netip.AddrPort { return nil }
