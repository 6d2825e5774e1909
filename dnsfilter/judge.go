package dnsfilter

import (
	"strings"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// verdict is what the policy says to a question, before anything is asked.
type verdict struct {
	decision allowlists.Decision
	policy   *allowlists.Policy
	pool     *allowlists.Pool // nil: no-pool
	host     allowlists.Host  // the name in canonical form; zero if it has none
	// owner is the host that the answer's addresses are written down for: host
	// itself, the host below _service labels, or the host whose SRV answer led here.
	owner   allowlists.Host
	reverse bool // a name for an address is asked for
	rcode   int  // of a refusal that is not Config.Blocked; else rcodeBlocked
	search  bool // refused, and an allowed name with a search suffix
}

// rcodeBlocked stands for the answer that Config.Blocked names.
const rcodeBlocked = -1

// judge decides on a name, type and class in the pool. It looks at nothing but
// the policy and what this pool was answered before, and asks nobody.
func (s *Server) judge(policy *allowlists.Policy, pool *allowlists.Pool, name string, qtype, class uint16, now time.Time) verdict {
	v := verdict{policy: policy, pool: pool, rcode: rcodeBlocked}
	host, err := allowlists.HostFromDNS(name)
	v.host, v.owner = host, host
	switch {
	case pool == nil:
		v.decision, v.rcode = pool.Refuse(allowlists.NoPool, nil), dns.RcodeRefused
		return v
	case err != nil:
		v.decision = pool.Refuse(allowlists.BadHost, nil)
	case qtype == dns.TypePTR && isReverse(host.String()):
		v.reverse = true
		v.decision = allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed}
	default:
		s.judgeHost(&v, qtype, now)
	}
	if class != dns.ClassINET || neverAsked(qtype) {
		if v.decision.Allowed() {
			v.decision = allowlists.Decision{Reason: allowlists.DNSTypeBlocked, Rule: v.decision.Rule}
		}
		v.rcode = dns.RcodeRefused
		return v
	}
	if !v.decision.Allowed() {
		v.search = pool.HasSuffixEcho(host, s.cfg.Search)
	}
	return v
}

// judgeHost decides on a canonical name and type.
func (s *Server) judgeHost(v *verdict, qtype uint16, now time.Time) {
	if d, below, ok := v.pool.DecideServiceName(v.host, qtype, now); ok {
		v.decision, v.owner = d, below
		return
	}
	v.decision = v.pool.DecideName(v.host, now)
	if v.decision.Cause() == allowlists.NotInAllowlist && everyHostHas(qtype) {
		if asker, ok := s.follows.asker(v.pool.Name(), v.host, now); ok {
			if d := v.pool.DecideName(asker, now); d.Allowed() {
				v.decision, v.owner = d, asker
			}
		}
	}
	switch listed := everyHostHas(qtype) || v.pool.DNSTypeAllowed(v.host, qtype, now); {
	case v.decision.Reason == allowlists.Allowed && !listed:
		v.blockType(v.decision.Rule)
	case v.decision.Cause() == allowlists.NotInAllowlist:
		// A _service label below an allowed host, with a type that no rule lists:
		// programs try this of themselves, and it is no try to get elsewhere.
		if below := serviceHost(v.host); !below.IsZero() {
			if d := v.pool.DecideName(below, now); d.Reason == allowlists.Allowed {
				v.blockType(d.Rule)
			}
		}
	}
}

// blockType refuses the type of a name that rule allows, unless audit lets it pass.
func (v *verdict) blockType(rule *allowlists.Rule) {
	v.decision = v.pool.Refuse(allowlists.DNSTypeBlocked, rule)
	if !v.decision.Allowed() {
		v.rcode = dns.RcodeSuccess
	}
}

// serviceHost is the host below leading _service labels; zero if the name has none.
func serviceHost(name allowlists.Host) allowlists.Host {
	rest := name.String()
	for strings.HasPrefix(rest, "_") {
		_, rest, _ = strings.Cut(rest, ".")
	}
	if rest == name.String() {
		return allowlists.Host{}
	}
	host, err := allowlists.ParseHost(rest)
	if err != nil {
		return allowlists.Host{}
	}
	return host
}

// everyHostHas reports whether a type is answered for every allowed name.
func everyHostHas(qtype uint16) bool {
	switch qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeHTTPS, dns.TypeSVCB:
		return true
	default:
		return false
	}
}

// neverAsked reports whether a type is no data that one could ask for: zone
// transfers, ANY and the other meta types of RFC 6895 section 3.1.
func neverAsked(qtype uint16) bool {
	return qtype == dns.TypeNone || qtype == dns.TypeOPT || qtype >= 128 && qtype <= 255
}
