package dnsfilter

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// Lookup resolves a host for a connection of sub, by the same way as a
// client's question: judged, cached, scrubbed, written down, and recorded once
// for A and once for AAAA. The error is always a *allowlists.DeniedError: a
// refusal, or NoSuchHost, UpstreamFailed or TimedOut with the verdict Allow, or
// SpecialAddress with the first address that was taken out. The answer carries
// its IDs and Removed with an error too. The deadline of ctx is kept, whether ctx
// has a timer for it or not.
func (s *Server) Lookup(ctx context.Context, sub allowlists.Subject, h allowlists.Host) (allowlists.Answer, error) {
	var (
		types = [2]uint16{dns.TypeAAAA, dns.TypeA}
		outs  [2]outcome
		recs  [2]QueryRecord
		wg    sync.WaitGroup
	)
	known := func(i int) bool { return s.cache.has(flightKey{name: h.String(), qtype: types[i]}, time.Now()) }
	if at, ok := ctx.Deadline(); ok && !(known(0) && known(1)) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, at) // it may have no timer of its own
		defer cancel()
	}
	ask := func(i int) { outs[i], recs[i] = s.lookupOne(ctx, sub, h, types[i]) }
	if known(0) {
		ask(0) // at once: it needs no goroutine
	} else {
		wg.Go(func() { ask(0) })
	}
	ask(1)
	wg.Wait()
	var answer allowlists.Answer
	for i := range types {
		answer.IDs = append(answer.IDs, recs[i].ID)
		answer.Removed = append(answer.Removed, outs[i].removed...)
	}
	answer.Addrs = interleave(recs[0].Answers, recs[1].Answers)
	if len(answer.Addrs) > 0 {
		return answer, nil
	}
	return answer, lookupError(outs, recs)
}

// lookupOne asks for one type, and records it.
func (s *Server) lookupOne(ctx context.Context, sub allowlists.Subject, h allowlists.Host, qtype uint16) (out outcome, r QueryRecord) {
	began := time.Now()
	r = QueryRecord{ID: allowlists.NewID(), Time: began, Subject: sub, By: ByProxy, Name: h.String(), Host: h, Type: qtype}
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			out = failed(allowlists.Decision{}, errPanicked)
			r.fill(&out)
		}
		r.Took = time.Since(began)
		s.metrics.observe(&r)
		s.cfg.Observe(r)
	}()
	policy := s.cfg.Policy()
	q := asked{name: h.String() + ".", qtype: qtype, class: dns.ClassINET, sub: sub}
	v := s.judge(policy, policy.Pool(sub.Pool), q.name, qtype, q.class, began)
	r.note(&v)
	r.Subject = sub
	out = s.settle(ctx, &q, v, &r)
	return out, r
}

// lookupError says why there is no address at all: a refusal before a failure,
// and a failure before the plain absence of addresses.
func lookupError(outs [2]outcome, recs [2]QueryRecord) *allowlists.DeniedError {
	for i := range outs {
		if d := outs[i].decision; !d.Allowed() {
			e := &allowlists.DeniedError{Decision: d}
			if len(outs[i].removed) > 0 {
				e.Addr = outs[i].removed[0]
			}
			if recs[i].Err != "" {
				e.Err = errors.New(recs[i].Err)
			}
			return e
		}
	}
	for _, reason := range []allowlists.Reason{allowlists.TimedOut, allowlists.UpstreamFailed} {
		for i := range outs {
			if outs[i].failure == reason {
				return worldError(reason, outs[i].decision, recs[i].Err)
			}
		}
	}
	for i := range outs {
		if outs[i].failure == allowlists.NoSuchHost {
			return worldError(allowlists.NoSuchHost, outs[i].decision, recs[i].Err)
		}
	}
	return worldError(allowlists.NoSuchHost, outs[0].decision, "the name has no address")
}

// worldError is a failure of the world, of a name that was allowed.
func worldError(reason allowlists.Reason, d allowlists.Decision, text string) *allowlists.DeniedError {
	d.Reason = reason
	return &allowlists.DeniedError{Decision: d, Err: errors.New(text)}
}

// interleave orders addresses as RFC 8305 section 4 tries them: IPv6 first, the
// families in turn. All are unmapped, none comes twice.
func interleave(six, four []netip.Addr) []netip.Addr {
	seen := make(map[netip.Addr]bool)
	var mixed []netip.Addr
	put := func(list []netip.Addr, i int) {
		if i < len(list) && !seen[list[i].Unmap()] {
			seen[list[i].Unmap()] = true
			mixed = append(mixed, list[i].Unmap())
		}
	}
	for i := range max(len(six), len(four)) {
		put(six, i)
		put(four, i)
	}
	return mixed
}

// Names gives the names that the subject's pool was answered with for addr and
// that the policy of now still allows: those that this client asked first,
// newest first, then the pool's others; at most 16.
func (s *Server) Names(sub allowlists.Subject, addr netip.Addr) []string {
	now := time.Now()
	pool := s.cfg.Policy().Pool(sub.Pool)
	hosts, _ := s.book.lookup(account{sub.Pool, sub.Key()}, addr, now, s.standing(pool, now))
	names := make([]string, len(hosts))
	for i, h := range hosts {
		names[i] = h.String()
	}
	return names
}

// Answered reports whether the pool of sub was answered with addr for h, as
// long as that answer is good and the policy of now allows the name.
func (s *Server) Answered(sub allowlists.Subject, h allowlists.Host, addr netip.Addr) bool {
	now := time.Now()
	pool := s.cfg.Policy().Pool(sub.Pool)
	return pool.DecideName(h, now).Allowed() && s.book.has(account{sub.Pool, sub.Key()}, h, addr, now)
}
