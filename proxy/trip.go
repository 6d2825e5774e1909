package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/allowlists"
)

// Bounds of what a record keeps of a client's words, in bytes.
const (
	maxHostKept   = 1024
	maxMethodKept = 64
)

// A trip is one decision on its way: a CONNECT, or one plain HTTP request. It
// writes the records of its id: refused, or open and later close. It is for
// one goroutine, but for still, dial and progress.
type trip struct {
	s       *session
	via     string
	head    *head // nil if none was understood
	target  allowlists.Target
	started time.Time
	policy  *allowlists.Policy
	subject allowlists.Subject
	pool    *allowlists.Pool
	by      allowlists.Decision // on name and port, or on the address asked for
	setup   time.Duration       // until the 2xx; 0 before it
	reused  candidate           // the address of an earlier request's connection, as judged for this one

	// Of a redirected connection.
	answered []string // the names that this pool was answered with for its destination
	early    []byte   // read from the client, for the target
	tls      bool     // early is TLS, which has an alert for refusals

	mu     sync.Mutex // guards all below
	rec    ConnRecord // the record to be written next
	claims *hello     // what the first bytes said; nil if nobody looked
	peeks  bool       // the first bytes are still to be judged
	meter  *meter     // of what is sent; nil before it is carried
}

// newTrip begins a trip. h may be nil, and target zero where h has a fault.
func (s *session) newTrip(via string, h *head, target allowlists.Target) *trip {
	t := &trip{s: s, via: via, head: h, target: target, started: time.Now(), policy: s.server.cfg.Policy()}
	t.subject, t.pool = s.subject(t.policy)
	t.rec = ConnRecord{
		ID: allowlists.NewID(), Subject: t.subject, Generation: t.policy.Generation(),
		Via: via, ClientPort: s.client.Port(),
	}
	if h != nil {
		t.rec.Method = clip(h.method, maxMethodKept)
		t.rec.Host, t.rec.Port = splitClaimed(h.claimed)
	}
	if target.Port != 0 {
		t.rec.Port, t.rec.Addr = target.Port, target.Addr
		if t.rec.Host = target.Host.String(); target.Addr.IsValid() {
			t.rec.Host = target.Addr.String()
		}
	}
	if s.by.Transparent {
		t.rec.Port, t.rec.Addr, t.rec.Ambiguous = s.wanted().Port, s.wanted().Addr, s.ambiguous
		if target.Addr.IsValid() {
			t.rec.Host = "" // no name was seen
		}
	}
	t.findAnswers()
	s.last = t
	return t
}

// splitClaimed cuts what a client claimed into host and port, as far as it is
// to be understood.
func splitClaimed(claimed string) (string, uint16) {
	host := claimed
	var port uint64
	if i := strings.LastIndexByte(claimed, ':'); i >= 0 {
		if n, err := strconv.ParseUint(claimed[i+1:], 10, 16); err == nil {
			host, port = claimed[:i], n
		}
	}
	return clip(host, maxHostKept), uint16(port)
}

func clip(text string, limit int) string { return strings.Clone(text[:min(len(text), limit)]) }

// judge asks the gate, the pool, and the policy for name and port.
func (t *trip) judge() error {
	if reason := t.s.gate(); reason != allowlists.Allowed {
		return refusal(allowlists.Decision{Reason: reason}, nil)
	}
	t.by = t.decide(t.pool, time.Now())
	t.edit(func(rec *ConnRecord) { rec.Decision = t.by })
	if !t.by.Allowed() {
		return &allowlists.DeniedError{Decision: t.by, Addr: t.target.Addr}
	}
	return nil
}

// gate says whether new work may begin.
func (s *session) gate() allowlists.Reason {
	if s.server.draining.Load() {
		return allowlists.ShuttingDown
	}
	return s.server.cfg.Gate()
}

// decide judges the target under a pool: our own listeners first, as nothing
// opens those.
func (t *trip) decide(pool *allowlists.Pool, now time.Time) allowlists.Decision {
	var d allowlists.Decision
	if t.s.original.IsValid() {
		if d = t.decideOriginal(pool, now); !d.Allowed() {
			return d
		}
	}
	switch {
	case t.isRedirected() && t.target.Addr.IsValid():
		d = t.decideUnnamed(pool, now)
	case t.via == ViaHTTP:
		d = judgeRequest(pool, t.head, t.target, now)
	case t.target.Addr.IsValid():
		d = pool.DecideLiteral(t.target.Addr, t.target.Port, now)
	default:
		d = pool.DecideConn(t.target.Host, t.target.Port, now)
	}
	if d.Allowed() && t.target.Addr.IsValid() && t.isOwn(t.target.Addr) {
		return allowlists.Decision{Reason: allowlists.SpecialAddress}
	}
	return d
}

func (t *trip) isOwn(addr netip.Addr) bool {
	return t.s.server.cfg.IsOwn(netip.AddrPortFrom(addr, t.target.Port))
}

// decideAddr judges an address that is to stand for the target.
func (t *trip) decideAddr(pool *allowlists.Pool, by allowlists.Decision, addr netip.Addr, now time.Time) allowlists.Decision {
	switch {
	case t.isOwn(addr):
		return allowlists.Decision{Reason: allowlists.SpecialAddress, Rule: by.Rule}
	case t.target.Addr.IsValid():
		if addr.Unmap() != t.target.Addr.Unmap() {
			return allowlists.Decision{} // nobody judged this one
		}
		return by
	default:
		return pool.DecideDial(by, addr, t.target.Port, now)
	}
}

// A candidate is an address that may be dialled, with the decision that says so.
type candidate struct {
	addr     netip.Addr
	decision allowlists.Decision
}

// resolve finds the addresses to dial: every one is judged, those refused are
// left out. It gives at least one or an error.
func (t *trip) resolve(ctx context.Context) ([]candidate, error) {
	if t.target.Addr.IsValid() {
		return []candidate{{t.target.Addr, t.by}}, nil
	}
	if t.s.original.IsValid() {
		return t.redirectedCandidates(ctx)
	}
	return t.lookup(ctx)
}

// lookup is resolve for a name, by our resolver.
func (t *trip) lookup(ctx context.Context) ([]candidate, error) {
	answer, err := t.s.server.cfg.Resolver.Lookup(t.s.server.dialLimit(ctx), t.subject, t.target.Host)
	t.edit(func(rec *ConnRecord) { rec.DNSIDs = answer.IDs })
	if err != nil {
		if cause := context.Cause(t.s.ctx); cause != nil {
			err = cause
		}
		return nil, asDenial(err, t.by.Rule)
	}
	now := time.Now()
	var may []candidate
	refused := &allowlists.DeniedError{
		Decision: allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.NoSuchHost, Rule: t.by.Rule},
		Err:      errNoAddress,
	}
	for _, addr := range answer.Addrs {
		d := t.decideAddr(t.pool, t.by, addr, now)
		switch {
		case d.Allowed() && len(may) < maxCandidates:
			may = append(may, candidate{addr, d})
		case !d.Allowed() && !refused.Addr.IsValid():
			refused = &allowlists.DeniedError{Decision: d, Addr: addr}
		}
	}
	if len(may) == 0 {
		return nil, refused
	}
	return may, nil
}

// maxCandidates is how many addresses of one answer are tried.
const maxCandidates = 16

var errNoAddress = errors.New("the name has no address")

// connectTo resolves and dials.
func (t *trip) connectTo(ctx context.Context) (*net.TCPConn, error) {
	may, err := t.resolve(ctx)
	if err != nil {
		return nil, err
	}
	conn, won, err := t.dialFirst(ctx, may)
	if err != nil {
		return nil, err
	}
	t.edit(func(rec *ConnRecord) { rec.Addr, rec.Decision = won.addr, won.decision })
	return conn, nil
}

// still judges the trip under the policy now in force: nil if it may go on,
// else a policy-changed. It is safe for concurrent use once the trip is open.
func (t *trip) still() error {
	d := t.rejudge()
	if d.Allowed() {
		return t.limitUpload()
	}
	cause := &allowlists.DeniedError{Decision: d}
	return refusal(allowlists.Decision{Reason: allowlists.PolicyChanged, Rule: d.Rule}, cause)
}

// rejudge judges everything that is known of the trip by the policy now in force.
func (t *trip) rejudge() allowlists.Decision {
	policy, now := t.s.server.cfg.Policy(), time.Now()
	_, pool := t.s.subject(policy)
	t.mu.Lock()
	addr, claims, peeks := t.rec.Addr, t.claims, t.peeks
	t.mu.Unlock()
	d := t.decide(pool, now)
	if d.Allowed() && addr.IsValid() {
		d = t.decideAddr(pool, d, addr, now)
	}
	if !d.Allowed() {
		t.edit(func(rec *ConnRecord) { rec.Generation = policy.Generation() }) // it decides now
	}
	switch {
	case !d.Allowed(), peeks, !t.mustBeTLS(d.Rule):
		return d
	case claims == nil:
		return pool.Refuse(allowlists.NotTLS, d.Rule) // nobody looked
	default:
		return claims.judge(pool, d, t.target)
	}
}

// mustBeTLS reports whether the first bytes must be a ClientHello under rule,
// which is nil where audit lets pass what no rule knows.
func (t *trip) mustBeTLS(rule *allowlists.Rule) bool {
	if t.via == ViaHTTP || t.target.Addr.IsValid() {
		return false
	}
	return needsTLS(rule, t.target.Port)
}

// edit changes the record to be written next.
func (t *trip) edit(change func(*ConnRecord)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.rec)
}
