package dnsfilter

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sallyport/allowlists"
)

// Bounds within the book of answers.
const (
	maxNames     = 16  // names kept of one address for one client, and returned
	maxCellsRead = 256 // clients looked at for the names of one address
)

// book remembers which names each pool was answered with for an address, and
// which client asked them last. It holds at most limit names: when full, the
// largest pool gives way to any other, and in its own pool a client with more
// than a quarter to the rest. Safe for concurrent use.
type book struct {
	limit int

	mu      sync.Mutex
	pools   map[string]*bookPool
	names   int
	evicted uint64 // names that gave way before their time, since the start
	// unkept are the cells that the file of the book does not have as they are,
	// of *cell, first changed first. Nil where nothing is kept.
	unkept  *list.List
	changed chan struct{} // has one element when unkept is no longer empty
}

// bookPool is the part of one pool. It is deleted when empty.
type bookPool struct {
	name    string
	byAddr  map[netip.Addr][]*cell // newest first
	cells   map[cellKey]*cell
	oldest  *list.List // of *cell, newest first
	clients map[netip.Addr]*bookClient
	names   int
}

// bookClient is the part of one client in its pool.
type bookClient struct {
	oldest *list.List // of *cell, newest first
	names  int
}

// cellKey is an address as one client was answered with it.
type cellKey struct{ client, addr netip.Addr }

// cell holds the names of one cellKey, newest first.
type cell struct {
	key              cellKey
	client           *bookClient // of key.client
	names            []bookName
	inPool, inClient *list.Element
	inUnkept         *list.Element // nil: the file has it as it is, or there is none
}

// bookName is one name and until when it stands for its address.
type bookName struct {
	host    allowlists.Host
	expires time.Time
}

// newBook makes an empty book; it holds one cell at least, whatever the limit.
func newBook(limit int) *book {
	return &book{limit: max(limit, maxNames), pools: make(map[string]*bookPool), changed: make(chan struct{}, 1)}
}

// add writes down that a client was answered with addrs for host.
func (b *book) add(by account, host allowlists.Host, addrs []netip.Addr, now, expires time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, addr := range addrs {
		b.addOne(by, host, addr.Unmap(), now, expires)
	}
}

func (b *book) addOne(by account, host allowlists.Host, addr netip.Addr, now, expires time.Time) {
	p := b.pools[by.pool]
	if p == nil {
		p = &bookPool{
			name:   by.pool,
			byAddr: make(map[netip.Addr][]*cell), cells: make(map[cellKey]*cell),
			oldest: list.New(), clients: make(map[netip.Addr]*bookClient),
		}
		b.pools[by.pool] = p
	}
	c := p.cellFor(cellKey{by.client, addr})
	before := len(c.names)
	if c.put(host, now, expires) {
		b.setUnkept(p, c)
	}
	b.count(p, c, len(c.names)-before)
	for b.names > b.limit {
		b.evict(p, by.client, c)
	}
}

// cellFor finds or makes a cell, and makes it the newest.
func (p *bookPool) cellFor(key cellKey) *cell {
	c := p.cells[key]
	if c == nil {
		client := p.clients[key.client]
		if client == nil {
			client = &bookClient{oldest: list.New()}
			p.clients[key.client] = client
		}
		c = &cell{key: key, client: client}
		c.inPool, c.inClient = p.oldest.PushFront(c), client.oldest.PushFront(c)
		p.cells[key] = c
		p.byAddr[key.addr] = append(p.byAddr[key.addr], c)
	}
	p.oldest.MoveToFront(c.inPool)
	c.client.oldest.MoveToFront(c.inClient)
	if list := p.byAddr[key.addr]; list[0] != c {
		at := slices.Index(list, c)
		copy(list[1:at+1], list[:at])
		list[0] = c
	}
	return c
}

// put makes a name the newest of the cell, and drops those whose time is over
// or that are too many. It reports whether the newest is another now, or stands
// for longer by the clock's seconds.
func (c *cell) put(host allowlists.Host, now, expires time.Time) (changed bool) {
	changed = len(c.names) == 0 || c.names[0].host != host || c.names[0].expires.Unix() < expires.Unix()
	if len(c.names) == 1 && c.names[0].host == host { // nearly always
		if expires.After(c.names[0].expires) {
			c.names[0].expires = expires
		}
		return changed
	}
	kept := c.names[:0] // of those before, which move down at first
	for _, n := range c.names {
		if n.host == host {
			if n.expires.After(expires) {
				expires = n.expires
			}
		} else if len(kept) < maxNames-1 && now.Before(n.expires) {
			kept = append(kept, n)
		}
	}
	clear(c.names[len(kept):])
	kept = append(kept, bookName{})
	copy(kept[1:], kept)
	kept[0] = bookName{host, expires}
	c.names = kept
	return changed
}

// count adds to every total that c's names are part of.
func (b *book) count(p *bookPool, c *cell, n int) {
	b.names += n
	p.names += n
	c.client.names += n
}

// lookup gives the names that still stand for addr in a pool: first those that
// the client asked itself, newest first, then those of its pool's others.
// keep may refuse a name. ttl is how long the first stands.
func (b *book) lookup(by account, addr netip.Addr, now time.Time, keep func(allowlists.Host) bool) (hosts []allowlists.Host, ttl time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pools[by.pool]
	if p == nil {
		return nil, 0
	}
	addr = addr.Unmap()
	take := func(c *cell) {
		for _, n := range c.names {
			if len(hosts) < maxNames && now.Before(n.expires) && !slices.Contains(hosts, n.host) && keep(n.host) {
				if hosts = append(hosts, n.host); len(hosts) == 1 {
					ttl = n.expires.Sub(now)
				}
			}
		}
	}
	if own := p.cells[cellKey{by.client, addr}]; own != nil {
		take(own)
	}
	for i, c := range p.byAddr[addr] {
		if i == maxCellsRead || len(hosts) == maxNames {
			break
		}
		take(c)
	}
	return hosts, ttl
}

// has reports whether host still stands for addr in a pool: first by what the
// client asked itself, then by its pool's others.
func (b *book) has(by account, host allowlists.Host, addr netip.Addr, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pools[by.pool]
	if p == nil {
		return false
	}
	addr = addr.Unmap()
	holds := func(c *cell) bool {
		return c != nil && slices.ContainsFunc(c.names, func(n bookName) bool { return n.host == host && now.Before(n.expires) })
	}
	if holds(p.cells[cellKey{by.client, addr}]) {
		return true
	}
	cells := p.byAddr[addr]
	return slices.ContainsFunc(cells[:min(len(cells), maxCellsRead)], holds)
}

// sizes tells how many names are held, and how many gave way before their time.
func (b *book) sizes() (names int, evicted uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names, b.evicted
}
