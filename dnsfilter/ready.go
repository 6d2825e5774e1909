package dnsfilter

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"sallyport/allowlists"
)

// The bounds of what is ready: replies of some hundred bytes each, maxUDPReply
// at most, with what their records say.
const (
	readyAnswers  = 16384
	readyRefusals = 8192
)

// A ready is a reply that handle made to an ordinary question, packed, with all
// that the next question like it needs to be answered, recorded and counted
// alike. It holds for one pool of one policy, as long as no rule ends and the
// answer stays in the cache. It is immutable.
type ready struct {
	key   readyKey
	wire  []byte      // RD clear, TTLs as they were in the cache at first
	ttls  []uint16    // where they stand, other than those of refusals
	entry *cached     // nil for a refusal
	until time.Time   // when a rule ends; zero: never
	rest  QueryRecord // of which quick changes what differs each time
	// follows says that a target of an SRV answer would be judged otherwise.
	follows bool
	queries prometheus.Counter
	seconds prometheus.Observer
}

// readyKey is all that a reply depends on, beside time. A pool belongs to one
// policy, so nothing of it outlives a reload.
type readyKey struct {
	pool  *allowlists.Pool
	name  string // ordinary.name
	qtype uint16
	flags queryFlags
	edns  bool
}

// readies are those of one kind. What was not asked for since half of the room
// was filled goes. Safe for concurrent use.
type readies struct {
	most int

	mu         sync.Mutex
	young, old map[readyKey]*ready
}

func newReadies(most int) *readies {
	return &readies{most: most, young: make(map[readyKey]*ready)}
}

// get finds what is ready for a question of a pool, nil if nothing is.
func (t *readies) get(pool *allowlists.Pool, o *ordinary) *ready {
	t.mu.Lock()
	defer t.mu.Unlock()
	// The keys stand where they are used, so that none of the names is copied.
	if r := t.young[readyKey{pool, string(o.name()), o.qtype, o.flags, o.edns}]; r != nil {
		return r
	}
	r := t.old[readyKey{pool, string(o.name()), o.qtype, o.flags, o.edns}]
	if r != nil {
		t.put(r)
	}
	return r
}

// add keeps a reply, in the place of one with its key.
func (t *readies) add(r *ready) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(r)
}

// put makes one young. The caller holds the lock.
func (t *readies) put(r *ready) {
	delete(t.old, r.key)
	t.young[r.key] = r
	if len(t.young) >= t.most/2 {
		t.old, t.young = t.young, make(map[readyKey]*ready)
	}
}

// clear forgets all of them.
func (t *readies) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.young, t.old = make(map[readyKey]*ready), nil
}

// prepare keeps the reply to a question for the next one like it, if it may be
// given again.
func (s *Server) prepare(raw, reply []byte, pool *allowlists.Pool, out *outcome, r *QueryRecord) {
	var o ordinary
	policy := s.cfg.Policy()
	switch {
	case out.again == again{} || !o.parse(raw) || len(reply) < o.end || len(reply) > maxUDPReply || reply[2]&truncatedBit != 0:
		return
	case policy.Generation() != r.Generation || policy.Pool(pool.Name()) != pool:
		return
	}
	r.Where = r.Rule.Where()
	made := &ready{
		key:  readyKey{pool, string(o.name()), o.qtype, o.flags, o.edns},
		wire: slices.Clone(reply), entry: out.again.entry, until: policy.NextExpiry(r.Time), rest: *r,
		follows: r.Cause() == allowlists.NotInAllowlist && everyHostHas(o.qtype),
	}
	made.wire[2] &^= bitRD
	made.queries, made.seconds = s.metrics.of(r)
	made.rest.Name = made.key.name
	if made.entry == nil {
		s.refusals.add(made)
		return
	}
	if made.ttls = ttlOffsets(made.wire, o.end); made.ttls == nil {
		return
	}
	for _, off := range made.ttls {
		ttl := made.wire[off:]
		binary.BigEndian.PutUint32(ttl, binary.BigEndian.Uint32(ttl)+out.again.age)
	}
	made.rest.TTL += time.Duration(out.again.age) * time.Second
	s.answers.add(made)
}

// ttlOffsets finds the TTLs in a reply of ours whose first record stands at off;
// nil if there is none.
func ttlOffsets(wire []byte, off int) (ttls []uint16) {
	for off < len(wire) {
		for wire[off] != 0 && wire[off]&0xC0 == 0 {
			off += 1 + int(wire[off])
		}
		if off++; wire[off-1] != 0 {
			off++ // of a pointer
		}
		if binary.BigEndian.Uint16(wire[off:]) != dns.TypeOPT {
			ttls = append(ttls, uint16(off+4))
		}
		off += 10 + int(binary.BigEndian.Uint16(wire[off+8:]))
	}
	return ttls
}
