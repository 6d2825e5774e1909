package dnsfilter

import (
	"encoding/binary"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// quick answers an ordinary question that a reply is ready for, a refusal only
// where there is room for refusals: it gives what is
// ready, and appends the reply to room, fills in the record and does all that
// handle would have done by then, but for observing. It waits for nothing. Nil:
// handle has to answer, and nothing was done.
func (s *Server) quick(raw []byte, from *origin, now time.Time, room []byte, record *QueryRecord, refusals bool) (reply []byte, made *ready) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			reply, made = nil, nil
		}
	}()
	var o ordinary
	if !o.parse(raw) {
		return nil, nil
	}
	policy := s.cfg.Policy()
	sub, pool := policy.Subject(from.client.Addr(), from.iface, from.pool)
	if pool == nil {
		return nil, nil
	}
	if made = s.answers.get(pool, &o); made == nil && refusals {
		made = s.refusals.get(pool, &o)
	}
	if made == nil || len(made.wire) > o.limit() || !s.stands(made, now) {
		return nil, nil
	}
	sub.Machine = from.machine
	by := account{pool.Name(), sub.Key()}
	name := made.key.name
	if o.mixed {
		name = o.asked(raw)
	}
	if s.cfg.Probe(name) || s.cfg.Gate() != allowlists.Allowed || s.upstreams.echoes.has(raw[headerSize:o.end]) ||
		!s.rates.take(rateKey(by), now) {
		return nil, nil
	}
	*record = made.rest
	record.ID, record.Time, record.Subject, record.Name, record.Resolver = allowlists.NewID(), now, sub, name, s.foreign(from)
	reply = append(room, made.wire...)
	copy(reply, raw[:2])
	copy(reply[headerSize:], raw[headerSize:o.end])
	reply[2] |= raw[2] & bitRD
	if made.entry != nil {
		s.age(reply, made, by, now, record)
	}
	return reply, made
}

// stands reports whether what is ready still is what handle would answer.
func (s *Server) stands(made *ready, now time.Time) bool {
	if !made.until.IsZero() && !now.Before(made.until) {
		return false
	}
	if e := made.entry; e != nil && (e.gone.Load() || !now.Before(e.expires)) {
		return false
	}
	if made.follows {
		_, followed := s.follows.asker(made.rest.Subject.Pool, made.rest.Host, now)
		return !followed
	}
	return true
}

// age counts an answer's TTLs down, and writes the book.
func (s *Server) age(reply []byte, made *ready, by account, now time.Time, record *QueryRecord) {
	age := made.entry.age(now)
	for _, off := range made.ttls {
		ttl := reply[off:]
		binary.BigEndian.PutUint32(ttl, binary.BigEndian.Uint32(ttl)-age)
	}
	record.TTL -= time.Duration(age) * time.Second
	s.cache.touch(made.entry, now)
	if len(record.Answers) > 0 {
		s.book.add(by, record.Host, record.Answers, now, now.Add(record.TTL+s.cfg.BookGrace))
	}
}

// observe counts and hands on the record of a question that quick answered. It
// reports false if that panicked.
func (s *Server) observe(made *ready, record *QueryRecord) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
		}
	}()
	record.Took = time.Since(record.Time)
	made.queries.Inc()
	made.seconds.Observe(record.Took.Seconds())
	s.cfg.Observe(*record)
	return true
}

// failure makes a reply of ours one that says that we failed, with nothing but
// the question.
func failure(reply []byte, made *ready) []byte {
	reply = reply[:headerSize+len(made.key.name)+2+4]
	reply[3] = reply[3]&^0x0F | byte(dns.RcodeServerFailure)
	clear(reply[6:headerSize])
	return reply
}
