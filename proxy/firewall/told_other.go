//go:build !linux

package firewall

// Countable needs Linux.
func Countable() (uint64, error) { return 0, ErrUnsupported }
