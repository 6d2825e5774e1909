package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// watch prints every IP packet that comes in by any interface but loopback.
func watch() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(swapped(unix.ETH_P_ALL)))
	if err != nil {
		return err
	}
	entry{Body: "watching"}.write()
	packet := make([]byte, 65536)
	for {
		n, from, err := unix.Recvfrom(fd, packet, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok || link.Pkttype == unix.PACKET_OUTGOING || link.Hatype == unix.ARPHRD_LOOPBACK {
			continue
		}
		if text := described(packet[:n]); text != "" {
			entry{Packet: text}.write()
		}
	}
}

// described is "protocol source destination" of an IP packet, "" for any other
// and for the neighbour discovery that every stack sends.
func described(packet []byte) string {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return fmt.Sprint(packet[9], netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])))
	case len(packet) >= 41 && packet[0]>>4 == 6 && !(packet[6] == 58 && packet[40] >= 130) && packet[6] != 0:
		return fmt.Sprint(packet[6], netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40])))
	default:
		return ""
	}
}

// frame sends a UDP packet past the stack, to everybody on an interface.
func frame(iface, to string) error {
	device, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	packet := make([]byte, 31) // IPv4 head 20, UDP head 8, "out"
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	copy(packet[12:], []byte{10, 99, 99, 99})
	dst := target.Addr().As4()
	copy(packet[16:], dst[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(packet[20:], 9)
	binary.BigEndian.PutUint16(packet[22:], target.Port())
	binary.BigEndian.PutUint16(packet[24:], 11)
	copy(packet[28:], "out")
	everybody := &unix.SockaddrLinklayer{Protocol: swapped(unix.ETH_P_IP), Ifindex: device.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	for range 3 {
		if err := unix.Sendto(fd, packet, 0, everybody); err != nil {
			return err
		}
	}
	return nil
}

// become takes another user, for what this goroutine does next, and keeps the
// capabilities that this one has.
func become(uid int) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETUID, uintptr(uid), 0, 0); errno != 0 {
		return errno
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return err
	}
	for i := range sets {
		sets[i].Effective = sets[i].Permitted
	}
	return unix.Capset(&head, &sets[0])
}

// marked sends a datagram from a socket with a mark.
func marked(mark int, to string) error {
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
		return errors.Join(err, failed)
	}}
	conn, err := dialer.Dial("udp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("out"))
	return err
}

// swapped is a number in network order.
func swapped(n uint16) uint16 { return n<<8 | n>>8 }
