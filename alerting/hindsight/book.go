package hindsight

import (
	"container/list"
	"net/netip"
	"time"

	"sallyport/allowlists"
)

// The bounds of the book.
const (
	defaultEntries = 262144 // names, as limits.book_entries
	maxNames       = 16     // of one address
)

// A book remembers which names each pool was answered with for an address, and
// from when until when. When it is full, the address that was answered longest
// ago goes. It is for one goroutine.
type book struct {
	limit int
	names int
	cells map[cellKey]*cell
	order *list.List // of *cell, the one answered last at the end
}

// cellKey is an address in a pool; "" is for the answers that count for all.
type cellKey struct {
	pool string
	addr netip.Addr
}

// A cell holds the names of one address, newest first.
type cell struct {
	key   cellKey
	names []answered
	place *list.Element
}

// answered is one name that an address was given for.
type answered struct {
	host        allowlists.Host
	id          string // of the question that was answered last
	from, until time.Time
	last        time.Time // answered last
}

func newBook(limit int) *book {
	return &book{limit: limit, cells: make(map[cellKey]*cell), order: list.New()}
}

// add writes an answer down.
func (b *book) add(pool string, host allowlists.Host, id string, addrs []netip.Addr, from, until time.Time) {
	for _, addr := range addrs {
		key := cellKey{pool, addr}
		c := b.cells[key]
		if c == nil {
			c = &cell{key: key}
			c.place = b.order.PushBack(c)
			b.cells[key] = c
		}
		b.order.MoveToBack(c.place)
		b.names -= len(c.names)
		c.put(answered{host, id, from, until, from})
		b.names += len(c.names)
	}
	for b.names > b.limit && b.order.Len() > 1 {
		c := b.order.Remove(b.order.Front()).(*cell)
		b.names -= len(c.names)
		delete(b.cells, c.key)
	}
}

// put makes a name the newest of its cell. One that was answered again before
// its time was over stands since the first time.
func (c *cell) put(name answered) {
	kept := []answered{name}
	for _, old := range c.names {
		switch {
		case old.host == name.host && !old.until.Before(name.from) && !name.until.Before(old.from):
			if old.from.Before(kept[0].from) {
				kept[0].from = old.from
			}
			if old.until.After(kept[0].until) {
				kept[0].until = old.until
			}
			if old.last.After(kept[0].last) {
				kept[0].last = old.last
			}
		case len(kept) < maxNames:
			kept = append(kept, old)
		}
	}
	c.names = kept
}

// at lists the names that stood for an address at a time, newest first; one
// answered up to skew later counts.
func (b *book) at(pool string, addr netip.Addr, now time.Time, skew time.Duration) []answered {
	c := b.cells[cellKey{pool, addr}]
	if c == nil {
		return nil
	}
	var names []answered
	for _, n := range c.names {
		if !n.from.After(now.Add(skew)) && !now.After(n.until) {
			names = append(names, n)
		}
	}
	return names
}

// nearest is how long after the nearest answer with an address a time is; less
// than 0 if it is before it.
func (b *book) nearest(pool string, addr netip.Addr, now time.Time) (after time.Duration, ok bool) {
	c := b.cells[cellKey{pool, addr}]
	if c == nil {
		return 0, false
	}
	for _, n := range c.names {
		if d := now.Sub(n.last); !ok || d.Abs() < after.Abs() {
			after, ok = d, true
		}
	}
	return after, ok
}
