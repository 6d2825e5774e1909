package dnsfilter

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// judged is an answer as one pool may have it. Its records are copies, the
// pool's own to change.
type judged struct {
	records  []dns.RR
	soa      *dns.SOA
	rcode    int
	passed   []netip.Addr // addresses in the records, hints too
	removed  []netip.Addr // addresses taken out
	cnames   []string     // without the final dot
	decision allowlists.Decision
	ttl      time.Duration // the lowest of the records
}

// judgeAddrs takes out of an answer the addresses that may not stand for its
// name in this pool. The decision is the verdict's; it turns into the refusal
// of the first address if none is left, and into allowed-by-audit if one
// passes only by that.
func judgeAddrs(v *verdict, a answer, now time.Time) judged {
	j := judged{rcode: a.rcode, decision: v.decision}
	if a.soa != nil {
		j.soa, _ = dns.Copy(a.soa).(*dns.SOA)
	}
	var refused allowlists.Decision
	passes := func(addr netip.Addr) bool {
		d := v.pool.DecideAddr(v.decision, addr, now)
		if !d.Allowed() {
			if len(j.removed) == 0 {
				refused = d
			}
			j.removed = append(j.removed, addr)
			return false
		}
		if d.Reason == allowlists.AllowedByAudit && j.decision.Reason == allowlists.Allowed {
			j.decision = d
		}
		j.passed = append(j.passed, addr)
		return true
	}
	for _, rr := range a.records {
		if kept := judgeRecord(dns.Copy(rr), passes); kept != nil {
			j.records = append(j.records, kept)
		}
		if c, ok := rr.(*dns.CNAME); ok {
			j.cnames = append(j.cnames, strings.TrimSuffix(c.Target, "."))
		}
	}
	if len(j.removed) > 0 {
		j.records = slices.DeleteFunc(j.records, brokenSignature)
		if len(j.passed) == 0 && !hasService(j.records) {
			j.decision = refused
			j.records = nil
			j.soa = nil
		}
	}
	j.ttl = lowestTTL(j)
	return j
}

// judgeRecord gives the record with the addresses that pass, nil if it is of
// no use without the others.
func judgeRecord(rr dns.RR, passes func(netip.Addr) bool) dns.RR {
	switch r := rr.(type) {
	case *dns.A:
		addr, ok := netip.AddrFromSlice(r.A.To4())
		return orNil(rr, ok && passes(addr))
	case *dns.AAAA:
		addr, ok := netip.AddrFromSlice(r.AAAA)
		return orNil(rr, ok && passes(addr))
	case *dns.HTTPS:
		return orNil(rr, judgeHints(&r.SVCB, passes))
	case *dns.SVCB:
		return orNil(rr, judgeHints(r, passes))
	default:
		return rr
	}
}

// judgeHints keeps the address hints that pass. It reports false if the record
// says that it is of no use without those that do not.
func judgeHints(r *dns.SVCB, passes func(netip.Addr) bool) bool {
	for _, v := range slices.Clone(r.Value) { // withoutParam changes r.Value
		var hints *[]net.IP
		switch h := v.(type) {
		case *dns.SVCBIPv4Hint:
			hints = &h.Hint
		case *dns.SVCBIPv6Hint:
			hints = &h.Hint
		default:
			continue
		}
		*hints = slices.DeleteFunc(*hints, func(ip net.IP) bool {
			if v.Key() == dns.SVCB_IPV4HINT {
				ip = ip.To4()
			}
			addr, ok := netip.AddrFromSlice(ip)
			return !ok || !passes(addr)
		})
		if len(*hints) == 0 && !withoutParam(r, v.Key()) {
			return false
		}
	}
	return true
}

// brokenSignature reports a signature over addresses or service records, of
// which some were taken out. Over CNAMEs it still holds.
func brokenSignature(rr dns.RR) bool {
	sig, ok := rr.(*dns.RRSIG)
	return ok && sig.TypeCovered != dns.TypeCNAME
}

// hasService reports whether a record is left that says something without an address.
func hasService(records []dns.RR) bool {
	return slices.ContainsFunc(records, func(rr dns.RR) bool {
		t := rr.Header().Rrtype
		return t == dns.TypeHTTPS || t == dns.TypeSVCB
	})
}

// lowestTTL is how long the answer holds for the client.
func lowestTTL(j judged) time.Duration {
	var ttls []uint32
	for _, rr := range j.records {
		ttls = append(ttls, rr.Header().Ttl)
	}
	if j.soa != nil {
		ttls = append(ttls, j.soa.Hdr.Ttl)
	}
	if len(ttls) == 0 {
		return 0
	}
	return time.Duration(slices.Min(ttls)) * time.Second
}
