package dnsfilter

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestScrubDropsRecordsCutShort reads answers whose last record has no room for
// the names in its data: what is kept of each can be written and read again.
func TestScrubDropsRecordsCutShort(t *testing.T) {
	for _, c := range []struct {
		record string
		room   int  // bytes of data that are left
		kept   bool // a whole record of that type is
	}{
		{"a.example. 60 IN CNAME b.example.", 0, false},
		{"a.example. 60 IN SRV 1 2 443 b.example.", 6, false},
		{"a.example. 60 IN MX 10 b.example.", 2, false},
		{"a.example. 60 IN NS b.example.", 0, false},
		{"a.example. 60 IN HTTPS 1 b.example. alpn=h2", 2, false},
		{"a.example. 60 IN SVCB 1 b.example. alpn=h2", 2, false},
		{"a.example. 60 IN SOA b.example. c.example. 1 2 3 4 5", 11, false}, // the first name only
		{"a.example. 60 IN SRV 1 2 443 b.example.", 17, true},
		{"a.example. 60 IN SRV 1 2 443 .", 7, true},
	} {
		rr, err := dns.NewRR(c.record)
		if err != nil {
			t.Fatal(err)
		}
		m := cutShort(t, rr, c.room)
		a, err := scrub(m, "a.example.", flightKey{name: "a.example.", qtype: rr.Header().Rrtype}, time.Hour)
		if err != nil || (len(a.records) == 1) != c.kept {
			t.Errorf("%s, cut to %d bytes: kept %v, %v", c.record, c.room, a.records, err)
		}
	}
	soa, _ := dns.NewRR("example. 60 IN SOA b.example. c.example. 1 2 3 4 5")
	m := cutShort(t, soa, 11)
	m.Ns, m.Answer = m.Answer, nil
	if a, err := scrub(m, "a.example.", flightKey{name: "a.example.", qtype: dns.TypeA}, time.Hour); err != nil || a.soa != nil {
		t.Errorf("an SOA with one name of two: kept %v, %v", a.soa, err)
	}
	sig, _ := dns.NewRR("a.example. 60 IN RRSIG TXT 8 2 60 20300101000000 20200101000000 1 example. AAAA")
	m = cutShort(t, sig, 18)
	m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: "a.example.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{"text"}})
	a, err := scrub(m, "a.example.", flightKey{name: "a.example.", qtype: dns.TypeTXT, flags: queryFlags{DO: true}}, time.Hour)
	if err != nil || len(a.records) != 1 {
		t.Errorf("a signature without its signer: kept %v, %v", a.records, err)
	}
}

// cutShort is a message as it is read whose only answer is rr with the first
// bytes of its data alone.
func cutShort(t *testing.T, rr dns.RR, room int) *dns.Msg {
	t.Helper()
	wire := packed(t, &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: []dns.RR{rr}})
	data := headerSize + len(rr.Header().Name) + 1 + 10 // of fixed fields
	wire = wire[:data+room]
	binary.BigEndian.PutUint16(wire[data-2:], uint16(room))
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("%v: %v", rr, err)
	}
	return m
}
