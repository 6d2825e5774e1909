package proxy

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listenKeepingAlive has keepAlive set once, on the listening socket: Linux hands
// it on to each connection that is accepted, where it would be four system calls.
func listenKeepingAlive(config *net.ListenConfig) {
	config.KeepAlive = -1 // none by net
	before := config.Control
	config.Control = func(network, address string, c syscall.RawConn) error {
		if before != nil {
			if err := before(network, address, c); err != nil {
				return err
			}
		}
		var failed error
		err := c.Control(func(fd uintptr) {
			for _, o := range []struct{ level, option, value int }{
				{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle / time.Second)},
				{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval / time.Second)},
				{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count},
			} {
				failed = errors.Join(failed, unix.SetsockoptInt(int(fd), o.level, o.option, o.value))
			}
		})
		return errors.Join(err, failed)
	}
}
