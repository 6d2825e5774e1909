package dnsfilter

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// maxFollowed bounds the targets taken from one SRV answer.
const maxFollowed = 64

// asked is one question on its way, from a client or from the proxy.
type asked struct {
	name  string // presentation form with the final dot
	qtype uint16
	class uint16
	flags queryFlags
	sub   allowlists.Subject
}

func (q *asked) account() account { return account{q.sub.Pool, q.sub.Key()} }

// outcome is what a question came to.
type outcome struct {
	judged
	// soa5 asks for a made-up SOA, so that a refusal is cached for a moment.
	soa5 bool
	// failure is NoSuchHost, UpstreamFailed or TimedOut where the world failed;
	// else Allowed.
	failure allowlists.Reason
	limit   string // the key of the limit that is used up, where one is
	again   again  // how the same question may be answered again
}

// again says that the same question of the same pool is answered alike as long
// as no rule ends and, where it has an entry, the cache has that. The zero again
// says nothing.
type again struct {
	refused bool    // the policy alone refused the name
	entry   *cached // of an answer from the cache, judged for a host itself; else nil
	age     uint32  // of the entry, in seconds, when the answer was taken
}

// settle takes a question from its verdict to its outcome: asks the cache or
// upstream if it is allowed, judges what came, and writes the book. It fills
// in what the record says of all that.
func (s *Server) settle(ctx context.Context, q *asked, v verdict, r *QueryRecord) outcome {
	by := q.account()
	final := !v.decision.Allowed()
	if v.decision.Allowed() && !v.reverse {
		key := flightKey{name: v.host.String(), qtype: q.qtype, flags: q.flags}
		got := s.obtain(ctx, key, by, func() error { return s.guard(q, &v) })
		r.Upstream, r.Cached = got.upstream, got.cached
		v = s.judgeAgain(v, q)
		r.note(&v)
		if v.decision.Allowed() {
			return s.conclude(q, v, got, r)
		}
	}
	if v.decision.Allowed() {
		now := time.Now()
		if a, ok := s.answerReverse(&v, by, now); ok {
			out := outcome{judged: judgeAddrs(&v, a, now), failure: allowlists.Allowed}
			r.fill(&out)
			return out
		}
		v.decision = allowlists.Decision{Reason: allowlists.NotInAllowlist}
	}
	out := s.refusal(v)
	out.again.refused = final
	r.fill(&out)
	return out
}

// judgeAgain judges by the policy of now, if it is another than the one that
// let the question go: no answer leaves by a policy that is gone.
func (s *Server) judgeAgain(v verdict, q *asked) verdict {
	policy := s.cfg.Policy()
	if policy.Generation() == v.policy.Generation() {
		return v
	}
	return s.judge(policy, policy.Pool(v.pool.Name()), q.name, q.qtype, q.class, time.Now())
}

// refusal is the outcome of a verdict against.
func (s *Server) refusal(v verdict) outcome {
	out := outcome{judged: judged{decision: v.decision, rcode: v.rcode}, failure: allowlists.Allowed}
	if v.rcode == rcodeBlocked {
		out.rcode = s.blocked
	}
	if v.rcode == rcodeBlocked || v.rcode == dns.RcodeSuccess {
		out.soa5, out.ttl = true, ttlOfBlock*time.Second
	}
	return out
}

// conclude turns what upstream gave into the outcome for this pool.
func (s *Server) conclude(q *asked, v verdict, got result, r *QueryRecord) outcome {
	if got.err != nil {
		out := failed(v.decision, got.err)
		r.fill(&out)
		r.Err = clip(got.err.Error())
		return out
	}
	now := time.Now()
	out := outcome{judged: judgeAddrs(&v, got.answer, now), failure: allowlists.Allowed}
	switch {
	case !out.decision.Allowed():
		out.soa5, out.ttl, out.rcode = true, ttlOfBlock*time.Second, dns.RcodeSuccess
	case out.rcode == dns.RcodeNameError:
		out.failure = allowlists.NoSuchHost
		out.decision = withFailure(out.decision, out.failure)
		out.again = againFrom(got, &v, q)
		r.Err = "the name does not exist"
	default:
		out.again = againFrom(got, &v, q)
		s.remember(q, v, &out.judged, now)
	}
	r.fill(&out)
	return out
}

// againFrom is how a question with an answer from the cache may be answered
// again. SRV answers say who may be asked for next, and a host that is asked
// for on behalf of another is allowed for a time only: both say nothing.
func againFrom(got result, v *verdict, q *asked) again {
	if got.entry == nil || v.owner != v.host || q.qtype == dns.TypeSRV {
		return again{}
	}
	taken := got.entry.expires.Add(-got.answer.ttl)
	return again{entry: got.entry, age: got.entry.age(taken)}
}

// remember writes the book, before the reply leaves.
func (s *Server) remember(q *asked, v verdict, j *judged, now time.Time) {
	expires := now.Add(j.ttl + s.cfg.BookGrace)
	by := q.account()
	if len(j.passed) > 0 {
		s.book.add(by, v.host, j.passed, now, expires)
		if v.owner != v.host {
			s.book.add(by, v.owner, j.passed, now, expires)
		}
	}
	followed := 0
	for _, rr := range j.records {
		srv, ok := rr.(*dns.SRV)
		if !ok || followed == maxFollowed {
			continue
		}
		if target, err := allowlists.HostFromDNS(srv.Target); err == nil {
			s.follows.add(by.pool, follow{target: target, asker: v.owner, expires: expires})
			followed++
		}
	}
}

// failed is the outcome of a question that got no answer.
func failed(d allowlists.Decision, err error) outcome {
	out := outcome{judged: judged{rcode: dns.RcodeServerFailure}}
	var tunnel *tunnelError
	switch {
	case errors.As(err, &tunnel):
		return overLimit(d.Rule, tunnel.tally.Over)
	case errors.Is(err, errPanicked):
		out.failure = allowlists.InternalError
		out.decision = allowlists.Decision{Reason: allowlists.InternalError}
		return out
	case errors.Is(err, errLimit):
		return overLimit(nil, "")
	case errors.Is(err, errUpstreamTimeout):
		out.failure = allowlists.TimedOut
	default:
		out.failure = allowlists.UpstreamFailed
	}
	out.decision = withFailure(d, out.failure)
	return out
}

// withFailure puts a failure of the world into a decision for. What audit let
// through keeps saying so, or the log would hide what enforce refuses.
func withFailure(d allowlists.Decision, failure allowlists.Reason) allowlists.Decision {
	if d.Reason == allowlists.Allowed {
		d.Reason = failure
	}
	return d
}

// note writes the verdict's side of a record.
func (r *QueryRecord) note(v *verdict) {
	r.Generation = v.policy.Generation()
	r.Host, r.Reverse, r.Search = v.host, v.reverse, v.search
	r.Subject.Pool = v.pool.Name()
	r.Decision = v.decision
}

// fill writes the outcome's side of a record.
func (r *QueryRecord) fill(out *outcome) {
	r.Decision, r.RCode, r.TTL = out.decision, out.rcode, out.ttl
	r.Removed, r.CNAMEs = slices.Clone(out.removed), out.cnames
	r.Limit, r.Payload = out.limit, payload(out.records)
	if out.decision.Allowed() {
		r.Answers = slices.Clone(out.passed)
	}
}
