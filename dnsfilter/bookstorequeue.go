package dnsfilter

import (
	"container/list"
	"slices"
	"time"
)

// unkeptCell is a cell in book.unkept, with its pool.
type unkeptCell struct {
	pool string
	cell *cell
}

// keep has the book remember from now on which cells the file has yet to get.
func (b *book) keep() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unkept = list.New()
}

// setUnkept notes that a cell has changed. The caller holds mu.
func (b *book) setUnkept(p *bookPool, c *cell) {
	if b.unkept == nil || c.inUnkept != nil {
		return
	}
	c.inUnkept = b.unkept.PushBack(unkeptCell{p.name, c})
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// takeUnkept gives the lines of at most n cells that the file has yet to get,
// and takes them for kept.
func (b *book) takeUnkept(n int, now time.Time) []bookLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := make([]bookLine, 0, min(n, b.unkept.Len()))
	for range cap(lines) {
		u := b.unkept.Remove(b.unkept.Front()).(unkeptCell)
		u.cell.inUnkept = nil
		lines = append(lines, u.cell.line(u.pool, now))
	}
	return lines
}

// cells lists all cells of a pool, the one asked longest ago first.
func (b *book) cells(pool string) []*cell {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pools[pool]
	if p == nil {
		return nil
	}
	all := make([]*cell, 0, len(p.cells))
	for e := p.oldest.Back(); e != nil; e = e.Prev() {
		all = append(all, e.Value.(*cell))
	}
	return all
}

// poolNames lists the pools that the book has something of.
func (b *book) poolNames() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	names := make([]string, 0, len(b.pools))
	for name := range b.pools {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// takeAll calls visit with the lines of the whole book, in batches, and takes
// them for kept. Others use the book in between: what they change is unkept
// again. It ends with the first error of visit.
func (b *book) takeAll(now time.Time, visit func([]bookLine) error) error {
	for _, pool := range b.poolNames() {
		for batch := range slices.Chunk(b.cells(pool), sweepBatch) {
			if err := visit(b.take(pool, batch, now)); err != nil {
				return err
			}
		}
	}
	return nil
}

// take gives the lines of some cells, as far as they are in the book still.
func (b *book) take(pool string, cells []*cell, now time.Time) []bookLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := make([]bookLine, 0, len(cells))
	for _, c := range cells {
		if p := b.pools[pool]; p == nil || p.cells[c.key] != c {
			continue
		}
		if c.inUnkept != nil {
			b.unkept.Remove(c.inUnkept)
			c.inUnkept = nil
		}
		lines = append(lines, c.line(pool, now))
	}
	return lines
}

// line is what the file says of a cell: the names whose time is not over.
func (c *cell) line(pool string, now time.Time) bookLine {
	l := bookLine{Pool: pool, Client: c.key.client, Addr: c.key.addr, Names: make([]keptName, 0, len(c.names))}
	for _, n := range c.names {
		if now.Before(n.expires) {
			l.Names = append(l.Names, keptName{n.host.String(), n.expires.Unix()})
		}
	}
	return l
}
