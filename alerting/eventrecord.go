package alerting

import (
	"net/netip"
	"strconv"
	"time"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
)

// typeNames are the record types that have a name in events; others are
// TYPE1234 (RFC 3597 section 5).
var typeNames = map[uint16]string{
	1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 10: "NULL", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT", 17: "RP",
	18: "AFSDB", 24: "SIG", 25: "KEY", 28: "AAAA", 29: "LOC", 33: "SRV", 35: "NAPTR", 37: "CERT", 39: "DNAME",
	41: "OPT", 43: "DS", 44: "SSHFP", 45: "IPSECKEY", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 49: "DHCID",
	50: "NSEC3", 51: "NSEC3PARAM", 52: "TLSA", 53: "SMIMEA", 55: "HIP", 59: "CDS", 60: "CDNSKEY",
	61: "OPENPGPKEY", 62: "CSYNC", 63: "ZONEMD", 64: "SVCB", 65: "HTTPS", 99: "SPF", 108: "EUI48", 109: "EUI64",
	249: "TKEY", 250: "TSIG", 251: "IXFR", 252: "AXFR", 255: "ANY", 256: "URI", 257: "CAA",
}

// rcodeNames are the response codes of RFC 1035 and RFC 2136, by number.
var rcodeNames = [...]string{
	"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
}

// typeName gives the name of a record type.
func typeName(t uint16) string {
	switch t { // nearly always
	case 1:
		return "A"
	case 28:
		return "AAAA"
	}
	if name, ok := typeNames[t]; ok {
		return name
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// rcodeName gives the name of a response code; "" where no reply was sent.
func rcodeName(code int) string {
	switch {
	case code < 0:
		return ""
	case code < len(rcodeNames):
		return rcodeNames[code]
	default:
		return "RCODE" + strconv.Itoa(code)
	}
}

// eventTime is t as an event shows it, so that live and read-back are equal.
func eventTime(t time.Time) time.Time {
	if t.IsZero() {
		t = time.Now()
	}
	return t.UTC().Truncate(time.Microsecond)
}

// begin fills in what every event of a subject has.
func (e *Event) begin(kind, id string, t time.Time, sub *allowlists.Subject, generation uint64) {
	e.Kind, e.ID, e.Time, e.Pool, e.Client = kind, id, eventTime(t), sub.Pool, plainAddr(sub.Client)
	e.Iface, e.Job, e.Machine, e.Policy = sub.Iface, sub.Job, sub.Machine, generation
}

// plainAddr is addr without zone and unmapped.
func plainAddr(addr netip.Addr) netip.Addr { return addr.WithZone("").Unmap() }

// decided fills in a decision. where is d.Rule.Where(), or "" if nobody found
// that out yet.
func (e *Event) decided(d *allowlists.Decision, where string) {
	if where == "" {
		where = d.Rule.Where()
	}
	e.Verdict, e.Reason, e.Quiet, e.Rule = d.Verdict, d.Reason, d.Quiet, where
	e.rules.decided, e.rules.quiet = d.Rule, d.QuietBy
	if d.Reason == allowlists.AllowedByAudit {
		e.Would = d.Would
	}
}

// fromQuery makes a zero event that of a question.
func (e *Event) fromQuery(r *dnsfilter.QueryRecord) {
	e.begin(KindDNS, r.ID, r.Time, &r.Subject, r.Generation)
	e.decided(&r.Decision, r.Where)
	e.By, e.Name, e.Host, e.Type, e.RCode = r.By, r.Name, r.Host.String(), typeName(r.Type), rcodeName(r.RCode)
	e.Answers, e.Removed, e.CNAMEs = r.Answers, r.Removed, r.CNAMEs
	e.Cached, e.Upstream, e.Search, e.TTL = r.Cached, r.Upstream, r.Search, r.TTL
	e.Resolver, e.Payload, e.Limit = plainAddr(r.Resolver), r.Payload, r.Limit
	e.Took, e.Error = r.Took.Truncate(time.Microsecond), r.Err
}

// fromConn makes a zero event that of a connection.
func (e *Event) fromConn(r *proxy.ConnRecord) {
	e.begin(KindConn, r.ID, r.Time, &r.Subject, r.Generation)
	e.decided(&r.Decision, "")
	e.Phase, e.Via, e.Method = r.Phase, r.Via, r.Method
	e.Host, e.Port, e.IP, e.ClientPort = r.Host, r.Port, plainAddr(r.Addr), r.ClientPort
	e.SNI, e.ALPN, e.ECH = r.SNI, r.ALPN, r.ECH
	e.DNSID = answerUsed(r)
	e.Names, e.Redialled, e.Ambiguous, e.Original = r.Names, r.Redialled, r.Ambiguous, plainAddr(r.Original)
	e.Sent, e.Received = r.Sent, r.Received
	e.Took, e.Error = r.Took.Truncate(time.Microsecond), r.Err
}

// answerUsed is the id of the question whose answer the connection stands on:
// of those asked, AAAA and then A, the one of the address's family.
func answerUsed(r *proxy.ConnRecord) string {
	switch {
	case len(r.DNSIDs) == 0:
		return ""
	case len(r.DNSIDs) > 1 && r.Addr.Unmap().Is4():
		return r.DNSIDs[1]
	default:
		return r.DNSIDs[0]
	}
}
