package dnsfilter

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"sallyport/allowlists"
)

// evict makes room after an answer to adder, a client of p, whose cell stays.
func (b *book) evict(p *bookPool, adder netip.Addr, stays *cell) {
	var largest *bookPool
	for _, other := range b.pools {
		if other == p && len(p.cells) == 1 {
			continue // nothing but what was just answered
		}
		if largest == nil || other.names > largest.names {
			largest = other
		}
	}
	victims := largest.oldest
	if c := p.clients[adder]; largest == p && c.names*4 > p.names {
		victims = c.oldest
	}
	victim := victims.Back().Value.(*cell)
	if victim == stays {
		victim = largest.oldest.Back().Value.(*cell)
	}
	b.evicted += uint64(len(victim.names))
	b.remove(largest, victim)
}

// remove takes a cell out of everything.
func (b *book) remove(p *bookPool, c *cell) {
	b.count(p, c, -len(c.names))
	if c.inUnkept != nil {
		b.unkept.Remove(c.inUnkept)
		c.inUnkept = nil
	}
	p.oldest.Remove(c.inPool)
	c.client.oldest.Remove(c.inClient)
	delete(p.cells, c.key)
	if c.client.oldest.Len() == 0 {
		delete(p.clients, c.key.client)
	}
	list := p.byAddr[c.key.addr]
	if at := slices.Index(list, c); len(list) > 1 {
		p.byAddr[c.key.addr] = slices.Delete(list, at, at+1)
	} else {
		delete(p.byAddr, c.key.addr)
	}
	if len(p.cells) == 0 {
		delete(b.pools, p.name)
	}
}

// sweepBatch is how many cells are looked at before others have a turn.
const sweepBatch = 1024

// keepOnly drops the names that keep refuses, and those whose time is over.
// Others use the book in between; names that they add meanwhile stay.
func (b *book) keepOnly(now time.Time, keep func(pool string, host allowlists.Host) bool) {
	for name, cells := range b.snapshot() {
		for batch := range slices.Chunk(cells, sweepBatch) {
			b.keepOnlyOf(name, batch, now, keep)
		}
	}
}

// snapshot lists every cell by pool.
func (b *book) snapshot() map[string][]*cell {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string][]*cell, len(b.pools))
	for name, p := range b.pools {
		all[name] = slices.Collect(maps.Values(p.cells))
	}
	return all
}

// keepOnlyOf is keepOnly for some cells of a pool, as far as they are there still.
func (b *book) keepOnlyOf(pool string, cells []*cell, now time.Time, keep func(pool string, host allowlists.Host) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range cells {
		p := b.pools[pool]
		if p == nil || p.cells[c.key] != c {
			continue
		}
		before := len(c.names)
		c.names = slices.DeleteFunc(c.names, func(n bookName) bool {
			return !now.Before(n.expires) || !keep(pool, n.host)
		})
		b.count(p, c, len(c.names)-before)
		if len(c.names) == 0 {
			b.remove(p, c)
		}
	}
}
