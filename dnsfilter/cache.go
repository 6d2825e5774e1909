package dnsfilter

import (
	"container/list"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Bounds of the cache beside its number of entries.
const (
	cacheBytes    = 64 << 20
	entryOverhead = 256 // bytes that an entry takes beside its message and name
	staleTTL      = 30  // seconds that clients may keep a stale answer, RFC 8767 section 4
)

// flightKey tells answers apart: in the cache, and among questions under way.
type flightKey struct {
	name  string // canonical, without the final dot
	qtype uint16
	flags queryFlags
}

// cache keeps scrubbed answers by what was asked, not by who asked: whether a
// pool may have them is judged at each use. Beyond its bounds, in entries and
// in bytes, the answer unused for longest goes. Safe for concurrent use.
type cache struct {
	maxEntries int
	maxBytes   int
	stale      time.Duration

	mu    sync.Mutex
	byKey map[flightKey]*list.Element // of *cached
	used  *list.List                  // most recently used first
	bytes int
}

// cached is one answer as kept: packed, so that it takes what it measures.
type cached struct {
	key      flightKey
	wire     []byte
	upstream string
	stored   time.Time
	expires  time.Time
	place    *list.Element // in cache.used; guarded by cache.mu
	gone     atomic.Bool   // it is in the cache no more
	touched  atomic.Int64  // when touch last made it the most recently used, in seconds since 1970
}

func (c *cached) size() int { return len(c.wire) + len(c.key.name) + entryOverhead }

func newCache(maxEntries, maxBytes int, stale time.Duration) *cache {
	return &cache{
		maxEntries: maxEntries, maxBytes: maxBytes, stale: stale,
		byKey: make(map[flightKey]*list.Element), used: list.New(),
	}
}

// put keeps an answer for its TTL. One with a TTL of 0 is not kept, and neither
// is one that takes more than a thousandth of the room.
func (c *cache) put(key flightKey, a answer, upstream string, now time.Time) {
	if a.ttl <= 0 {
		c.drop(key)
		return
	}
	msg := dns.Msg{Answer: a.records, Compress: true}
	msg.Rcode = a.rcode
	if a.soa != nil {
		msg.Ns = []dns.RR{a.soa}
	}
	wire, err := msg.Pack()
	if err != nil || len(wire) > c.maxBytes/1000 {
		c.drop(key)
		return
	}
	entry := &cached{key: key, wire: wire, upstream: upstream, stored: now, expires: now.Add(a.ttl)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(c.byKey[key])
	entry.place = c.used.PushFront(entry)
	c.byKey[key] = entry.place
	c.bytes += entry.size()
	for len(c.byKey) > c.maxEntries || c.bytes > c.maxBytes {
		c.remove(c.used.Back())
	}
}

// get gives a copy of a kept answer with its TTLs counted down, and what it is
// a copy of; nil if there is none that is good still.
func (c *cache) get(key flightKey, now time.Time) (answer, *cached) {
	entry := c.find(key, now)
	if entry == nil || !now.Before(entry.expires) {
		return answer{}, nil
	}
	a, ok := entry.open(now)
	if !ok {
		return answer{}, nil
	}
	return a, entry
}

// touch makes an entry the most recently used, as get does, if that was not done
// within the second.
func (c *cache) touch(entry *cached, now time.Time) {
	if second := now.Unix(); entry.touched.Swap(second) == second {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used.MoveToFront(entry.place) // does nothing for one that is gone
}

// has reports whether get would find an answer.
func (c *cache) has(key flightKey, now time.Time) bool {
	entry := c.find(key, now)
	return entry != nil && now.Before(entry.expires)
}

// getStale is get for an answer whose time is over, when no upstream has a
// newer one.
func (c *cache) getStale(key flightKey, now time.Time) (a answer, upstream string, ok bool) {
	entry := c.find(key, now)
	if entry == nil || c.stale == 0 {
		return answer{}, "", false
	}
	if a, ok = entry.open(now); !ok {
		return answer{}, "", false
	}
	for _, rr := range a.records {
		rr.Header().Ttl = staleTTL
	}
	if a.soa != nil {
		a.soa.Hdr.Ttl = staleTTL
	}
	a.ttl = staleTTL * time.Second
	return a, entry.upstream, true
}

// find gives the entry under a key, and removes one that is no use even stale.
func (c *cache) find(key flightKey, now time.Time) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		return nil
	}
	entry := e.Value.(*cached)
	if !now.Before(entry.expires.Add(c.stale)) {
		c.remove(e)
		return nil
	}
	c.used.MoveToFront(e)
	return entry
}

func (c *cache) drop(key flightKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(c.byKey[key])
}

// remove takes an element out; nil is none. The caller holds the lock.
func (c *cache) remove(e *list.Element) {
	if e == nil {
		return
	}
	entry := c.used.Remove(e).(*cached)
	entry.gone.Store(true)
	delete(c.byKey, entry.key)
	c.bytes -= entry.size()
}

// keepOnly drops every entry that keep refuses. Others use the cache meanwhile.
func (c *cache) keepOnly(keep func(flightKey) bool) {
	c.mu.Lock()
	keys := slices.Collect(maps.Keys(c.byKey))
	c.mu.Unlock()
	for _, key := range keys {
		if !keep(key) {
			c.drop(key)
		}
	}
}

// entries counts what is kept.
func (c *cache) entries() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byKey)
}

// open unpacks an entry and counts its TTLs down.
func (e *cached) open(now time.Time) (answer, bool) {
	var msg dns.Msg
	if msg.Unpack(e.wire) != nil {
		return answer{}, false
	}
	a := answer{rcode: msg.Rcode, records: msg.Answer, ttl: max(0, e.expires.Sub(now))}
	if len(msg.Ns) == 1 {
		a.soa, _ = msg.Ns[0].(*dns.SOA)
	}
	age := e.age(now)
	for _, rr := range a.records {
		rr.Header().Ttl -= min(age, rr.Header().Ttl)
	}
	if a.soa != nil {
		a.soa.Hdr.Ttl -= min(age, a.soa.Hdr.Ttl)
	}
	return a, true
}

// age is how many seconds an entry is old.
func (e *cached) age(now time.Time) uint32 { return uint32(max(0, now.Sub(e.stored)/time.Second)) }
