package dnsfilter

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A peer is the address of a packet, as the kernel has it.
type peer struct {
	raw [unix.SizeofSockaddrInet6]byte
	n   uint32
}

// addrPort reads it, without a zone; the zero AddrPort is none that can be read.
func (p *peer) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(p.raw[2:])
	switch family := binary.NativeEndian.Uint16(p.raw[:]); {
	case family == unix.AF_INET && p.n >= unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(p.raw[4:8])), port)
	case family == unix.AF_INET6 && p.n >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(p.raw[8:24])), port)
	default:
		return netip.AddrPort{}
	}
}

// datagramIO reads and writes the packets of a socket, many by one system call.
// The calls never wait, and so do not tell the scheduler that they might: else
// it would lend the processor to another thread for each that takes more than
// 20 µs, as all do that send many packets. It is used by one goroutine.
//
// Packets to one peer go through the kernel together, which cuts them apart at
// the last moment (UDP_SEGMENT, udp(7)): most of what a packet costs it pays
// once for all of them.
type datagramIO struct {
	conn    syscall.RawConn
	headers [udpBatch]mmsghdr
	vectors [udpBatch]unix.Iovec
	// controls are control messages of those headers that send several packets.
	controls [udpBatch][oobSize + segmentSpace]byte
	segments bool                // the kernel knows UDP_SEGMENT
	mine     [udpBatch]*datagram // of ofPeer
	// What one call is to do and came to; receive and send have them, so that
	// none needs a new function.
	todo    []mmsghdr
	done    int
	errno   syscall.Errno
	receive func(fd uintptr) bool
	send    func(fd uintptr) bool
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

func newDatagramIO(udp *net.UDPConn) (*datagramIO, error) {
	conn, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &datagramIO{conn: conn}
	d.receive = func(fd uintptr) bool { return d.call(unix.SYS_RECVMMSG, fd) }
	d.send = func(fd uintptr) bool { return d.call(unix.SYS_SENDMMSG, fd) }
	return d, conn.Control(func(fd uintptr) {
		_, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		d.segments = err == nil // one that does not know it would send all of them as one packet
	})
}

// call makes one system call; false says that the socket is not ready.
func (d *datagramIO) call(number, fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(number, fd, uintptr(unsafe.Pointer(&d.todo[0])), uintptr(len(d.todo)), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if d.done, d.errno = int(n), errno; errno != 0 {
			d.done = 0
		}
		return errno != unix.EAGAIN
	}
}

// read waits for packets, and reads as many as there are into the first of batch.
func (d *datagramIO) read(batch []datagram) (int, error) {
	count := min(len(batch), udpBatch)
	for i := range count {
		batch[i].peer.n = uint32(len(batch[i].peer.raw))
		d.vectors[i] = vector(batch[i].bytes)
		point(&d.headers[i], &batch[i], d.vectors[i:i+1], batch[i].control)
	}
	d.todo = d.headers[:count]
	if err := d.conn.Read(d.receive); err != nil {
		return 0, err
	}
	if d.errno != 0 {
		return 0, d.errno
	}
	for i := range d.done {
		h := &d.headers[i]
		batch[i].n, batch[i].controls, batch[i].peer.n = int(h.n), int(h.Controllen), h.Namelen
	}
	return d.done, nil
}

// write sends packets, and passes those by that cannot be sent. Those to one
// peer may go in another order.
func (d *datagramIO) write(batch []datagram) {
	for len(batch) > 0 {
		n := min(len(batch), udpBatch)
		if !d.flush(d.gather(batch[:n])) {
			return // closed
		}
		batch = batch[n:]
	}
}

// vector points to bytes.
func vector(b []byte) (v unix.Iovec) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	return v
}

// point makes a header point to where a packet comes from or goes to, to its
// bytes, or those of several, and to control messages.
func point(h *mmsghdr, g *datagram, vectors []unix.Iovec, control []byte) {
	h.Msghdr = unix.Msghdr{Name: &g.peer.raw[0], Namelen: g.peer.n, Iov: &vectors[0], Control: unsafe.SliceData(control)}
	h.SetIovlen(len(vectors))
	h.SetControllen(len(control))
}
