package hindsight

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/allowlists"
)

// session judges a connection whose parts have come, or tells of the end of one
// that was judged before.
func (j *judge) session(s *session) {
	if s.judged {
		if s.opened != nil && s.flow != nil {
			j.closed(*s.opened, s.at, s.flow)
			s.opened = nil
		}
		return
	}
	s.judged = true
	switch {
	case len(s.requests) > 0:
		for _, r := range s.requests {
			c := r.conn
			if c.Explicit && c.Via == foreignlog.ViaConnect { // the rest of the connection is its tunnel
				c = s.joined(c)
			}
			j.connection(c, r.at, r.id)
		}
	case s.hello != nil:
		s.opened = j.connection(s.joined(s.hello), s.at, s.id)
	case s.whole != nil:
		s.opened = j.connection(s.joined(s.whole), s.at, s.id)
	case s.flow != nil:
		j.connection(s.flow, s.at, s.id)
	}
	if s.flow != nil {
		s.opened = nil // its end was told
	}
	s.whole, s.flow, s.hello, s.requests = nil, nil, nil, nil
}

// joined is a part with what the others know.
func (s *session) joined(c *foreignlog.Conn) *foreignlog.Conn {
	all := *c
	if s.hello != nil {
		all.TLS, all.SNI, all.ALPN = true, s.hello.SNI, s.hello.ALPN
	}
	if s.flow != nil {
		all.Sent, all.Received, all.Took = s.flow.Sent, s.flow.Received, s.flow.Took
	}
	return &all
}

// connection judges one and tells of it. It gives the event of one that was
// allowed and whose end is not known.
func (j *judge) connection(c *foreignlog.Conn, at time.Time, id string) *alerting.Event {
	pool, ok := j.poolOf(c.Client)
	if !ok {
		return nil
	}
	e := alerting.Event{
		Kind: alerting.KindConn, ID: id, Time: at, Pool: pool.Name(), Client: c.Client, ClientPort: c.ClientPort, Via: c.Via, Host: c.Host,
		Port: c.Port, IP: c.IP, SNI: c.SNI, ALPN: c.ALPN, Method: c.Method, Phase: alerting.PhaseRefused,
	}
	j.measure(pool, c.IP, at)
	var d, late allowlists.Decision // late is what the first bytes led to
	if c.Explicit {
		d, late = j.explicit(&e, pool, c, at)
	} else {
		d, late = j.redirected(&e, pool, c, at)
	}
	d = j.override(d, c.Refused)
	if j.own && d.Reason == allowlists.AllowedByAudit && d.Would == allowlists.SpecialAddress && isPrivate(e.IP) && !allowlists.IsMetadata(e.IP) {
		d.Would = allowlists.NotInAllowlist // traffic of one's own network
	}
	if d.Reason == allowlists.Allowed && c.Error != "" {
		d.Reason, e.Error = allowlists.UpstreamFailed, c.Error
	}
	decided(&e, d)
	if !d.Allowed() || d.Reason.Failure() {
		j.tell(e)
		return nil
	}
	e.Phase = alerting.PhaseOpen
	j.tell(e)
	if !late.Allowed() && late.Reason != allowlists.InternalError {
		decided(&e, late)
	}
	if c.Part == foreignlog.Hello && c.Took == 0 && c.Sent == 0 || c.Part == foreignlog.Whole && c.UID != "" && c.Took == 0 {
		if !e.Refused() {
			return &e
		}
	}
	j.closed(e, at, c)
	return nil
}

// isPrivate reports whether an address is of one's own networks.
func isPrivate(addr netip.Addr) bool {
	return slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// closed tells of the end of a connection.
func (j *judge) closed(e alerting.Event, at time.Time, c *foreignlog.Conn) {
	e.Phase, e.Time, e.Took, e.Sent, e.Received = alerting.PhaseClose, at.Add(c.Took), c.Took, c.Sent, c.Received
	j.tell(e)
}

// explicit judges what was asked of a proxy, as DESIGN section 2 has it: name
// and port, then the address, then the first bytes.
func (j *judge) explicit(e *alerting.Event, pool *allowlists.Pool, c *foreignlog.Conn, at time.Time) (d, late allowlists.Decision) {
	if addr, ok := literal(c.Host); ok {
		e.Host, e.IP = addr.String(), addr
		e.Names, e.DNSID = j.names(pool, addr, at)
		return j.unknown(pool.DecideLiteral(addr, c.Port, at), at, allowlists.AddressLiteral), late
	}
	host, err := allowlists.ParseHost(c.Host)
	if err != nil {
		return pool.Refuse(allowlists.BadHost, nil), late
	}
	e.Host = host.String()
	d = pool.DecideConn(host, c.Port, at)
	if d.Allowed() && c.Header != "" && !agrees(c.Header, host) {
		d = pool.Refuse(allowlists.HostMismatch, d.Rule)
	}
	if !d.Allowed() {
		e.IP = netip.Addr{} // we would not have looked it up
		return d, late
	}
	if c.IP.IsValid() {
		d = pool.DecideDial(d, c.IP, c.Port, at)
		e.Names, e.DNSID = j.names(pool, c.IP, at)
	}
	if d.Allowed() && c.Via == foreignlog.ViaConnect {
		late = claims(pool, d, c, host)
		if late.Reason == allowlists.AllowedByAudit {
			d = late
		}
	}
	return d, late
}

// agrees reports whether a Host header names the host.
func agrees(header string, host allowlists.Host) bool {
	name, _, _ := strings.Cut(header, ":")
	claimed, err := allowlists.ParseHost(name)
	return err == nil && claimed == host
}

// claims holds the name in a ClientHello against the host that was allowed.
func claims(pool *allowlists.Pool, by allowlists.Decision, c *foreignlog.Conn, host allowlists.Host) allowlists.Decision {
	required := by.Rule == nil && c.Port == 443 || by.Rule != nil && by.Rule.RequiresTLS(c.Port)
	if !c.TLS || !required {
		return by
	}
	var reason allowlists.Reason
	switch name, err := allowlists.ParseHost(c.SNI); {
	case c.SNI == "":
		reason = allowlists.SNIMissing
	case err != nil || name != host:
		reason = allowlists.SNIMismatch
	case slices.Contains(strings.Split(c.ALPN, ","), "dot"):
		reason = allowlists.ResolverBypass
	default:
		return by
	}
	d := pool.Refuse(reason, by.Rule)
	if d.Allowed() && by.Reason == allowlists.AllowedByAudit && !sayMore(reason) {
		return by
	}
	return d
}

// sayMore reports whether a reason says more than that audit let a name pass
// which no rule has.
func sayMore(reason allowlists.Reason) bool {
	return reason == allowlists.SNIMismatch || reason == allowlists.ResolverBypass
}

// unknown puts another reason where "no answer gave this address" cannot be
// said, as no log shows the answers of that time.
func (j *judge) unknown(d allowlists.Decision, at time.Time, reasons ...allowlists.Reason) allowlists.Decision {
	if j.covered(at) || !slices.Contains(reasons, d.Cause()) {
		return d
	}
	j.summary.Uncovered++
	if d.Reason == allowlists.AllowedByAudit {
		d.Would = allowlists.NotInAllowlist
	} else {
		d.Reason = allowlists.NotInAllowlist
	}
	return d
}
