package firewall

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// A Packet is the head of one packet that a rule logged, as far as it could be
// read: it comes from the job, so nothing in it is sure but In and Out.
type Packet struct {
	Time    time.Time // when the kernel saw it, or when it was read
	Prefix  string    // of the rule: LogRefused, LogPassed, LogDNS
	In, Out string    // interfaces; "" where there is none
	// Protocol is the IANA number of what IP carries: 6 TCP, 17 UDP, 1 and 58
	// ICMP. Behind more IPv6 extension headers than are walked it is the number
	// of the next of them, and 0 where the packet is not IP.
	Protocol uint8
	Src, Dst netip.AddrPort // zero where the packet is not IP; port 0 where there is none or it was cut off
	Size     int            // bytes of the whole packet, as its IP header says
	UID      uint32         // of the socket it came from
	HasUID   bool           // in the output hook, where a socket is known
}

// What IP carries, where it matters here.
const (
	ProtocolICMP   = 1
	ProtocolTCP    = 6
	ProtocolUDP    = 17
	ProtocolICMPv6 = 58
)

// withPorts are the protocols that begin with a source and a destination port.
var withPorts = map[uint8]bool{ProtocolTCP: true, ProtocolUDP: true, 33: true /* DCCP */, 132: true /* SCTP */, 136: true /* UDP-Lite */}

// maxExtensions is how many IPv6 extension headers are walked.
const maxExtensions = 8

// parseHead fills in what an IP packet of version 4 or 6 says. head may be cut
// off anywhere.
func (p *Packet) parseHead(head []byte) {
	switch {
	case len(head) >= 20 && head[0]>>4 == 4:
		p.parse4(head)
	case len(head) >= 40 && head[0]>>4 == 6:
		p.parse6(head)
	}
}

// parse4 reads an IPv4 header, RFC 791 section 3.1.
func (p *Packet) parse4(head []byte) {
	p.Protocol, p.Size = head[9], int(binary.BigEndian.Uint16(head[2:]))
	src, dst := netip.AddrFrom4([4]byte(head[12:])), netip.AddrFrom4([4]byte(head[16:]))
	var inner []byte
	length := int(head[0]&0x0f) * 4
	isFirst := binary.BigEndian.Uint16(head[6:])&0x1fff == 0
	if isFirst && length >= 20 && length <= len(head) {
		inner = head[length:]
	}
	p.between(src, dst, inner)
}

// parse6 reads an IPv6 header and its extension headers, RFC 8200 section 4.
func (p *Packet) parse6(head []byte) {
	p.Protocol, p.Size = head[6], 40+int(binary.BigEndian.Uint16(head[4:]))
	src, dst := netip.AddrFrom16([16]byte(head[8:])), netip.AddrFrom16([16]byte(head[24:]))
	inner := head[40:]
	for range maxExtensions {
		length, isExtension, isFirst := extension(p.Protocol, inner)
		if !isExtension {
			break
		}
		if len(inner) < 8 { // cut off before it says what follows
			inner = nil
			break
		}
		p.Protocol = inner[0]
		if inner = inner[min(length, len(inner)):]; !isFirst {
			inner = nil
			break
		}
	}
	p.between(src, dst, inner)
}

// extension tells how long the extension header at the front of inner is, and
// whether what follows begins there: in later fragments it does not.
func extension(protocol uint8, inner []byte) (length int, isExtension, isFirst bool) {
	switch protocol {
	case 0, 43, 60, 135, 139, 140: // hop-by-hop, routing, destination, mobility, HIP, shim6: RFC 6564 section 4
		if len(inner) >= 2 {
			length = 8 + 8*int(inner[1])
		}
		return length, true, true
	case 44: // fragment
		return 8, true, len(inner) < 4 || binary.BigEndian.Uint16(inner[2:])&0xfff8 == 0
	case 51: // authentication, RFC 4302 section 2.2
		if len(inner) >= 2 {
			length = 8 + 4*int(inner[1])
		}
		return length, true, true
	default:
		return 0, false, true
	}
}

// between sets both ends, with ports where inner begins with some.
func (p *Packet) between(src, dst netip.Addr, inner []byte) {
	var ports [2]uint16
	if withPorts[p.Protocol] && len(inner) >= 4 {
		ports = [2]uint16{binary.BigEndian.Uint16(inner), binary.BigEndian.Uint16(inner[2:])}
	}
	p.Src, p.Dst = netip.AddrPortFrom(src.Unmap(), ports[0]), netip.AddrPortFrom(dst.Unmap(), ports[1])
}
