package test

import (
	endian "encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Flags of TCP.
const (
	tcpSYN = 1 << 1
	tcpPSH = 1 << 3
	tcpACK = 1 << 4
)

// sendRaw sends a whole IP packet from the namespace, as root in a job can.
func (s *space) sendRaw(packet []byte) {
	s.t.Helper()
	family, to := unix.AF_INET, unix.Sockaddr(nil)
	if packet[0]>>4 == 6 {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte(packet[24:40])}
	} else {
		to = &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}
	}
	s.do(func() {
		fd, err := unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			s.t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, packet, 0, to); err != nil {
			s.t.Fatalf("sending % x: %v", packet, err)
		}
	})
}

// ipPacket is a packet of either family; next is its protocol. Linux fills in
// length and checksum of IPv4.
func ipPacket(src, dst netip.Addr, next uint8, payload []byte) []byte {
	if dst.Is4() {
		return ip4Packet(src, dst, next, nil, 0, payload)
	}
	head := make([]byte, 40)
	head[0], head[6], head[7] = 6<<4, next, 64
	endian.BigEndian.PutUint16(head[4:], uint16(len(payload)))
	copy(head[8:], src.AsSlice())
	copy(head[24:], dst.AsSlice())
	return append(head, payload...)
}

// ip4Packet has options, a multiple of four bytes, and the flags and offset of a
// fragment; fragments of one destination have one id.
func ip4Packet(src, dst netip.Addr, next uint8, options []byte, fragment uint16, payload []byte) []byte {
	head := make([]byte, 20, 60)
	head[0], head[8], head[9] = 4<<4|byte(5+len(options)/4), 64, next
	endian.BigEndian.PutUint16(head[4:], 0x5a11)
	endian.BigEndian.PutUint16(head[6:], fragment)
	copy(head[12:], src.AsSlice())
	copy(head[16:], dst.AsSlice())
	return append(append(head, options...), payload...)
}

// fragments is a packet in two, the first with the first eight bytes of what IP
// carries.
func fragments(src, dst netip.Addr, next uint8, payload []byte) [][]byte {
	const more = 1
	if dst.Is4() {
		return [][]byte{ip4Packet(src, dst, next, nil, more<<13, payload[:8]), ip4Packet(src, dst, next, nil, 1, payload[8:])}
	}
	return [][]byte{
		ipPacket(src, dst, unix.IPPROTO_FRAGMENT, append(fragmentHeader(next, 0, more), payload[:8]...)),
		ipPacket(src, dst, unix.IPPROTO_FRAGMENT, append(fragmentHeader(next, 1, 0), payload[8:]...)),
	}
}

// fragmentHeader is that of RFC 8200 section 4.5; offset is in units of eight.
func fragmentHeader(next uint8, offset, more uint16) []byte {
	return endian.BigEndian.AppendUint32(endian.BigEndian.AppendUint16([]byte{next, 0}, offset<<3|more), 0x5a11)
}

// optionsHeader is a hop-by-hop or destination options header with padding only.
func optionsHeader(next uint8) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }

// udpDatagram is a UDP header and payload with the right checksum.
func udpDatagram(src, dst netip.Addr, port uint16, payload string) []byte {
	d := make([]byte, 8, 8+len(payload))
	endian.BigEndian.PutUint16(d, 40404)
	endian.BigEndian.PutUint16(d[2:], port)
	endian.BigEndian.PutUint16(d[4:], uint16(8+len(payload)))
	d = append(d, payload...)
	endian.BigEndian.PutUint16(d[6:], transportSum(src, dst, unix.IPPROTO_UDP, d))
	return d
}

// tcpSegment is one without options, which belongs to no connection.
func tcpSegment(src, dst netip.Addr, port uint16, flags byte, payload string) []byte {
	s := make([]byte, 20, 20+len(payload))
	endian.BigEndian.PutUint16(s, 40404)
	endian.BigEndian.PutUint16(s[2:], port)
	endian.BigEndian.PutUint32(s[4:], 1000)
	s[12], s[13] = 5<<4, flags
	endian.BigEndian.PutUint16(s[14:], 64240)
	s = append(s, payload...)
	endian.BigEndian.PutUint16(s[16:], transportSum(src, dst, unix.IPPROTO_TCP, s))
	return s
}

// icmpMessage is one of the family of dst.
func icmpMessage(src, dst netip.Addr, kind uint8, payload string) []byte {
	m := append([]byte{kind, 0, 0, 0, 0x5a, 0x11, 0, 1}, payload...)
	if dst.Is4() {
		endian.BigEndian.PutUint16(m[2:], ^sum16(0, m))
	} else {
		endian.BigEndian.PutUint16(m[2:], transportSum(src, dst, unix.IPPROTO_ICMPV6, m))
	}
	return m
}

// transportSum is the checksum with the pseudo header, RFC 768, RFC 8200 section 8.1.
func transportSum(src, dst netip.Addr, proto uint8, data []byte) uint16 {
	sum := sum16(0, src.AsSlice())
	sum = sum16(sum, dst.AsSlice())
	sum = sum16(sum, []byte{0, proto})
	sum = sum16(sum, endian.BigEndian.AppendUint16(nil, uint16(len(data))))
	return ^sum16(sum, data)
}

// sum16 adds in one's complement.
func sum16(start uint16, data []byte) uint16 {
	sum := uint32(start)
	for i := 0; i < len(data); i += 2 {
		word := uint32(data[i]) << 8
		if i+1 < len(data) {
			word |= uint32(data[i+1])
		}
		sum += word
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// dialWithOptions connects over IPv6 with an extension header in every packet:
// option is IPV6_HOPOPTS or IPV6_DSTOPTS. It gives a descriptor.
func (s *space) dialWithOptions(t *testing.T, option int, to netip.AddrPort) (fd int, err error) {
	t.Helper()
	s.do(func() {
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0); err != nil {
			return
		}
		timeout := unix.NsecToTimeval(int64(s.patient))
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout)
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
		if err = unix.SetsockoptString(fd, unix.IPPROTO_IPV6, option, string(optionsHeader(0))); err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
		}
	})
	return fd, err
}
