package main

import (
	"net"
	"syscall"
)

// peerUser tells which user connected to a Unix socket (unix(7), SO_PEERCRED);
// ok is false for any other connection.
func peerUser(conn net.Conn) (uid uint32, ok bool) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, false
	}
	var peer *syscall.Ucred
	err = raw.Control(func(fd uintptr) {
		peer, _ = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || peer == nil {
		return 0, false
	}
	return peer.Uid, true
}
