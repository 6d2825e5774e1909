package hindsight

import (
	"net/netip"
	"slices"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/allowlists"
)

// redirected judges what a client connected to itself, as DESIGN section 5
// "Transparent" has it: the name is the one claimed, else that of the book.
func (j *judge) redirected(e *alerting.Event, pool *allowlists.Pool, c *foreignlog.Conn, at time.Time) (d, late allowlists.Decision) {
	e.Names, e.DNSID = j.names(pool, c.IP, at)
	if c.Via == foreignlog.ViaUDP || c.Via == foreignlog.ViaICMP || c.Via == foreignlog.ViaOther {
		return j.packets(pool, c, at), late
	}
	by := pool.DecideLiteral(c.IP, c.Port, at)
	switch by.Reason {
	case allowlists.Allowed:
		if host, err := allowlists.ParseHost(c.SNI); err == nil && pool.DecideConn(host, c.Port, at).Cause() == allowlists.DeniedByRule {
			late = pool.DecideConn(host, c.Port, at)
		}
		return by, late
	case allowlists.DeniedByRule, allowlists.NoPool, allowlists.BadRequest:
		return by, late
	case allowlists.SpecialAddress:
		if len(e.Names) == 0 {
			return by, late
		}
	}
	claimed, ok := j.claimed(pool, c, e.Names, at)
	if !ok {
		if cause := by.Cause(); cause == allowlists.AddressLiteral {
			reason := allowlists.AddressMismatch
			if c.Port == 853 {
				reason = allowlists.ResolverBypass
			}
			by = pool.Refuse(reason, by.Rule)
		}
		return j.unknown(by, at, allowlists.AddressMismatch), late
	}
	host, err := allowlists.ParseHost(claimed)
	if e.Host = claimed; err != nil {
		return pool.Refuse(allowlists.BadHost, nil), late
	}
	e.Host = host.String()
	if d = pool.DecideConn(host, c.Port, at); !d.Allowed() {
		return d, late
	}
	switch {
	case slices.Contains(e.Names, host.String()) || !j.covered(at):
		d = pool.DecideDial(d, c.IP, c.Port, at)
	default: // our own resolution would have been dialled, which no log knows
		e.Redialled, e.Original, e.IP = true, c.IP, netip.Addr{}
	}
	return d, late
}

// claimed finds the name that a connection stands for: that in TLS or Host, else
// the first of the book's that is allowed, else the first.
func (j *judge) claimed(pool *allowlists.Pool, c *foreignlog.Conn, known []string, at time.Time) (string, bool) {
	switch {
	case c.Via == foreignlog.ViaHTTP && c.Host != "":
		if _, isAddr := literal(c.Host); !isAddr {
			return c.Host, true
		}
	case c.TLS && c.SNI != "" && pool.RequiresTLS(c.Port):
		return c.SNI, true
	}
	for _, name := range known {
		if host, err := allowlists.ParseHost(name); err == nil && pool.DecideConn(host, c.Port, at).Reason == allowlists.Allowed {
			return name, true
		}
	}
	if len(known) == 0 {
		return "", false
	}
	return known[0], true
}

// packets judges what no listener would have taken: only a cidr rule lets it pass.
func (j *judge) packets(pool *allowlists.Pool, c *foreignlog.Conn, at time.Time) allowlists.Decision {
	if d := pool.DecideLiteral(c.IP, max(c.Port, 1), at); d.Reason == allowlists.SpecialAddress || d.Reason == allowlists.DeniedByRule {
		return d
	}
	return pool.Refuse(allowlists.ProtocolBlocked, nil)
}
