package replay

import (
	"slices"
	"strings"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/allowlists"
)

// explicit decides what was asked of the proxy.
func explicit(e *alerting.Event, pool *allowlists.Pool) allowlists.Decision {
	if addr, ok := Literal(e.Host); ok {
		return pool.DecideLiteral(addr, e.Port, e.Time)
	}
	if e.Host == "" { // plain HTTP that was redirected and names nobody
		return unnamed(e, pool)
	}
	return named(e, pool, e.Host)
}

// redirected decides what a client connected to itself, in the order of DESIGN
// section 5 "Transparent": a cidr rule, the address, then the name.
func redirected(e *alerting.Event, pool *allowlists.Pool) allowlists.Decision {
	given := e.IP
	if e.Redialled {
		given = e.Original
	}
	by := pool.DecideLiteral(given, e.Port, e.Time)
	switch by.Reason {
	case allowlists.Allowed:
		for _, claimed := range []string{e.SNI, e.Host} {
			host, err := allowlists.ParseHost(claimed)
			if err != nil {
				continue
			}
			if d := pool.DecideConn(host, e.Port, e.Time); d.Cause() == allowlists.DeniedByRule {
				return d
			}
		}
		return by
	case allowlists.DeniedByRule, allowlists.NoPool, allowlists.BadRequest:
		return by
	case allowlists.SpecialAddress:
		if len(e.Names) == 0 && !e.Redialled {
			return by
		}
	}
	if name := standsFor(e, pool); name != "" {
		return named(e, pool, name)
	}
	return unnamed(e, pool)
}

// standsFor is the name of a redirected connection: the one it claimed, else the
// first that the pool was answered with and that is allowed, with this address,
// as its answer would have lacked another; else the first.
func standsFor(e *alerting.Event, pool *allowlists.Pool) string {
	if e.Via == foreignlog.ViaTLS && e.SNI != "" {
		return e.SNI
	}
	for _, name := range e.Names {
		host, err := allowlists.ParseHost(name)
		if err != nil {
			continue
		}
		by := pool.DecideConn(host, e.Port, e.Time)
		if by.Reason == allowlists.Allowed && (!e.IP.IsValid() || pool.DecideDial(by, e.IP, e.Port, e.Time).Reason == allowlists.Allowed) {
			return name
		}
	}
	if _, isAddr := Literal(e.Host); e.Host != "" && !isAddr {
		return e.Host
	}
	if len(e.Names) > 0 {
		return e.Names[0]
	}
	return ""
}

// portDoT is that of DNS over TLS, RFC 7858 section 3.1.
const portDoT = 853

// unnamed decides a redirected connection for which there is no name.
func unnamed(e *alerting.Event, pool *allowlists.Pool) allowlists.Decision {
	d := pool.DecideLiteral(e.IP, e.Port, e.Time)
	switch {
	case d.Cause() != allowlists.AddressLiteral:
		return d
	case e.Port == portDoT:
		return pool.Refuse(allowlists.ResolverBypass, d.Rule)
	default:
		return pool.Refuse(allowlists.AddressMismatch, d.Rule)
	}
}

// named decides a connection to a name, with the address that the event has and
// what its first bytes said.
func named(e *alerting.Event, pool *allowlists.Pool, name string) allowlists.Decision {
	host, err := allowlists.ParseHost(name)
	if err != nil {
		return pool.Refuse(allowlists.BadHost, nil)
	}
	d := pool.DecideConn(host, e.Port, e.Time)
	if !d.Allowed() {
		return d
	}
	if e.Cause() == allowlists.HostMismatch {
		return pool.Refuse(allowlists.HostMismatch, d.Rule)
	}
	if e.IP.IsValid() {
		if d = pool.DecideDial(d, e.IP, e.Port, e.Time); !d.Allowed() {
			return d
		}
		if e.Cause() == allowlists.SpecialAddress && allowlists.SpecialClass(e.IP) == "" { // a listener of ours
			return allowlists.Decision{Reason: allowlists.SpecialAddress, Rule: d.Rule}
		}
	}
	return claims(e, pool, d)
}

// claims holds what the first bytes said against the rule that allowed the name.
func claims(e *alerting.Event, pool *allowlists.Pool, by allowlists.Decision) allowlists.Decision {
	if by.Rule == nil && e.Port != 443 || by.Rule != nil && !by.Rule.RequiresTLS(e.Port) {
		return by // nothing is read
	}
	encrypted := e.ECH && pool.ECH() == allowlists.ECHDeny
	switch cause := e.Cause(); {
	case cause == allowlists.SNIMismatch, cause == allowlists.SNIMissing, cause == allowlists.NotTLS:
		return pool.Refuse(cause, by.Rule)
	case cause == allowlists.ResolverBypass && slices.Contains(strings.Split(e.ALPN, ","), "dot"):
		return pool.Refuse(cause, by.Rule)
	case encrypted:
		return pool.Refuse(allowlists.ECHNotAllowed, by.Rule)
	default:
		return by
	}
}

// ended decides what only the end of a connection shows: what the first bytes of
// a tunnel said, and how much was sent. ok is false where the connection would
// not have been opened, as its first line says so already. The rolling hour of
// upload_limit is not counted again: a connection that it cut stays cut as long
// as any limit holds.
func ended(e *alerting.Event, pool *allowlists.Pool) (d allowlists.Decision, ok bool) {
	start := *e
	if e.Via == foreignlog.ViaConnect {
		start.Reason, start.ECH = allowlists.Allowed, false // its first line came before its first byte
	}
	if d = connection(&start, pool); !d.Allowed() {
		return d, false
	}
	if d = connection(e, pool); !d.Allowed() {
		return d, true
	}
	to := allowlists.Target{Addr: e.IP, Port: e.Port}
	if host, err := allowlists.ParseHost(e.Host); err == nil {
		to = allowlists.Target{Host: host, Port: e.Port}
	}
	rule := pool.UploadRule(to, e.Time)
	if rule != nil && (e.Cause() == allowlists.UploadLimit || e.Sent > rule.UploadLimit) {
		return pool.Refuse(allowlists.UploadLimit, rule), true
	}
	return d, true
}
