//go:build !linux

package firewall

// Apply needs Linux.
func Apply(*Plan) error { return ErrUnsupported }

// Remove needs Linux.
func Remove() error { return ErrUnsupported }

// Compare needs Linux.
func Compare(*Plan) ([]string, error) { return nil, ErrUnsupported }

// OutsideDevices needs Linux.
func OutsideDevices() ([]string, error) { return nil, ErrUnsupported }

// FindCgroup needs Linux.
func FindCgroup(string) (Cgroup, error) { return Cgroup{}, ErrUnsupported }
