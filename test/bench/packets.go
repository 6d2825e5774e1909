//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// udpSocket opens a blocking IPv4 socket, bound or connected if the address is
// not empty. A connected one waits 2 s for a packet at most.
func udpSocket(bind, connect string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<20), settleSocket(fd, bind, connect))
	if err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

func settleSocket(fd int, bind, connect string) error {
	if bind != "" {
		at, err := sockaddr(bind)
		if err != nil {
			return err
		}
		if err := syscall.Bind(fd, at); err != nil {
			return fmt.Errorf("binding %s: %w", bind, err)
		}
	}
	if connect == "" {
		return nil
	}
	to, err := sockaddr(connect)
	if err != nil {
		return err
	}
	wait := syscall.NsecToTimeval(int64(2 * time.Second))
	return errors.Join(syscall.Connect(fd, to), syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait))
}

func sockaddr(addr string) (*syscall.SockaddrInet4, error) {
	parsed, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	return &syscall.SockaddrInet4{Port: int(parsed.Port()), Addr: parsed.Addr().As4()}, nil
}

// messageHeader is struct mmsghdr of recvmmsg(2).
type messageHeader struct {
	header syscall.Msghdr
	length uint32
	_      [4]byte
}

// A batch is buffers that one system call fills or sends.
type batch struct {
	buffers [][]byte
	vectors []syscall.Iovec
	headers []messageHeader
	senders [][28]byte
}

func newBatch(n, size int) *batch {
	b := &batch{
		buffers: make([][]byte, n), vectors: make([]syscall.Iovec, n),
		headers: make([]messageHeader, n), senders: make([][28]byte, n),
	}
	for i := range n {
		b.buffers[i] = make([]byte, size)
		b.vectors[i].Base = &b.buffers[i][0]
		b.headers[i].header.Iov = &b.vectors[i]
		b.headers[i].header.Iovlen = 1
	}
	return b
}

// receive waits for one packet at least, and returns how many came. With named,
// the senders are kept for send.
func (b *batch) receive(fd int, named bool) (int, error) {
	for i := range b.headers {
		b.vectors[i].SetLen(len(b.buffers[i]))
		if named {
			b.headers[i].header.Name = &b.senders[i][0]
			b.headers[i].header.Namelen = 28
		}
	}
	const waitForOne = 0x10000 // MSG_WAITFORONE
	n, _, errno := syscall.Syscall6(syscall.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[0])), uintptr(len(b.headers)), waitForOne, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// packet is the i-th that was received.
func (b *batch) packet(i int) []byte {
	return b.buffers[i][:min(int(b.headers[i].length), len(b.buffers[i]))]
}

// setLength says how much of buffer i is sent.
func (b *batch) setLength(i, n int) { b.vectors[i].SetLen(n) }

// send sends the first n packets.
func (b *batch) send(fd, n int) error {
	for done := 0; done < n; {
		m, _, errno := syscall.Syscall6(sendMany, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[done])), uintptr(n-done), 0, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		done += int(m)
	}
	return nil
}

// sendMany is the number of sendmmsg(2), which package syscall lacks on amd64.
var sendMany = map[string]uintptr{"amd64": 307, "arm64": 269, "riscv64": 269, "loong64": 269}[runtime.GOARCH]
