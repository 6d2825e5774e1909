package alerting

import (
	"context"
	"encoding/json"
	"maps"
	"time"
)

// keepOn keeps what is dirty, soon after there is something, until ctx ends. It
// looks after the store every lookEvery, less often where that takes long, as
// those who send wait for it.
func (c *correlator) keepOn(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-c.unkept:
			c.keepNow()
		case <-look.C:
			begun := time.Now()
			c.commit()
			look.Reset(max(lookEvery, 10*time.Since(begun)))
		case <-ctx.Done():
			return
		}
		if !pause(ctx, keepEvery) {
			return
		}
	}
}

// keepNow keeps what is dirty and counts what waits.
func (c *correlator) keepNow() {
	c.mu.Lock()
	dirty := c.isDirty()
	if dirty {
		c.metrics.queue.Set(float64(c.waiting()))
	}
	c.mu.Unlock()
	if dirty {
		c.commit()
	}
}

// commit keeps what changed, with the place up to which events were taken, in
// one transaction. If that does not work it is said once, and tried again with
// the next commit; alerts are sent all the same. Events are taken while the
// store writes. The caller holds no lock.
func (c *correlator) commit() error {
	c.storing <- struct{}{}
	defer func() { <-c.storing }()
	c.mu.Lock()
	changes, err := c.changes()
	was, position := c.clean(), c.position
	c.mu.Unlock()
	if err == nil {
		err = c.store.Commit(changes)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tellStoreFaults()
	c.tellKept(err)
	if err != nil {
		c.soil(was)
		return err
	}
	c.kept = position
	return nil
}

// keptUpTo is the place up to which what was taken is kept; zero where nothing
// is, or ends with the process.
func (c *correlator) keptUpTo() Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.durable {
		return Position{}
	}
	return c.kept
}

// dirt says what the store does not have: what clean took, and soil gives back.
type dirt struct {
	moved, day                bool
	groups, messages, entries map[string]bool
	learning                  []string // pools
}

// clean forgets what is dirty and returns it. The caller holds mu.
func (c *correlator) clean() dirt {
	was := dirt{moved: c.moved, day: c.dayUnkept, groups: c.groups.dirty, messages: c.groups.dirtyMessages}
	c.dayUnkept = false
	c.moved, c.groups.dirty, c.groups.dirtyMessages = false, make(map[string]bool), make(map[string]bool)
	if c.baseline == nil {
		return was
	}
	was.entries, c.baseline.dirty = c.baseline.dirty, make(map[string]bool)
	for pool, p := range c.baseline.pools {
		if p.dirty {
			was.learning, p.dirty = append(was.learning, pool), false
		}
	}
	return was
}

// soil marks as dirty what could not be kept. The caller holds mu.
func (c *correlator) soil(was dirt) {
	c.moved, c.dayUnkept = c.moved || was.moved, c.dayUnkept || was.day
	maps.Copy(c.groups.dirty, was.groups)
	maps.Copy(c.groups.dirtyMessages, was.messages)
	if c.baseline == nil {
		return
	}
	maps.Copy(c.baseline.dirty, was.entries)
	for _, pool := range was.learning {
		if p := c.baseline.pools[pool]; p != nil {
			p.dirty = true
		}
	}
}

// isDirty reports whether something is not kept yet. The caller holds mu.
func (c *correlator) isDirty() bool {
	if c.moved || c.dayUnkept || len(c.groups.dirty) > 0 || len(c.groups.dirtyMessages) > 0 {
		return true
	}
	if c.baseline == nil {
		return false
	}
	if len(c.baseline.dirty) > 0 {
		return true
	}
	for _, p := range c.baseline.pools {
		if p.dirty {
			return true
		}
	}
	return false
}

// changes are what the store does not have. The caller holds mu.
func (c *correlator) changes() (changes []Change, err error) {
	put := func(kind, key string, present bool, value any) {
		change := Change{Kind: kind, Key: key}
		if present && err == nil {
			change.Value, err = json.Marshal(value)
		}
		changes = append(changes, change)
	}
	if c.moved {
		put(storePosition, "", true, c.position)
	}
	if c.dayUnkept {
		put(storeDay, "", true, c.day)
	}
	for key := range c.groups.dirty {
		g := c.groups.open[key]
		put(storeGroup, key, g != nil, g)
	}
	for name := range c.groups.dirtyMessages {
		m := c.groups.sending[name]
		put(storeMessage, name, m != nil, m)
	}
	if c.baseline == nil {
		return changes, err
	}
	for pool, p := range c.baseline.pools {
		if p.dirty {
			put(storeLearning, pool, true, p.learning)
		}
	}
	for key := range c.baseline.dirty {
		entry := c.baseline.entry(key)
		put(storeBaseline, key, entry != nil, entry)
	}
	return changes, err
}
