package replay

import (
	"net/netip"
	"slices"
	"strings"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
)

// A Judge decides the events of a log again, by one policy. It looks at nothing
// but the policy and the event, so that its memory does not grow with the log.
// It is for one goroutine.
type Judge struct {
	policy *allowlists.Policy
	past   *dnsfilter.Past
	served map[service]allowlists.Decision
}

// NewJudge makes one; search are the suffixes of dns.search.
func NewJudge(policy *allowlists.Policy, search []allowlists.Host) *Judge {
	return &Judge{policy: policy, past: dnsfilter.NewPast(policy, search), served: make(map[service]allowlists.Decision)}
}

// Enforced is the policy of a specification with every pool in mode enforce.
func Enforced(spec allowlists.PolicySpec) (*allowlists.Policy, error) {
	spec.Pools = slices.Clone(spec.Pools)
	for i := range spec.Pools {
		spec.Pools[i].Mode = allowlists.Enforce
	}
	return allowlists.NewPolicy(spec)
}

// Decide is what the policy says to an event. ok is false for a line on which no
// policy has a say: it holds no decision, or one about a limit, a malformed
// request or the daemon's own state.
func (j *Judge) Decide(e *alerting.Event) (d allowlists.Decision, ok bool) {
	if !Decides(e) {
		return d, false
	}
	pool := j.Pool(e)
	switch {
	case e.Kind == alerting.KindDNS:
		return j.question(e, pool), true
	case e.Phase == alerting.PhaseClose:
		return ended(e, pool)
	default:
		return connection(e, pool), true
	}
}

// Decides reports whether an event is one that a policy decided. The questions
// that the proxy asks are not: its connection has the decision. What a pool may
// ask about addresses depends on what it was answered, and on no rule.
func Decides(e *alerting.Event) bool {
	switch e.Reason {
	case allowlists.InternalError, allowlists.LimitExceeded, allowlists.BadHost, allowlists.BadRequest, allowlists.DNSMalformed,
		allowlists.PolicyChanged, allowlists.LogDegraded, allowlists.NotReady, allowlists.ShuttingDown:
		return false
	}
	switch e.Kind {
	case alerting.KindDNS:
		return e.By == alerting.ByClient && !e.Reverse()
	case alerting.KindConn:
		return e.Phase == alerting.PhaseOpen || e.Phase == alerting.PhaseRefused || e.Phase == alerting.PhaseClose
	default:
		return false
	}
}

// Pool is the pool that the policy puts the event's client into: by its source;
// else the pool of the event, where its own listener, or nothing in the policy,
// says who is in it; else the default pool. It is nil if none admits the client.
func (j *Judge) Pool(e *alerting.Event) *allowlists.Pool {
	_, pool := j.policy.Subject(e.Client, e.Iface, "")
	if j.policy.SourceOf(e.Client) != "" {
		return pool
	}
	if named := j.policy.Pool(e.Pool); named != nil {
		spec := named.Spec()
		own := len(spec.Listen.Proxy) + len(spec.Listen.DNS) + len(spec.Listen.Transparent)
		if own > 0 || len(spec.Sources)+len(spec.Interfaces) == 0 {
			return named
		}
	}
	return pool
}

// A service is a rule, as the log has it, under which a pool asked for SRV.
type service struct{ pool, rule string }

// maxServices bounds the services that are remembered.
const maxServices = 1024

// question decides a question and the addresses that were its answer. Where a
// rule's SRV questions are allowed, so are those for their targets, which the
// log shows under the same rule.
func (j *Judge) question(e *alerting.Event, pool *allowlists.Pool) allowlists.Decision {
	qtype, known := dnsfilter.TypeNumber(e.Type)
	if !known {
		qtype = 65280 // of those for private use, RFC 6895 section 3.1: no rule lists it
	}
	d := j.past.Judge(pool, e.Name, qtype, 1, slices.Concat(e.Answers, e.Removed), e.Time).Decision
	key := service{e.Pool, e.Rule}
	switch {
	case e.Reason != allowlists.Allowed || e.Rule == "":
	case e.Type == "SRV" && d.Reason == allowlists.Allowed && len(j.served) < maxServices:
		j.served[key] = d
	case d.Cause() == allowlists.NotInAllowlist && (e.Type == "A" || e.Type == "AAAA"):
		if by, ok := j.served[key]; ok {
			return by
		}
	}
	return d
}

// connection decides a connection at its verdict.
func connection(e *alerting.Event, pool *allowlists.Pool) allowlists.Decision {
	switch e.Via {
	case foreignlog.ViaUDP, foreignlog.ViaICMP, foreignlog.ViaOther:
		return packet(e, pool)
	case foreignlog.ViaConnect, foreignlog.ViaHTTP:
		return explicit(e, pool)
	}
	if e.Cause() == allowlists.ProtocolBlocked {
		return packet(e, pool)
	}
	return redirected(e, pool)
}

// packet decides one that the firewall told of: no rule opens anything for it,
// and audit lets it pass unless it goes to a metadata or loopback address.
func packet(e *alerting.Event, pool *allowlists.Pool) allowlists.Decision {
	switch cause := e.Cause(); {
	case pool == nil:
		return pool.Refuse(allowlists.NoPool, nil)
	case allowlists.IsMetadata(e.IP) || e.IP.IsLoopback():
		return allowlists.Decision{Reason: allowlists.SpecialAddress}
	case cause == allowlists.ResolverBypass:
		return pool.Refuse(cause, nil)
	default:
		return pool.Refuse(allowlists.ProtocolBlocked, nil)
	}
}

// Literal reads a host that is an address.
func Literal(host string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return addr.WithZone(""), err == nil
}
