package dnsfilter

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// byDevice prepares a socket that takes only what comes in by an interface, and
// so may share its address with the sockets of others: the kernel picks the one
// that is bound to the interface before one that is bound to none, socket(7).
func byDevice(iface string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			if iface != "" && failed == nil {
				failed = unix.BindToDevice(int(fd), iface)
			}
		})
		return errors.Join(err, failed)
	}
}
