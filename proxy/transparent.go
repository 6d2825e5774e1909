package proxy

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"time"

	"sallyport/allowlists"
)

// redirected carries a connection that a firewall brought here. Its
// destination is an address; which name it stands for is told by the TLS server
// name, by Host, or by the answers that this pool was given.
//
//	cidr rule                      -> judged as the address it is
//	port 80                        -> plain HTTP, judged request by request
//	the name in the book, tls: off -> that name, nothing read
//	port 443, tls: require ports   -> the name in the ClientHello
//	anything else                  -> address-mismatch
func (s *session) redirected() (parked bool) {
	t := s.newTrip(ViaTCP, nil, s.wanted())
	switch literal := t.pool.DecideLiteral(s.original.Addr(), s.original.Port(), t.started); {
	case !s.original.IsValid(): // straight to our port
		t.refuse(refusal(allowlists.Decision{Reason: allowlists.SpecialAddress}, nil))
	case s.server.cfg.Probe(s.original):
		_ = s.conn.SetLinger(0)
	case literal.Reason == allowlists.Allowed && !t.isOwn(s.original.Addr()):
		return s.redirectedTo(t)
	case s.original.Port() == 80:
		s.redirectedHTTP()
	default:
		return s.redirectedTCP(t)
	}
	return false
}

// wanted is the original destination, as a target; our own address for a
// connection that was made straight to us.
func (s *session) wanted() allowlists.Target {
	at := s.original
	if !at.IsValid() {
		at = s.local
	}
	return allowlists.Target{Addr: at.Addr(), Port: at.Port()}
}

// redirectedTo judges a trip as it stands, dials and relays.
func (s *session) redirectedTo(t *trip) (parked bool) {
	if err := errors.Join(t.judge(), t.judgeClaims()); err != nil {
		t.refuse(err)
		return false
	}
	var err error
	if s.upstream, err = t.connectTo(s.ctx); err != nil {
		t.refuse(err)
		return false
	}
	s.setOpen(t)
	if d := t.rejudge(); !d.Allowed() { // the policy has changed since
		t.refuse(&allowlists.DeniedError{Decision: d})
		return false
	}
	t.setup = time.Since(t.started)
	return s.tunnel(t)
}

// redirectedTCP finds the name that a redirected connection stands for, by its
// first bytes only where they must be TLS.
func (s *session) redirectedTCP(t *trip) (parked bool) {
	if err := t.judgeOriginal(); err != nil {
		t.refuse(err)
		return false
	}
	named, found := t.byBook()
	switch {
	case found && !named.tls:
		t.rename(named)
		return s.redirectedTo(t)
	case found || t.pool.RequiresTLS(s.original.Port()):
		return s.redirectedTLS(t, named)
	default:
		return s.redirectedTo(t) // as the address it is
	}
}

// A givenName is the name that a redirected connection stands for.
type givenName struct {
	host      allowlists.Host // zero: none
	tls       bool            // its rule requires TLS on the port
	ambiguous bool            // it is one of several that the book has
}

// byBook finds the name for the original destination among those that this
// pool was answered with: the latest that is allowed on the port, those asked
// by this client first. With only others it gives the latest, whose refusal
// says why.
func (t *trip) byBook() (found givenName, ok bool) {
	port := t.s.original.Port()
	for i, name := range t.answered {
		host, err := allowlists.ParseHost(name)
		if err != nil {
			continue
		}
		d := t.pool.DecideConn(host, port, t.started)
		if i > 0 && d.Reason != allowlists.Allowed {
			continue
		}
		found = givenName{host, d.Allowed() && needsTLS(d.Rule, port), len(t.answered) > 1}
		if ok = true; d.Reason == allowlists.Allowed {
			break
		}
	}
	return found, ok
}

// needsTLS reports whether a connection to port must begin with a ClientHello
// under rule, which is nil where audit lets pass what no rule knows.
func needsTLS(rule *allowlists.Rule, port uint16) bool {
	if rule == nil {
		return port == 443
	}
	return rule.RequiresTLS(port)
}

// rename makes the trip one to a name.
func (t *trip) rename(name givenName) {
	t.target = allowlists.Target{Host: name.host, Port: t.s.original.Port()}
	t.edit(func(rec *ConnRecord) { rec.Host, rec.Ambiguous = name.host.String(), name.ambiguous })
}

// judgeClaims holds what the first bytes said against the name, where they
// must say it.
func (t *trip) judgeClaims() error {
	if t.claims == nil || !t.by.Allowed() || !t.mustBeTLS(t.by.Rule) {
		return nil
	}
	d := t.claims.judge(t.pool, t.by, t.target)
	if !d.Allowed() {
		return &allowlists.DeniedError{Decision: d}
	}
	t.by = d
	t.edit(func(rec *ConnRecord) { rec.Decision = d })
	return nil
}

// redirectedTLS reads the ClientHello and goes on by its name. named is what
// the book says, which stands in where there is no name to see.
func (s *session) redirectedTLS(t *trip, named givenName) (parked bool) {
	t.via = ViaTLS
	h, raw, err := s.hello()
	t.tls = looksLikeTLS(raw)
	t.early = raw
	t.edit(func(rec *ConnRecord) { rec.Via = ViaTLS; h.describe(rec) })
	if cause := context.Cause(s.ctx); cause != nil {
		t.refuse(cause)
		return false
	}
	host, bad := allowlists.ParseHost(h.sni)
	switch {
	case h.sni != "" && (bad != nil || !isASCII(h.sni)):
		t.edit(func(rec *ConnRecord) { rec.Host = clip(h.sni, maxHostKept) })
		t.refuse(refusal(allowlists.Decision{Reason: allowlists.BadHost}, errServerName))
	case h.sni != "":
		t.claims = &h
		t.rename(givenName{host: host})
		return s.redirectedTo(t)
	case named.host.IsZero():
		t.via = ViaTCP
		t.edit(func(rec *ConnRecord) { rec.Via = ViaTCP })
		return s.redirectedTo(t) // as the address it is
	case err != nil:
		t.rename(named)
		s.silent(t, err)
	default:
		t.claims = &h
		t.rename(named)
		return s.redirectedTo(t)
	}
	return false
}

var errServerName = errors.New("the TLS server name is not one that every parser reads alike")

// hello reads what must be a ClientHello, with a deadline. A client that stops
// or is slow gives what came.
func (s *session) hello() (hello, []byte, error) {
	_ = s.conn.SetReadDeadline(time.Now().Add(s.server.cfg.Limits.HelloTimeout))
	defer func() {
		_ = s.conn.SetReadDeadline(time.Time{})
		if s.ctx.Err() != nil {
			_ = s.conn.SetReadDeadline(past)
		}
	}()
	return peekHello(s.in)
}

// silent records a connection that was allowed and never said what it had to
// say: nothing was dialled.
func (s *session) silent(t *trip, err error) {
	if judged := t.judge(); judged != nil {
		t.refuse(judged)
		return
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = refusal(allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.TimedOut, Rule: t.by.Rule}, errHelloSlow)
	case errors.Is(err, io.EOF):
		err = errSaidNothing
	default:
		err = errors.Join(errClientGone, err)
	}
	t.opened(s.original.Addr())
	t.closed(0, 0, err)
}

// redirectedHTTP carries plain HTTP that was redirected: every request must
// name the host that the first one names.
func (s *session) redirectedHTTP() {
	h := s.firstHead()
	switch {
	case h != nil && h.form == formAuthority:
		s.refuse(h, s.wanted(), bad(errNested))
	case h != nil:
		s.carry(s.hostOf(h), h)
	case s.last.rec.Phase == "":
		s.silentHTTP()
	}
}

// hostOf is the destination that a first request is for: the host it names, or
// without one what the book says of the address, or that address.
func (s *session) hostOf(h *head) allowlists.Target {
	named := h.host
	if h.form == formAbsolute {
		named = &h.target
	}
	if named != nil {
		if named.Addr.IsValid() {
			return s.wanted()
		}
		return allowlists.Target{Host: named.Host, Port: s.original.Port()}
	}
	if found, ok := s.last.byBook(); ok {
		s.ambiguous = found.ambiguous
		return allowlists.Target{Host: found.host, Port: s.original.Port()}
	}
	return s.wanted()
}

// silentHTTP records a connection to port 80 that never said a byte.
func (s *session) silentHTTP() {
	if found, ok := s.last.byBook(); ok {
		s.last.rename(found)
	}
	s.silent(s.last, io.EOF)
}

// judgeOriginal judges what no name can mend: the gate, the pool, and the
// address that the connection was made to.
func (t *trip) judgeOriginal() error {
	if reason := t.s.gate(); reason != allowlists.Allowed {
		return refusal(allowlists.Decision{Reason: reason}, nil)
	}
	if d := t.decideOriginal(t.pool, t.started); !d.Allowed() {
		return &allowlists.DeniedError{Decision: d, Addr: t.s.original.Addr()}
	}
	return nil
}

// decideOriginal judges the original destination: our own listeners and what a
// deny rule holds are never left, and special addresses only if this pool was
// answered with them.
func (t *trip) decideOriginal(pool *allowlists.Pool, now time.Time) allowlists.Decision {
	if t.s.server.cfg.IsOwn(t.s.original) {
		return allowlists.Decision{Reason: allowlists.SpecialAddress}
	}
	d := pool.DecideLiteral(t.s.original.Addr(), t.s.original.Port(), now)
	switch d.Reason {
	case allowlists.DeniedByRule, allowlists.NoPool, allowlists.BadRequest:
		return d
	case allowlists.SpecialAddress:
		if len(t.answered) == 0 {
			return d
		}
	}
	return allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed}
}

// decideUnnamed judges a redirected connection for which there is no name.
func (t *trip) decideUnnamed(pool *allowlists.Pool, now time.Time) allowlists.Decision {
	d := pool.DecideLiteral(t.target.Addr, t.target.Port, now)
	if d.Cause() != allowlists.AddressLiteral {
		return d
	}
	if t.target.Port == portDoT {
		return pool.Refuse(allowlists.ResolverBypass, d.Rule)
	}
	return pool.Refuse(allowlists.AddressMismatch, d.Rule)
}

// portDoT is that of DNS over TLS, RFC 7858 section 3.1.
const portDoT = 853

// redirectedCandidates are the addresses to dial for a redirected connection to
// a name: the one it was made to, if this pool was answered with it for that
// name, else those that we resolve, and never the given one unless it is among
// them.
func (t *trip) redirectedCandidates(ctx context.Context) ([]candidate, error) {
	given := t.s.original.Addr()
	if t.s.server.cfg.Resolver.Answered(t.subject, t.target.Host, given) {
		d := t.decideAddr(t.pool, t.by, given, time.Now())
		if !d.Allowed() {
			return nil, &allowlists.DeniedError{Decision: d, Addr: given}
		}
		return []candidate{{given, d}}, nil
	}
	t.edit(func(rec *ConnRecord) { rec.Redialled, rec.Original = true, given })
	may, err := t.lookup(ctx)
	for i := range may {
		if may[i].addr == given {
			may[0], may[i] = may[i], may[0]
		}
	}
	return may, err
}

// findAnswers remembers which names this pool was answered with for the
// original destination, newest first.
func (t *trip) findAnswers() {
	if t.s.original.IsValid() {
		t.answered = t.names(t.s.original.Addr())
	}
}

// isRedirected reports whether the trip's connection came by a firewall, or
// straight to the port that is for those.
func (t *trip) isRedirected() bool { return t.s.by.Transparent }

// unmapped is an address and port without the IPv6 form of IPv4, and without zone.
func unmapped(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
