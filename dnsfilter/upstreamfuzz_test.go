package dnsfilter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzResponse feeds any bytes to the acceptance check: it never panics, and
// what it accepts answers the question, in bounds, in lower case.
func FuzzResponse(f *testing.F) {
	q, err := newQuestion("www.example", dns.TypeA, queryFlags{})
	if err != nil {
		f.Fatal(err)
	}
	query := q.pack(0x1234, false)
	msg := new(dns.Msg)
	if err := msg.Unpack(query); err != nil {
		f.Fatal(err)
	}
	reply := new(dns.Msg).SetReply(msg)
	for _, line := range []string{
		"WWW.Example. 60 IN CNAME a.Example.", "a.example. 60 IN A 192.0.2.1",
		"a.example. 60 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1", `a.example. 60 IN TXT "x"`,
	} {
		record, err := dns.NewRR(line)
		if err != nil {
			f.Fatal(err)
		}
		reply.Answer = append(reply.Answer, record)
		reply.Compress = true
		wire, err := reply.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
		f.Add(wire[:len(wire)-3])
	}
	f.Add(query)
	f.Add([]byte{})
	liar := append([]byte(nil), query...)
	liar[2] |= replyBit
	binary.BigEndian.PutUint16(liar[6:], 65535) // miekg/dns issue 609
	f.Add(liar)
	loop := append(append([]byte(nil), liar...), 0xc0, 0x0c, 0, 5, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 0x1d)
	binary.BigEndian.PutUint16(loop[6:], 1)
	f.Add(loop)

	f.Fuzz(func(t *testing.T, answer []byte) {
		if matchAnswer(query, answer) == matchNone {
			return
		}
		got, err := parseAnswer(q, answer)
		if err != nil {
			if !errors.Is(err, errMalformed) && !errors.Is(err, errTruncated) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if got.Id != 0x1234 || !got.Response || got.Opcode != dns.OpcodeQuery || len(got.Question) != 1 ||
			got.Question[0] != (dns.Question{Name: q.name, Qtype: dns.TypeA, Qclass: dns.ClassINET}) {
			t.Fatalf("accepted %v", got)
		}
		if n := len(got.Answer) + len(got.Ns) + len(got.Extra); n > maxRecords || n*minRecord > len(answer) {
			t.Fatalf("%d records in %d bytes", n, len(answer))
		}
		for _, record := range got.Answer {
			if name := record.Header().Name; strings.ContainsAny(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
				t.Fatalf("the name %q is not in lower case", name)
			}
		}
	})
}

func TestHeaderThatLiesIsMalformed(t *testing.T) {
	q, _ := newQuestion("www.example", dns.TypeA, queryFlags{})
	query := q.pack(1, false)
	liar := append([]byte(nil), query...)
	liar[2] |= replyBit
	for _, count := range []uint16{1, 2, maxRecords + 1, 65535} {
		binary.BigEndian.PutUint16(liar[6:], count)
		if _, err := parseAnswer(q, append(liar[:len(liar):len(liar)], make([]byte, 9)...)); !errors.Is(err, errMalformed) {
			t.Errorf("a claim of %d records: %v", count, err)
		}
	}
}

func TestOnlyTheSameQuestionMatches(t *testing.T) {
	q, _ := newQuestion("www.example", dns.TypeA, queryFlags{})
	query := q.pack(0x1234, false)
	end := questionEnd(query)
	for _, test := range []struct {
		name string
		at   int
		byte byte
		want match
	}{
		{"the same", 0, 0x12, matchExact},
		{"an ID that differs in its first byte", 0, 0x13, matchNone},
		{"an ID that differs in its last byte", 1, 0x35, matchNone},
		{"a query", 2, 0x01, matchNone},
		{"a NOTIFY", 2, 0xa1, matchNone},
		{"no question", 5, 0, matchNone},
		{"256 questions more", 4, 1, matchNone},
		{"another letter", headerSize + 1, 'v', matchNone},
		{"another letter that differs by the bit of case only in sum", headerSize + 1, 'W' + 1, matchNone},
		{"a capital letter", headerSize + 1, 'W', matchCase},
		{"a label length with the bit of case", headerSize, 3 | 0x20, matchNone},
		{"another type", end + 1, 28, matchNone},
		{"another class", end + 3, 3, matchNone},
	} {
		answer := append([]byte(nil), query...)
		answer[2] |= replyBit
		answer[test.at] = test.byte
		if got := matchAnswer(query, answer); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
		for cut := range end + 4 {
			if matchAnswer(query, answer[:cut]) != matchNone {
				t.Errorf("%s, cut to %d bytes, matches", test.name, cut)
			}
		}
	}
}

func TestCountsMustBeTrueAndBounded(t *testing.T) {
	q, _ := newQuestion("www.example", dns.TypeA, queryFlags{})
	query := q.pack(1, false)
	record := append([]byte{0, 0, 10, 0, 1, 0, 0, 0, 1, 0, 20}, make([]byte, 20)...) // NULL of 20 bytes at the root
	message := func(claimed, sent int) []byte {
		wire := append([]byte(nil), query[:questionEnd(query)+4]...)
		wire[2] |= replyBit
		binary.BigEndian.PutUint16(wire[6:], uint16(claimed))
		binary.BigEndian.PutUint16(wire[10:], 0)
		return append(wire, bytes.Repeat(record, sent)...)
	}
	for _, test := range []struct {
		claimed, sent int
		good          bool
	}{{1, 1, true}, {maxRecords, maxRecords, true}, {maxRecords + 1, maxRecords + 1, false}, {2, 1, false}, {60, 50, false}} {
		if _, err := parseAnswer(q, message(test.claimed, test.sent)); (err == nil) != test.good {
			t.Errorf("%d records claimed and %d sent: %v", test.claimed, test.sent, err)
		}
	}
}

func TestNamesThatCannotBeAsked(t *testing.T) {
	for _, name := range []string{"", "a..example", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 128)} {
		if _, err := newQuestion(name, dns.TypeA, queryFlags{}); err == nil {
			t.Errorf("%q can be asked for", name)
		}
	}
}

// TestAQuestionIsWhatALibraryWouldSend packs each kind with miekg/dns, too.
func TestAQuestionIsWhatALibraryWouldSend(t *testing.T) {
	for _, name := range []string{".", "example", "WWW.Example.", `A\.b\065\255.Example`, strings.Repeat("a", 63) + ".b", "_a-b.0"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeHTTPS, 65280} {
			for _, flags := range []queryFlags{{}, {DO: true}, {CD: true}, {DO: true, CD: true}} {
				q, err := newQuestion(name, qtype, flags)
				if err != nil {
					t.Fatal(err)
				}
				msg := dns.Msg{
					MsgHdr:   dns.MsgHdr{Id: 0x1234, RecursionDesired: true, CheckingDisabled: flags.CD},
					Question: []dns.Question{{Name: q.name, Qtype: qtype, Qclass: dns.ClassINET}},
				}
				msg.SetEdns0(ednsSize, flags.DO)
				want, err := msg.Pack()
				if err != nil {
					t.Fatal(err)
				}
				if got := q.pack(0x1234, false); !bytes.Equal(got, want) {
					t.Errorf("%s type %d %+v: got %x, want %x", name, qtype, flags, got, want)
				}
				if got := q.pack(0x1234, true); !bytes.EqualFold(got[headerSize:], want[headerSize:]) || !bytes.Equal(got[headerSize+len(q.wire):], want[headerSize+len(q.wire):]) {
					t.Errorf("%s type %d %+v: mixed %x, want %x", name, qtype, flags, got, want)
				}
			}
		}
	}
}
