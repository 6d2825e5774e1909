//go:build !linux

package firewall

// Lacks needs Linux.
func Lacks(*Plan) ([]string, error) { return nil, ErrUnsupported }

// OtherChains needs Linux.
func OtherChains() ([]OtherChain, error) { return nil, ErrUnsupported }

// ForeignNamespace needs Linux.
func ForeignNamespace() bool { return false }
