package dnsfilter

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// The zones of names for addresses, RFC 1035 section 3.5 and RFC 3596 section 2.5.
const (
	reverse4 = ".in-addr.arpa"
	reverse6 = ".ip6.arpa"
)

// isReverse reports whether a canonical name lies in a zone of names for addresses.
func isReverse(name string) bool {
	return strings.HasSuffix(name, reverse4) || strings.HasSuffix(name, reverse6)
}

// reverseAddr reads the address out of a canonical reverse name; the zero Addr
// if it spells none whole.
func reverseAddr(name string) netip.Addr {
	if front, ok := strings.CutSuffix(name, reverse4); ok {
		labels := strings.Split(front, ".")
		if len(labels) != 4 {
			return netip.Addr{}
		}
		addr, _ := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return addr
	}
	front, ok := strings.CutSuffix(name, reverse6)
	if !ok || len(front) != 63 {
		return netip.Addr{}
	}
	var raw [16]byte
	for i := range 32 {
		nibble, err := strconv.ParseUint(front[62-2*i:63-2*i], 16, 4)
		if err != nil || i < 31 && front[61-2*i] != '.' {
			return netip.Addr{}
		}
		raw[i/2] |= byte(nibble << (4 * (1 - i%2)))
	}
	return netip.AddrFrom16(raw)
}

// answerReverse answers from the book: with the names that this pool was
// given the address for. Anything else is refused, and nothing goes upstream.
func (s *Server) answerReverse(v *verdict, by account, now time.Time) (a answer, ok bool) {
	addr := reverseAddr(v.host.String())
	if !addr.IsValid() {
		return answer{}, false
	}
	hosts, ttl := s.book.lookup(by, addr, now, s.standing(v.pool, now))
	ttl = min(ttl, s.cfg.MaxTTL)
	for _, h := range hosts {
		a.records = append(a.records, &dns.PTR{
			Hdr: dns.RR_Header{Name: v.host.String() + ".", Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: uint32(ttl / time.Second)},
			Ptr: h.String() + ".",
		})
	}
	return a, len(hosts) > 0
}

// standing makes the test whether a name may still stand for an address in a
// pool: only while the policy of now allows it.
func (s *Server) standing(pool *allowlists.Pool, now time.Time) func(allowlists.Host) bool {
	return func(h allowlists.Host) bool { return pool.DecideName(h, now).Allowed() }
}
