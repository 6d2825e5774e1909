package dnsfilter

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/miekg/dns"
)

// What a question may measure, and what a reply does.
const (
	maxQuery    = 4096 // bytes of a question's message that are read; 12 + 259 + OPT would do
	maxExtra    = 2    // records beside the question: OPT, and a signature we do not look at
	plainUDP    = 512  // reply over UDP to a client without EDNS, RFC 1035 section 4.2.1
	maxUDPReply = ednsSize
)

// truncatedBit, of byte 2, says that a message was cut to fit.
const truncatedBit = 0x02

// inquiry is a client's message as far as we read it. Nothing of it but the
// name, the type and two flags travels any further.
type inquiry struct {
	header dns.MsgHdr
	// question is the wire form of the question section, byte for byte as it
	// came; nil where there is none that can be read.
	question []byte
	name     string // presentation form with the final dot, in the case it came
	qtype    uint16
	class    uint16
	edns     bool
	version  uint8 // of EDNS
	udpSize  uint16
	flags    queryFlags
}

var (
	errShort     = errors.New("the message is shorter than a header")
	errResponse  = errors.New("the message is a response")
	errOpcode    = errors.New("the opcode is not QUERY")
	errQuestions = errors.New("the message has not exactly one question")
	errQuestion  = errors.New("the question is malformed")
	errSections  = errors.New("the message has records that no question has")
	errTrailing  = errors.New("bytes follow the message")
	errLong      = errors.New("the message is longer than any question")
	errVersion   = errors.New("the EDNS version is not 0")
)

// parseInquiry reads a client's message. With an error, what was read before
// it still stands; errShort and errResponse are not to be answered.
func parseInquiry(raw []byte) (inquiry, error) {
	var q inquiry
	if len(raw) < headerSize {
		return q, errShort
	}
	bits := binary.BigEndian.Uint16(raw[2:])
	q.header = dns.MsgHdr{
		Id:               binary.BigEndian.Uint16(raw),
		Opcode:           int(bits>>11) & 0xF,
		RecursionDesired: bits&(1<<8) != 0,
		CheckingDisabled: bits&(1<<4) != 0,
	}
	if raw[2]&replyBit != 0 {
		return q, errResponse
	}
	if q.header.Opcode != dns.OpcodeQuery {
		return q, errOpcode
	}
	if binary.BigEndian.Uint16(raw[4:]) != 1 {
		return q, errQuestions
	}
	end, ok := q.readQuestion(raw)
	if !ok {
		return q, errQuestion
	}
	if len(raw) > maxQuery {
		return q, errLong
	}
	answers, authority := binary.BigEndian.Uint16(raw[6:]), binary.BigEndian.Uint16(raw[8:])
	extra := int(binary.BigEndian.Uint16(raw[10:]))
	if answers != 0 || authority != 0 || extra > maxExtra {
		return q, errSections
	}
	return q, q.readExtra(raw, end, extra)
}

// readQuestion reads the question section. Its name has no compression
// pointers: there is nothing before it to point to.
func (q *inquiry) readQuestion(raw []byte) (end int, ok bool) {
	off := headerSize
	for {
		if off >= len(raw) || raw[off] > 63 {
			return 0, false
		}
		n := int(raw[off])
		off += n + 1
		if n == 0 {
			break
		}
	}
	if off+4 > len(raw) || off-headerSize > 255 {
		return 0, false
	}
	name, _, err := dns.UnpackDomainName(raw[:off], headerSize)
	if err != nil {
		return 0, false
	}
	q.name = name
	q.qtype = binary.BigEndian.Uint16(raw[off:])
	q.class = binary.BigEndian.Uint16(raw[off+2:])
	q.question = raw[headerSize : off+4]
	return off + 4, true
}

// readExtra reads the additional section, of which only OPT says anything to us.
func (q *inquiry) readExtra(raw []byte, off, count int) error {
	for range count {
		rr, next, err := dns.UnpackRR(raw, off)
		if err != nil || next <= off {
			return errSections
		}
		off = next
		opt, ok := rr.(*dns.OPT)
		switch {
		case !ok:
			continue
		case q.edns || opt.Hdr.Name != ".": // RFC 6891 section 6.1.1
			return errSections
		}
		q.edns, q.version, q.udpSize = true, opt.Version(), opt.UDPSize()
		q.flags.DO = opt.Do()
	}
	if off != len(raw) {
		return errTrailing
	}
	if q.edns && q.version != 0 {
		return errVersion
	}
	q.flags.CD = q.header.CheckingDisabled
	return nil
}

// asked is the name without its final dot, as records show it.
func (q *inquiry) asked() string {
	if q.name == "." {
		return q.name
	}
	return strings.TrimSuffix(q.name, ".")
}

// udpLimit is how many bytes of reply the client takes over UDP.
func (q *inquiry) udpLimit() int {
	if !q.edns {
		return plainUDP
	}
	return int(min(max(q.udpSize, plainUDP), maxUDPReply))
}

// bare is a reply of a header and the question, as far as that could be read.
// It is never longer than the message it answers.
func (q *inquiry) bare(rcode int) []byte {
	bits := uint16(1)<<15 | uint16(q.header.Opcode)<<11 | uint16(1)<<7 | uint16(rcode&0xF)
	if q.header.RecursionDesired {
		bits |= 1 << 8
	}
	if q.header.CheckingDisabled {
		bits |= 1 << 4
	}
	reply := make([]byte, headerSize, headerSize+len(q.question))
	binary.BigEndian.PutUint16(reply, q.header.Id)
	binary.BigEndian.PutUint16(reply[2:], bits)
	if q.question != nil {
		binary.BigEndian.PutUint16(reply[4:], 1)
	}
	return append(reply, q.question...)
}
