package allowlists

import (
	"net/netip"
	"time"
)

// DecideAddr judges an address that is to stand for the host which by allowed:
// by itself where the address is globally reachable, else only if resolves_to
// of the winning rule, its preset or its pool lists it. cidr rules have no say,
// but for those of the deny list that cover every port.
func (p *Pool) DecideAddr(by Decision, addr netip.Addr, now time.Time) Decision {
	return p.DecideDial(by, addr, 0, now)
}

// DecideDial is DecideAddr for the very address and port about to be dialled,
// so that deny rules for single ports count too.
func (p *Pool) DecideDial(by Decision, addr netip.Addr, port uint16, now time.Time) Decision {
	if p == nil {
		return Decision{Reason: NoPool}
	}
	if !by.Allowed() {
		return by
	}
	if rule := p.addrDeniedBy(addr, port, now); rule != nil {
		return p.Refuse(DeniedByRule, rule)
	}
	opened := p.spec.ResolvesTo
	if by.Rule != nil {
		opened = by.Rule.ResolvesTo
	}
	if lifted(opened, p.carried(addr)) {
		return by
	}
	return p.refuseSpecial(addr, by.Rule)
}

// DecideLiteral judges a connection to an address that no name stands for.
// Only cidr rules allow one, and one that holds a special address counts only
// if the whole rule lies inside a special range.
func (p *Pool) DecideLiteral(addr netip.Addr, port uint16, now time.Time) Decision {
	switch {
	case p == nil:
		return Decision{Reason: NoPool}
	case port == 0 || !addr.IsValid():
		return Decision{Reason: BadRequest}
	}
	if rule := p.addrDeniedBy(addr, port, now); rule != nil {
		return p.Refuse(DeniedByRule, rule)
	}
	carried := p.carried(addr)
	global := lifted(nil, carried)
	var winner, expired, elsewhere *Rule
	p.allow.addrs(addr, func(r *Rule) bool {
		switch {
		case !global && !(insideSpecial(r.Prefix) && lifted([]netip.Prefix{r.Prefix}, carried)):
		case !r.Ports.Contains(port):
			elsewhere = firstRule(elsewhere, r)
		case r.Expired(now):
			expired = firstRule(expired, r)
		default:
			winner = r
		}
		return winner == nil
	})
	switch {
	case winner != nil:
		return Decision{Verdict: Allow, Reason: Allowed, Rule: winner}
	case expired != nil:
		return p.Refuse(ExpiredRule, expired)
	case elsewhere != nil:
		return p.Refuse(PortNotAllowed, elsewhere)
	case !global:
		return p.refuseSpecial(addr, nil)
	default:
		return p.Refuse(AddressLiteral, nil)
	}
}

// addrDeniedBy finds the deny rule that holds an address.
func (p *Pool) addrDeniedBy(addr netip.Addr, port uint16, now time.Time) *Rule {
	var found *Rule
	p.deny.addrs(addr, func(r *Rule) bool {
		if denies(r, port, now) {
			found = r
		}
		return found == nil
	})
	return found
}

// refuseSpecial refuses a special address; in audit the addresses of private
// networks are let through.
func (p *Pool) refuseSpecial(addr netip.Addr, rule *Rule) Decision {
	class, _ := classify(p.carried(addr))
	if p.spec.Mode == Audit && reasonTable[SpecialAddress].audit == auditForwardsIfOurs && class == classOurs {
		return Decision{Verdict: Allow, Reason: AllowedByAudit, Would: SpecialAddress, Rule: rule}
	}
	return Decision{Reason: SpecialAddress, Rule: rule}
}

// carried is the IPv4 address that addr carries under a prefix of dns.nat64,
// or addr itself.
func (p *Pool) carried(addr netip.Addr) netip.Addr {
	for _, prefix := range p.nat64 {
		if inner, ok := nat64Inner(prefix, addr); ok {
			return inner
		}
	}
	return addr
}
