package dnsfilter

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// A Past judges questions that were asked of another resolver as a Server would
// have, but for the targets of SRV answers, which it does not follow. It is safe
// for concurrent use.
type Past struct {
	server Server
	policy *allowlists.Policy
}

// NewPast makes one for a policy; search are the suffixes of dns.search.
func NewPast(policy *allowlists.Policy, search []allowlists.Host) *Past {
	return &Past{server: Server{cfg: Config{Search: search}, follows: newFollows()}, policy: policy}
}

// Judge gives what the record of a question would have said: its host, verdict
// and, of the addresses that it was answered with, which would have passed and
// which would have been taken out. pool may be nil. name is in presentation form.
func (p *Past) Judge(pool *allowlists.Pool, name string, qtype, class uint16, answers []netip.Addr, now time.Time) QueryRecord {
	v := p.server.judge(p.policy, pool, name, qtype, class, now)
	r := QueryRecord{Host: v.host, Reverse: v.reverse, Search: v.search, Decision: v.decision, Generation: p.policy.Generation()}
	if !v.decision.Allowed() || v.reverse {
		return r
	}
	a := answer{rcode: dns.RcodeSuccess}
	for _, addr := range answers {
		if addr.Is4() {
			a.records = append(a.records, &dns.A{Hdr: dns.RR_Header{Rrtype: dns.TypeA}, A: addr.AsSlice()})
		} else {
			a.records = append(a.records, &dns.AAAA{Hdr: dns.RR_Header{Rrtype: dns.TypeAAAA}, AAAA: addr.AsSlice()})
		}
	}
	j := judgeAddrs(&v, a, now)
	r.Decision, r.Removed = j.decision, j.removed
	if j.decision.Allowed() {
		r.Answers = j.passed
	}
	return r
}

// TypeNumber reads the mnemonic of a record type, or TYPE1234 (RFC 3597).
func TypeNumber(text string) (uint16, bool) {
	if n, ok := dns.StringToType[text]; ok {
		return n, true
	}
	digits, ok := strings.CutPrefix(text, "TYPE")
	n, err := strconv.ParseUint(digits, 10, 16)
	return uint16(n), ok && err == nil
}

// TypeText is the mnemonic of a record type, or TYPE1234.
func TypeText(qtype uint16) string { return dns.Type(qtype).String() }
