package dnstest

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Zone makes a handler that answers from records in zone-file form, such as
// "www.example. 60 IN A 192.0.2.1": those of the asked name and type, and along
// aliases. A name without records is NXDOMAIN, one without such records an
// empty NOERROR; both come with an SOA of 30 seconds.
func Zone(t testing.TB, lines ...string) dns.HandlerFunc {
	t.Helper()
	var records []dns.RR
	for _, line := range lines {
		record, err := dns.NewRR(line)
		if err != nil || record == nil {
			t.Fatalf("record %q: %v", line, err)
		}
		records = append(records, record)
	}
	return func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg).SetReply(query)
		reply.RecursionAvailable = true
		name, qtype := query.Question[0].Name, query.Question[0].Qtype
		known := false
		for range 16 { // aliases
			alias := ""
			for _, record := range records {
				header := record.Header()
				if !strings.EqualFold(header.Name, name) {
					continue
				}
				known = true
				if header.Rrtype == qtype {
					record = dns.Copy(record)
					record.Header().Name = name
					reply.Answer = append(reply.Answer, record)
				} else if cname, ok := record.(*dns.CNAME); ok {
					reply.Answer = append(reply.Answer, dns.Copy(record))
					alias = cname.Target
				}
			}
			if alias == "" {
				break
			}
			name = alias
		}
		if !known {
			reply.Rcode = dns.RcodeNameError
		}
		if len(reply.Answer) == 0 {
			soa, _ := dns.NewRR("example. 30 IN SOA ns.example. admin.example. 1 7200 900 1209600 30")
			reply.Ns = append(reply.Ns, soa)
		}
		_ = w.WriteMsg(reply)
	}
}

// Answer makes a handler that answers every question with this code and no record.
func Answer(rcode int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, query *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(query, rcode))
	}
}

// recorder is the dns.ResponseWriter that handlers write to. It keeps the
// message; the server sends it.
type recorder struct {
	from  netip.AddrPort
	proto string
	msg   *dns.Msg
}

// WriteMsg implements dns.ResponseWriter.
func (r *recorder) WriteMsg(m *dns.Msg) error { r.msg = m; return nil }

// Write implements dns.ResponseWriter.
func (r *recorder) Write(wire []byte) (int, error) {
	msg := new(dns.Msg)
	if err := msg.Unpack(wire); err != nil {
		return 0, err
	}
	r.msg = msg
	return len(wire), nil
}

// RemoteAddr implements dns.ResponseWriter; its type tells UDP from the rest.
func (r *recorder) RemoteAddr() net.Addr {
	if r.proto == "udp" {
		return net.UDPAddrFromAddrPort(r.from)
	}
	return net.TCPAddrFromAddrPort(r.from)
}

// LocalAddr implements dns.ResponseWriter; nobody needs it.
func (r *recorder) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// Close implements dns.ResponseWriter.
func (r *recorder) Close() error { return nil }

// TsigStatus implements dns.ResponseWriter.
func (r *recorder) TsigStatus() error { return nil }

// TsigTimersOnly implements dns.ResponseWriter.
func (r *recorder) TsigTimersOnly(bool) {}

// Hijack implements dns.ResponseWriter.
func (r *recorder) Hijack() {}
