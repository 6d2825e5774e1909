package allowlists

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sallyport/allowlists/diag"
)

// Mode says what a pool does with what it does not allow.
type Mode uint8

// The modes; the zero Mode enforces.
const (
	Enforce Mode = iota
	Audit
)

// String gives the word used in configuration.
func (m Mode) String() string {
	if m == Audit {
		return "audit"
	}
	return "enforce"
}

// PoolListen holds a pool's own listeners, as "host:port".
type PoolListen struct{ Proxy, DNS, Transparent []string }

// A PoolSpec is what a Pool is made from.
type PoolSpec struct {
	Name       string
	Pos        diag.Pos
	Mode       Mode
	Sources    []netip.Prefix
	Interfaces []string
	Listen     PoolListen
	ResolvesTo []netip.Prefix // for every host rule; already part of each rule's own
	ECH        ECHMode
	Presets    []string
	// Allow holds the pool's own rules and those of its presets.
	Allow, Deny, Quiet []Rule
}

// A Pool is a set of runners with one allowlist. It is immutable and safe for
// concurrent use. Every method takes a nil *Pool, a client that no pool
// admits, and answers no-pool.
type Pool struct {
	spec               PoolSpec
	nat64              []netip.Prefix
	allow, deny, quiet *index
	tlsPorts           PortSet // those of rules with tls: require, and 443
	granted            []Rule  // beside spec.Allow
	grants             *index  // of granted; nil if there are none
}

func newPool(spec PoolSpec, nat64 []netip.Prefix) *Pool {
	return &Pool{
		spec: spec, nat64: nat64,
		allow: newIndex(spec.Allow), deny: newIndex(spec.Deny), quiet: newIndex(spec.Quiet),
		tlsPorts: tlsPorts(spec.Allow),
	}
}

// tlsPorts are the ports on which some rule requires TLS, and 443.
func tlsPorts(rules []Rule) PortSet {
	ports := []uint16{443}
	for i := range rules {
		if rules[i].TLS != TLSRequire || rules[i].Host.IsZero() {
			continue
		}
		if rules[i].Ports.All() {
			return AllPorts()
		}
		ports = append(ports, rules[i].Ports.List()...)
	}
	return NewPortSet(ports...)
}

// RequiresTLS reports whether a connection to port whose name is not known may
// have to begin with a ClientHello: on 443, and where a rule has tls: require.
func (p *Pool) RequiresTLS(port uint16) bool { return p != nil && p.tlsPorts.Contains(port) }

// Name is the pool's name, "" for a nil pool.
func (p *Pool) Name() string {
	if p == nil {
		return ""
	}
	return p.spec.Name
}

// Spec is what the pool was made from. Nobody may change it.
func (p *Pool) Spec() *PoolSpec { return &p.spec }

// Granted are the rules of the grants, which are not in Spec. Nobody may change
// them.
func (p *Pool) Granted() []Rule { return p.granted }

// ECH is what becomes of encrypted ClientHellos; deny for a nil pool.
func (p *Pool) ECH() ECHMode {
	if p == nil {
		return ECHDeny
	}
	return p.spec.ECH
}

// Refuse is the decision for a reason found while a connection runs, such as
// sni-mismatch: in audit it may allow after all. rule may be nil.
func (p *Pool) Refuse(reason Reason, rule *Rule) Decision {
	if p == nil {
		return Decision{Reason: NoPool}
	}
	if p.spec.Mode == Audit && reason < reasonCount && reasonTable[reason].audit == auditForwards {
		return Decision{Verdict: Allow, Reason: AllowedByAudit, Would: reason, Rule: rule}
	}
	return Decision{Reason: reason, Rule: rule}
}

// refuseHost is Refuse for a name, with the quiet lists asked: the pool's own,
// and the built-in one where no list of the pool names the host.
func (p *Pool) refuseHost(reason Reason, rule *Rule, h Host) Decision {
	d := p.Refuse(reason, rule)
	d.QuietBy = p.quiet.first(h)
	if d.QuietBy == nil && reason == NotInAllowlist {
		d.QuietBy = builtinQuiet().first(h)
	}
	d.Quiet = d.QuietBy != nil
	return d
}

// DecideName judges a name at the DNS stage, where no port is known: it is
// allowed if any live rule covers it.
func (p *Pool) DecideName(h Host, now time.Time) Decision { return p.decideHost(h, 0, now) }

// DecideConn judges a name and the port that a connection asks for.
func (p *Pool) DecideConn(h Host, port uint16, now time.Time) Decision {
	if port == 0 {
		return p.Refuse(BadRequest, nil)
	}
	return p.decideHost(h, port, now)
}

// decideHost judges a name with a port, or without one where port is 0.
func (p *Pool) decideHost(h Host, port uint16, now time.Time) Decision {
	switch {
	case p == nil:
		return Decision{Reason: NoPool}
	case h.IsZero():
		return Decision{Reason: BadHost}
	}
	if rule := p.deniedBy(h, port, now); rule != nil {
		return p.refuseHost(DeniedByRule, rule, h)
	}
	var winner, expired, elsewhere *Rule
	p.allowed(h, func(r *Rule) bool {
		portFits := port == 0 || r.Ports.Contains(port)
		switch {
		case !portFits && !r.Expired(now):
			elsewhere = firstRule(elsewhere, r)
		case !portFits:
		case r.Expired(now):
			expired = firstRule(expired, r)
		default:
			winner = r
		}
		return winner == nil
	})
	switch {
	case (winner == nil || !winner.Host.Exact()) && isPublicResolver(h):
		return p.refuseHost(ResolverBypass, winner, h)
	case winner != nil:
		return Decision{Verdict: Allow, Reason: Allowed, Rule: winner}
	case expired != nil:
		return p.refuseHost(ExpiredRule, expired, h)
	case elsewhere != nil:
		return p.refuseHost(PortNotAllowed, elsewhere, h)
	default:
		return p.refuseHost(NotInAllowlist, nil, h)
	}
}

func firstRule(a, b *Rule) *Rule {
	if a != nil {
		return a
	}
	return b
}

// allowed calls visit with the allow rules that cover h, most specific first,
// until it returns false. Grants name a host, and so come before what does not.
func (p *Pool) allowed(h Host, visit func(*Rule) bool) {
	if p.grants == nil {
		p.allow.hosts(h, visit)
	} else if p.allow.exact(h, visit) && p.grants.exact(h, visit) {
		p.allow.inexact(h, visit)
	}
}

// deniedBy finds the deny rule for a name. Without a port only rules for every
// port count, as the others leave some port open.
func (p *Pool) deniedBy(h Host, port uint16, now time.Time) *Rule {
	var found *Rule
	p.deny.hosts(h, func(r *Rule) bool {
		if denies(r, port, now) {
			found = r
		}
		return found == nil
	})
	return found
}

// denies reports whether a deny rule covers port, or every port where port is 0.
func denies(r *Rule, port uint16, now time.Time) bool {
	every := r.Ports.Empty() || r.Ports.All()
	return !r.Expired(now) && (every || port != 0 && r.Ports.Contains(port))
}

// DNSTypeAllowed reports whether a live rule that covers h lists qtype among
// its dns_types. The types that every allowed name has are the resolver's to know.
func (p *Pool) DNSTypeAllowed(h Host, qtype uint16, now time.Time) bool {
	if p == nil {
		return false
	}
	allowed := false
	p.allowed(h, func(r *Rule) bool {
		if !r.Expired(now) {
			for _, t := range r.DNSTypes {
				allowed = allowed || t == qtype
			}
		}
		return !allowed
	})
	return allowed
}

// DecideServiceName judges a name with leading underscore labels, such as
// _http._tcp.deb.example, which the dns_types of the rule for deb.example
// open. It gives the host below which the labels stand; ok is false if the
// name has no such labels or no rule lists the type, and says nothing then.
func (p *Pool) DecideServiceName(name Host, qtype uint16, now time.Time) (d Decision, below Host, ok bool) {
	rest := name.name
	for strings.HasPrefix(rest, "_") {
		var dotted bool
		if _, rest, dotted = strings.Cut(rest, "."); !dotted {
			return Decision{}, Host{}, false
		}
	}
	if p == nil || rest == name.name || rest == "" {
		return Decision{}, Host{}, false
	}
	below = Host{rest}
	d = p.DecideName(below, now)
	if d.Reason != Allowed || !p.DNSTypeAllowed(below, qtype, now) || p.deniedBy(name, 0, now) != nil {
		return Decision{}, Host{}, false
	}
	return d, below, true
}

// UploadRule is the live rule with the lowest upload limit of those that cover
// a connection to the target: by its host, or where it has none by its address.
// It is nil if no rule has one.
func (p *Pool) UploadRule(to Target, now time.Time) *Rule {
	if p == nil {
		return nil
	}
	var lowest *Rule
	visit := func(r *Rule) bool {
		if r.UploadLimit > 0 && r.Ports.Contains(to.Port) && !r.Expired(now) && (lowest == nil || r.UploadLimit < lowest.UploadLimit) {
			lowest = r
		}
		return true
	}
	if to.Addr.IsValid() {
		p.allow.addrs(to.Addr, visit)
	} else {
		p.allowed(to.Host, visit)
	}
	return lowest
}

// AllowLine is the line of an allow list that would admit the destination.
func AllowLine(h Host, port uint16) string {
	if port == 443 || port == 0 {
		return "- " + h.name
	}
	return "- " + Target{Host: h, Port: port}.String()
}

// AllowAddrLine is the line of an allow list that would admit connections to an
// address and port. It is "" where nothing admits it, and for a metadata address:
// nobody should open a cloud's credentials by copying a line.
func AllowAddrLine(addr netip.Addr, port uint16) string {
	addr = addr.Unmap()
	if class, _ := classify(addr); class == classFloor || IsMetadata(addr) {
		return ""
	}
	return fmt.Sprintf("- {cidr: %s/%d, ports: [%d]}", addr, addr.BitLen(), port)
}
