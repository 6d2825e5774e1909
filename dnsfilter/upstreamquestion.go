package dnsfilter

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/dns"
)

// Sizes of DNS messages, in bytes.
const (
	maxNameWire = 255   // RFC 1035 section 2.3.4
	headerSize  = 12    // RFC 1035 section 4.1.1
	ednsSize    = 1232  // what we say we take over UDP; DNS flag day 2020
	maxMessage  = 65535 // RFC 1035 section 4.2.2
	minRecord   = 11    // root name, type, class, TTL, no data
	maxRecords  = 2048  // in all sections of one answer
	truncateBit = 0x02  // in the third byte of the header
	replyBit    = 0x80
	opcodeBits  = 0x78
)

var (
	// errMalformed is an answer to our question that is not well formed.
	errMalformed = errors.New("the answer is malformed")
	// errTruncated is an answer that does not fit UDP.
	errTruncated = errors.New("the answer is truncated")
)

// question is what travels: nothing of a client's message but name, type and
// two flags. It does not change once made.
type question struct {
	name  string // lower case, with the final dot, presentation form
	wire  string // the name as it travels
	qtype uint16
	flags queryFlags
}

// newQuestion checks that the name can be sent.
func newQuestion(name string, qtype uint16, flags queryFlags) (question, error) {
	q := question{name: lowerASCII(dns.Fqdn(name)), qtype: qtype, flags: flags}
	var wire [maxNameWire]byte
	n, err := dns.PackDomainName(q.name, wire[:], 0, nil, false)
	if err != nil || name == "" {
		return q, errors.New("the name cannot be asked for")
	}
	q.wire = string(wire[:n])
	return q, nil
}

// pack makes the message under the given ID; mix gives the letters of the name
// a random case (0x20, draft-vixie-dnsext-dns0x20).
func (q question) pack(id uint16, mix bool) []byte {
	wire := make([]byte, 0, headerSize+len(q.wire)+4+optSize)
	wire = binary.BigEndian.AppendUint16(wire, id)
	cd, do := byte(0), byte(0)
	if q.flags.CD {
		cd = bitCD
	}
	if q.flags.DO {
		do = 0x80
	}
	wire = append(wire, bitRD, cd, 0, 1, 0, 0, 0, 0, 0, 1) // one question, one additional record
	wire = append(wire, q.wire...)
	if mix {
		mixCase(wire[headerSize:])
	}
	wire = binary.BigEndian.AppendUint16(wire, q.qtype)
	wire = append(wire, 0, dns.ClassINET, 0, 0, byte(dns.TypeOPT))
	wire = binary.BigEndian.AppendUint16(wire, ednsSize)
	return append(wire, 0, 0, do, 0, 0, 0)
}

// mixCase gives each letter of a name in wire form a random case. Length bytes
// are at most 63 and so never letters.
func mixCase(name []byte) {
	var coins [maxNameWire/8 + 1]byte
	_, _ = rand.Read(coins[:len(name)/8+1]) // never fails; crypto/rand
	for i, c := range name {
		if 'a' <= c && c <= 'z' && coins[i/8]>>(i%8)&1 == 1 {
			name[i] = c &^ 0x20
		}
	}
}

// randomID makes an unguessable message ID.
func randomID() uint16 {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails; crypto/rand
	return binary.BigEndian.Uint16(b[:])
}

// questionEnd is the offset after the name of the only question of a message
// that we packed ourselves, before type and class.
func questionEnd(wire []byte) int {
	end := headerSize
	for wire[end] != 0 {
		end += int(wire[end]) + 1
	}
	return end + 1
}

// match says how well a message answers a query.
type match int

const (
	matchNone  match = iota // not an answer to it: somebody else's, or forged
	matchCase               // everything but the case of the name
	matchExact              // everything
)

// matchAnswer compares a received message with the query that we sent: ID, QR,
// opcode and the one question, byte for byte. It looks no further.
func matchAnswer(query, answer []byte) match {
	if len(answer) < headerSize || !bytes.Equal(query[:2], answer[:2]) ||
		answer[2]&replyBit == 0 || answer[2]&opcodeBits != 0 || binary.BigEndian.Uint16(answer[4:]) != 1 {
		return matchNone
	}
	name := questionEnd(query)
	end := name + 4 // type and class
	if len(answer) < end || !bytes.Equal(query[name:end], answer[name:end]) {
		return matchNone
	}
	asked, echoed := query[headerSize:name], answer[headerSize:name]
	if bytes.Equal(asked, echoed) {
		return matchExact
	}
	for i := range asked {
		if lowerByte(asked[i]) != lowerByte(echoed[i]) {
			return matchNone
		}
	}
	return matchCase
}

// parseAnswer unpacks a message that matchAnswer took for an answer to q.
// The counts of its header must be true and within bounds, since memory is
// spent by them. It returns errTruncated or errMalformed otherwise. Names of
// records and of aliases come back in lower case, and the question as asked.
func parseAnswer(q question, answer []byte) (*dns.Msg, error) {
	if answer[2]&truncateBit != 0 {
		return nil, errTruncated
	}
	records := 0
	for section := 6; section < headerSize; section += 2 {
		records += int(binary.BigEndian.Uint16(answer[section:]))
	}
	if records > maxRecords || records*minRecord > len(answer)-headerSize {
		return nil, fmt.Errorf("%w: its header claims %d records", errMalformed, records)
	}
	msg := new(dns.Msg)
	if err := msg.Unpack(answer); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if len(msg.Answer)+len(msg.Ns)+len(msg.Extra) != records || len(msg.Question) != 1 {
		return nil, fmt.Errorf("%w: it ends before its last record", errMalformed)
	}
	msg.Question[0].Name = q.name
	for _, section := range [][]dns.RR{msg.Answer, msg.Ns, msg.Extra} {
		for _, record := range section {
			header := record.Header()
			header.Name = lowerASCII(header.Name)
			switch alias := record.(type) {
			case *dns.CNAME:
				alias.Target = lowerASCII(alias.Target)
			case *dns.DNAME:
				alias.Target = lowerASCII(alias.Target)
			}
		}
	}
	return msg, nil
}

// lowerASCII lowers A to Z and leaves every other byte, unlike strings.ToLower.
func lowerASCII(text string) string {
	first := 0
	for first < len(text) && lowerByte(text[first]) == text[first] {
		first++
	}
	if first == len(text) {
		return text
	}
	lower := []byte(text)
	for i, c := range lower {
		lower[i] = lowerByte(c)
	}
	return string(lower)
}

// lowerByte is lowerASCII for one byte.
func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
