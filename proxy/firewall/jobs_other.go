//go:build !linux

package firewall

// Jobs needs Linux.
type Jobs struct {
	Root string
	Self int
	Own  Identity
}

// Faults needs Linux.
func (*Jobs) Faults() ([]string, int, error) { return nil, 0, ErrUnsupported }
