package dnsfilter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// origin is where a message came from.
type origin struct {
	client, local netip.AddrPort // unmapped; local is our side
	machine       netip.Addr     // of the client, allowlists.Subject.Machine
	pool, iface   string         // those of the Listener
	udp           bool
	peer          netip.AddrPort // the client, as the packet has it
	wanted        netip.Addr     // over TCP: where the connection was made to
}

// handle answers one message of a client with one reply, nil for silence, and
// one record. A panic on the way costs this question alone.
func (s *Server) handle(ctx context.Context, raw []byte, from origin) (reply []byte) {
	began := time.Now()
	q, malformed := parseInquiry(raw)
	if malformed == nil && s.cfg.Probe(strings.TrimSuffix(q.name, ".")) {
		return q.bare(dns.RcodeRefused)
	}
	record := QueryRecord{
		ID: allowlists.NewID(), Time: began, By: ByClient,
		Name: q.asked(), Type: q.qtype, RCode: dns.RcodeServerFailure,
		Subject: allowlists.Subject{Client: from.client.Addr()}, Resolver: s.foreign(&from),
	}
	observed := false
	observe := func() {
		observed = true
		record.Took = time.Since(began)
		s.metrics.observe(&record)
		s.cfg.Observe(record)
	}
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			if reply = q.bare(dns.RcodeServerFailure); !observed {
				record.Decision = allowlists.Decision{Reason: allowlists.InternalError}
				record.RCode, record.Answers = dns.RcodeServerFailure, nil
				observe()
			}
		}
	}()
	policy := s.cfg.Policy()
	sub, pool := policy.Subject(from.client.Addr(), from.iface, from.pool)
	sub.Machine = from.machine
	record.Subject, record.Generation = sub, policy.Generation()
	if reason, rcode := s.admit(sub, pool, malformed, began); reason != allowlists.Allowed {
		record.Decision, record.RCode = allowlists.Decision{Reason: reason}, rcode
		if reason == allowlists.LimitExceeded {
			record.Limit = limitRate
		}
		observe()
		return s.early(&q, rcode)
	}
	if s.upstreams.echoes.has(q.question) {
		record.Decision = allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.UpstreamFailed}
		record.RCode, record.Err = dns.RcodeRefused, errCircle.Error()
		observe()
		return s.early(&q, dns.RcodeRefused)
	}
	ask := asked{name: q.name, qtype: q.qtype, class: q.class, flags: q.flags, sub: sub}
	v := s.judge(policy, pool, q.name, q.qtype, q.class, began)
	record.note(&v)
	out := s.settle(ctx, &ask, v, &record)
	reply = s.compose(&q, &out, from.udp)
	s.prepare(raw, reply, v.pool, &out, &record)
	observe()
	return reply
}

// errCircle is the failure of a question of ours that comes back to us.
var errCircle = errors.New("this is our own question: the upstream that was asked sends it here; name other dns.upstreams")

// panicked puts a panic into the log.
func (s *Server) panicked(p any) {
	s.cfg.Log.Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("answering a question panicked")
}

// limitRate is the key of the limit on each client's questions a second.
const limitRate = "limits.dns_per_client"

// noReply is the response code of silence.
const noReply = -1

// admit refuses what is not to be judged at all, with the code to answer.
func (s *Server) admit(sub allowlists.Subject, pool *allowlists.Pool, malformed error, now time.Time) (allowlists.Reason, int) {
	reason, rcode := allowlists.Allowed, dns.RcodeRefused
	gate := s.cfg.Gate()
	switch {
	case !s.rates.take(rateKey{sub.Pool, sub.Key()}, now):
		reason = allowlists.LimitExceeded
	case pool == nil:
		reason = allowlists.NoPool
	case gate != allowlists.Allowed:
		reason = gate
	case malformed != nil:
		reason, rcode = allowlists.DNSMalformed, malformedCode(malformed)
	}
	if errors.Is(malformed, errShort) || errors.Is(malformed, errResponse) {
		rcode = noReply
	}
	return reason, rcode
}

// malformedCode is how a message that is no question is answered.
func malformedCode(err error) int {
	switch {
	case errors.Is(err, errOpcode):
		return dns.RcodeNotImplemented
	case errors.Is(err, errVersion):
		return dns.RcodeBadVers
	default:
		return dns.RcodeFormatError
	}
}

// early is the reply to a message that was not judged: no longer than it was.
func (s *Server) early(q *inquiry, rcode int) []byte {
	switch rcode {
	case noReply:
		return nil
	case dns.RcodeBadVers: // in the OPT record only, RFC 6891 section 6.1.3
		return pack(q, &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: rcode}}, nil, maxUDPReply)
	default:
		return q.bare(rcode)
	}
}

// compose makes the reply to a question that was judged.
func (s *Server) compose(q *inquiry, out *outcome, udp bool) []byte {
	if out.decision.Reason == allowlists.NoPool || out.decision.Reason == allowlists.LimitExceeded {
		return q.bare(dns.RcodeRefused)
	}
	msg := &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: out.rcode}}
	name := lowerASCII(q.name)
	asName := name
	if len(out.records) > 0 {
		asName = out.records[0].Header().Name
	}
	for _, rr := range out.records {
		if rr.Header().Name == asName {
			rr.Header().Name = name
		}
		msg.Answer = append(msg.Answer, rr)
	}
	switch {
	case out.soa5:
		msg.Ns = []dns.RR{madeUpSOA(name)}
	case out.soa != nil:
		msg.Ns = []dns.RR{out.soa}
	}
	var extended *dns.EDNS0_EDE
	if !out.decision.Allowed() {
		extended = &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: out.decision.Reason.String()}
	}
	limit := dns.MaxMsgSize
	if udp {
		limit = q.udpLimit()
	}
	return pack(q, msg, extended, limit)
}

// pack finishes a reply: header, question, OPT if the client sent one, and no
// more bytes than the client takes. AD is never set, as nothing is validated.
// Names are compressed as if the question were lower case, which then gets the
// case back that it came in: whoever mixes it gets the same bytes otherwise.
func pack(q *inquiry, msg *dns.Msg, extended *dns.EDNS0_EDE, limit int) []byte {
	rcode := msg.Rcode
	msg.MsgHdr = q.header
	msg.Response, msg.RecursionAvailable, msg.Rcode = true, true, rcode
	msg.Compress = true
	msg.Question = []dns.Question{{Name: lowerASCII(q.name), Qtype: q.qtype, Qclass: q.class}}
	if q.edns {
		msg.SetEdns0(maxUDPReply, q.flags.DO)
		if opt := msg.IsEdns0(); extended != nil {
			opt.Option = append(opt.Option, extended)
		}
	}
	wire, err := msg.Pack()
	if err == nil && len(wire) > limit {
		msg.Truncate(limit)
		msg.Compress = true
		wire, err = msg.Pack()
	}
	if err != nil || len(wire) > limit {
		return q.bare(dns.RcodeServerFailure)
	}
	copy(wire[headerSize:], q.question)
	return wire
}

// madeUpSOA lets resolvers cache a refusal for a moment (RFC 2308), so that a
// job which tries again and again does not ask each time.
func madeUpSOA(name string) *dns.SOA {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttlOfBlock},
		Ns:  "sallyport.invalid.", Mbox: "refused.sallyport.invalid.",
		Serial: 1, Refresh: 1800, Retry: 900, Expire: 604800, Minttl: ttlOfBlock,
	}
}
