package dnsfilter

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Where a header's parts stand, and its bits that an ordinary question may have.
const (
	bitRD = 0x01 // of byte 2: recursion desired
	bitAD = 0x20 // of byte 3: authentic data, which says nothing in a question to us
	bitCD = 0x10 // of byte 3: checking disabled
)

// ordinary is a question as nearly all of them are: a header without oddities,
// one name of letters, digits, hyphens and underscores in class IN, and at most
// an OPT record without options but cookies. parseInquiry reads each of them,
// too, and gives the same.
type ordinary struct {
	buf   [maxWireName]byte
	n     int  // bytes of the name in buf
	mixed bool // the name came with upper case
	end   int  // behind the question section
	qtype uint16
	flags queryFlags
	edns  bool
	size  uint16 // of replies over UDP, as the OPT record says
}

// maxWireName is the longest name on the wire, RFC 1035 section 2.3.4.
const maxWireName = 255

// parse reads a message without keeping any of it. It reports false for every
// message that is not ordinary, also where parseInquiry would take it.
func (o *ordinary) parse(raw []byte) bool {
	if len(raw) < headerSize || len(raw) > maxQuery || raw[2]&^bitRD != 0 || raw[3]&^(bitAD|bitCD) != 0 {
		return false
	}
	counts := binary.BigEndian.Uint64(raw[4:])
	if counts>>1 != 1<<47 { // one question, and perhaps one additional record
		return false
	}
	if !o.parseName(raw) || o.end+4 > len(raw) || binary.BigEndian.Uint16(raw[o.end+2:]) != dns.ClassINET {
		return false
	}
	o.qtype = binary.BigEndian.Uint16(raw[o.end:])
	o.end += 4
	o.flags, o.edns = queryFlags{CD: raw[3]&bitCD != 0}, counts&1 != 0
	if o.edns {
		return o.parseOPT(raw[o.end:])
	}
	return o.end == len(raw)
}

// parseName reads the name, and sets end behind it.
func (o *ordinary) parseName(raw []byte) bool {
	n, off := 0, headerSize
	o.mixed = false
	for off < len(raw) && raw[off] != 0 {
		label := int(raw[off])
		off++
		if label > 63 || off+label > len(raw) || n+label+2 > maxWireName {
			return false
		}
		for _, c := range raw[off : off+label] {
			switch {
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			case 'A' <= c && c <= 'Z':
				c, o.mixed = c|0x20, true
			default:
				return false
			}
			o.buf[n] = c
			n++
		}
		o.buf[n] = '.'
		n++
		off += label
	}
	o.end = off + 1
	if n == 0 || off >= len(raw) {
		return false
	}
	o.n = n - 1
	return true
}

// name is the name in lower case, without the final dot. It is not kept as a
// slice, as one that points to itself would have every question allocated.
func (o *ordinary) name() []byte { return o.buf[:o.n] }

// optSize is how long an OPT record without options is: a root name, type,
// class, TTL and the length of the rest.
const optSize = 11

// parseOPT reads the OPT record that all of rest must be.
func (o *ordinary) parseOPT(rest []byte) bool {
	if len(rest) < optSize || rest[0] != 0 || binary.BigEndian.Uint16(rest[1:]) != dns.TypeOPT ||
		rest[6] != 0 || int(binary.BigEndian.Uint16(rest[9:])) != len(rest)-optSize {
		return false
	}
	o.size, o.flags.DO = binary.BigEndian.Uint16(rest[3:]), rest[7]&0x80 != 0
	for rest = rest[optSize:]; len(rest) > 0; {
		if len(rest) < 4 || binary.BigEndian.Uint16(rest) != dns.EDNS0COOKIE {
			return false
		}
		n := 4 + int(binary.BigEndian.Uint16(rest[2:]))
		if n > len(rest) {
			return false
		}
		rest = rest[n:]
	}
	return true
}

// limit is how many bytes of reply the client takes over UDP.
func (o *ordinary) limit() int {
	if !o.edns {
		return plainUDP
	}
	return int(min(max(o.size, plainUDP), maxUDPReply))
}

// asked is the name in the case it came, without the final dot.
func (o *ordinary) asked(raw []byte) string {
	name := append([]byte(nil), o.name()...)
	for i, off := 0, headerSize; raw[off] != 0; off += int(raw[off]) + 1 {
		i += copy(name[i:], raw[off+1:off+1+int(raw[off])]) + 1
	}
	return string(name)
}
