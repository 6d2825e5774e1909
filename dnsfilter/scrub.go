package dnsfilter

import (
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Bounds on one upstream answer.
const (
	maxChain   = 16  // CNAMEs from the name asked to the records
	maxRRset   = 512 // records at the end of the chain
	maxRRSIGs  = 8   // signatures kept of each set
	maxBadTTL  = 1 << 31
	ttlOfBlock = 5 // seconds that a refusal may be cached
)

var (
	errChainLoop = errors.New("the answer's chain of CNAMEs turns back on itself")
	errChainLong = errors.New("the answer's chain of CNAMEs is longer than 16")
	errNotAnswer = errors.New("the upstream answered")
)

// answer is what is left of an upstream's message: the chain that leads from
// the name asked to records of the type asked, and nothing beside it. It is
// the same for every pool; whose addresses pass is judged later. It does not
// change once made.
type answer struct {
	rcode   int      // NOERROR or NXDOMAIN
	records []dns.RR // the CNAMEs in order, then the set; names lower case
	soa     *dns.SOA // of a negative answer, where one came
	ttl     time.Duration
}

// scrub cuts an upstream's message down to what answers the question. name is
// lower case with the final dot. Records of other names, types and classes go,
// as do the authority section but for the SOA of a negative answer, and the
// additional section (CVE-2025-11411: what is not connected is not believed).
func scrub(msg *dns.Msg, name string, q flightKey, maxTTL time.Duration) (answer, error) {
	if msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError {
		return answer{}, rcodeError(msg.Rcode)
	}
	a := answer{rcode: msg.Rcode}
	chain, end, err := followChain(msg.Answer, name, q)
	if err != nil {
		return answer{}, err
	}
	var set []dns.RR
	if a.rcode == dns.RcodeSuccess && q.qtype != dns.TypeCNAME {
		set = recordsOf(msg.Answer, end, q)
	}
	a.records = append(chain, set...)
	negative := len(set) == 0 && (q.qtype != dns.TypeCNAME || len(chain) == 0)
	if negative {
		a.soa = negativeSOA(msg.Ns, end)
	}
	a.ttl = capTTLs(a, maxTTL)
	if negative && a.soa == nil { // not to be kept, RFC 2308 section 5
		a.ttl = 0
	}
	return a, nil
}

// followChain walks the CNAMEs from name. end is the name that it leads to. A
// question for CNAME stops at the first.
func followChain(records []dns.RR, name string, q flightKey) (chain []dns.RR, end string, err error) {
	seen := map[string]bool{name: true}
	for end = name; ; {
		if q.qtype != dns.TypeCNAME && hasType(records, end, q.qtype) {
			return chain, end, nil
		}
		alias := aliasOf(records, end)
		if alias == nil {
			return chain, end, nil
		}
		if len(seen) > maxChain {
			return nil, "", errChainLong
		}
		chain = append(chain, alias)
		if q.flags.DO {
			chain = append(chain, signatures(records, end, dns.TypeCNAME)...)
		}
		if q.qtype == dns.TypeCNAME {
			return chain, end, nil
		}
		end = alias.Target
		if seen[end] {
			return nil, "", errChainLoop
		}
		seen[end] = true
	}
}

// aliasOf gives the first CNAME at a name, nil if there is none.
func aliasOf(records []dns.RR, name string) *dns.CNAME {
	for _, rr := range records {
		if c, ok := rr.(*dns.CNAME); ok && belongs(rr, name) && hasNames(rr) {
			kept := *c
			kept.Target = lowerASCII(dns.Fqdn(kept.Target))
			kept.Hdr.Name = name
			return &kept
		}
	}
	return nil
}

// belongs reports whether a record of class IN stands at name.
func belongs(rr dns.RR, name string) bool {
	return rr.Header().Class == dns.ClassINET && lowerASCII(rr.Header().Name) == name
}

func hasType(records []dns.RR, name string, qtype uint16) bool {
	return slices.ContainsFunc(records, func(rr dns.RR) bool {
		return rr.Header().Rrtype == qtype && belongs(rr, name)
	})
}

// recordsOf gives the records of the type asked at a name, and their
// signatures where the client wants them.
func recordsOf(records []dns.RR, name string, q flightKey) []dns.RR {
	var set []dns.RR
	for _, rr := range records {
		if rr.Header().Rrtype != q.qtype || !belongs(rr, name) || len(set) >= maxRRset {
			continue
		}
		if kept := cleaned(rr); kept != nil {
			kept.Header().Name = name
			set = append(set, kept)
		}
	}
	if q.flags.DO && len(set) > 0 {
		set = append(set, signatures(records, name, q.qtype)...)
	}
	return set
}

// signatures gives the signatures over one set. They are not checked by us,
// and never make us say AD.
func signatures(records []dns.RR, name string, covered uint16) []dns.RR {
	var sigs []dns.RR
	for _, rr := range records {
		if sig, ok := rr.(*dns.RRSIG); ok && sig.TypeCovered == covered && belongs(rr, name) && hasNames(rr) && len(sigs) < maxRRSIGs {
			kept := dns.Copy(sig)
			kept.Header().Name = name
			sigs = append(sigs, kept)
		}
	}
	return sigs
}

// cleaned copies a record without what no pool may have: the keys for
// encrypted ClientHellos. It gives nil for a record that makes no sense, or
// none without them.
func cleaned(rr dns.RR) dns.RR {
	kept := dns.Copy(rr)
	switch r := kept.(type) {
	case *dns.A:
		if r.A.To4() == nil {
			return nil
		}
	case *dns.AAAA:
		if len(r.AAAA) != 16 {
			return nil
		}
	case *dns.HTTPS:
		return orNil(kept, hasNames(&r.SVCB) && withoutParam(&r.SVCB, dns.SVCB_ECHCONFIG))
	case *dns.SVCB:
		return orNil(kept, hasNames(r) && withoutParam(r, dns.SVCB_ECHCONFIG))
	default:
		return orNil(kept, hasNames(kept))
	}
	return kept
}

// hasNames reports whether every domain name in the data of a record is there.
// miekg/dns reads a record whose data end early as one with empty names, and
// writes those as nothing, which no client can read; the root's name is ".".
func hasNames(rr dns.RR) bool {
	data := reflect.ValueOf(rr).Elem()
	for i := range data.NumField() {
		kind := data.Type().Field(i)
		if kind.Type.Kind() == reflect.String && strings.HasSuffix(kind.Tag.Get("dns"), "domain-name") && data.Field(i).Len() == 0 {
			return false
		}
	}
	return true
}

func orNil(rr dns.RR, keep bool) dns.RR {
	if keep {
		return rr
	}
	return nil
}

// withoutParam takes a parameter out of a service record (RFC 9460). It reports
// false if the record says that it is of no use without it.
func withoutParam(r *dns.SVCB, key dns.SVCBKey) bool {
	for _, v := range r.Value {
		if m, ok := v.(*dns.SVCBMandatory); ok && slices.Contains(m.Code, key) {
			return false
		}
	}
	r.Value = slices.DeleteFunc(r.Value, func(v dns.SVCBKeyValue) bool { return v.Key() == key })
	return true
}

// negativeSOA finds the SOA that says how long a name's absence holds. It must
// stand at the name or above it (RFC 2308 section 5).
func negativeSOA(authority []dns.RR, name string) *dns.SOA {
	for _, rr := range authority {
		soa, ok := rr.(*dns.SOA)
		if !ok || soa.Hdr.Class != dns.ClassINET || !hasNames(rr) {
			continue
		}
		if zone := lowerASCII(soa.Hdr.Name); zone == "." || name == zone || strings.HasSuffix(name, "."+zone) {
			kept := *soa
			kept.Hdr.Name = zone
			kept.Hdr.Ttl = min(sane(kept.Hdr.Ttl), sane(kept.Minttl))
			return &kept
		}
	}
	return nil
}

// capTTLs holds every TTL to maxTTL and gives the lowest: how long the answer
// may be kept.
func capTTLs(a answer, maxTTL time.Duration) time.Duration {
	top := uint32(min(maxTTL/time.Second, maxBadTTL-1))
	lowest := top
	for _, rr := range a.records {
		h := rr.Header()
		h.Ttl = min(sane(h.Ttl), top)
		lowest = min(lowest, h.Ttl)
	}
	if a.soa != nil {
		a.soa.Hdr.Ttl = min(a.soa.Hdr.Ttl, top)
		lowest = min(lowest, a.soa.Hdr.Ttl)
	}
	return time.Duration(lowest) * time.Second
}

// sane reads a TTL: with the top bit set it is 0, RFC 2181 section 8.
func sane(ttl uint32) uint32 {
	if ttl >= maxBadTTL {
		return 0
	}
	return ttl
}

// An rcodeError is an upstream's answer that says nothing about the name.
type rcodeError int

// Error names the code.
func (e rcodeError) Error() string {
	return errNotAnswer.Error() + " " + rcodeText(int(e))
}

// rcodeText names a response code, or gives its number.
func rcodeText(rcode int) string {
	if text, ok := dns.RcodeToString[rcode]; ok {
		return text
	}
	return "RCODE" + strconv.Itoa(rcode)
}
