package alerting

import (
	"encoding/json"
	"fmt"
	"os"
)

// open opens the store and reads what it keeps. It happens once; run and
// resume do it too, but only its own error is seen early.
func (c *correlator) open() error {
	c.openOnce.Do(func() { c.openErr = c.load() })
	return c.openErr
}

// load is open, once.
func (c *correlator) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.store == nil {
		c.store = &MemoryStore{}
		if dir := c.config.alerts.StateDir; dir != "" {
			store, err := OpenStore(dir)
			if err != nil {
				return err
			}
			c.store = store
			c.damaged = len(store.(*fileStore).found) > 0
			c.tellStoreFaults()
		} else {
			c.config.log.Warn().Msg("alerts.state_dir is not set: alerts and their counts end with this process, and first-seen stays silent")
		}
	}
	for _, step := range []struct {
		kind string
		read func(key string, value []byte) error
	}{
		{storePosition, c.loadPosition}, {storeGroup, c.loadGroup}, {storeMessage, c.loadMessage}, {storeDay, c.loadDay},
		{storeLearning, c.loadLearning}, {storeBaseline, c.loadEntry},
	} {
		if err := c.read(step.kind, step.read); err != nil {
			c.store.Close()
			return fmt.Errorf("reading the state of alerts: %w", err)
		}
	}
	clear(c.groups.dirty)
	c.suspects.rebuild(c.groups, c.config.now())
	if err := c.loadBaselineFile(); err != nil {
		return err
	}
	c.usual.set(c.baseline)
	return nil
}

func (c *correlator) loadPosition(_ string, value []byte) error {
	var position Position
	if err := json.Unmarshal(value, &position); err != nil {
		return err
	}
	c.position, c.kept = position, position
	return nil
}

func (c *correlator) loadGroup(key string, value []byte) error {
	g := &group{Shares: make(map[string]*share)}
	if err := json.Unmarshal(value, g); err != nil {
		return fmt.Errorf("group %s: %w", key, err)
	}
	if g.Fold != nil {
		g.Fold.room, g.Fold.list = &c.groups.foldRoom, c.groups.limits.foldListed
		c.groups.foldRoom -= len(g.Fold.Seen) / 8
	}
	c.groups.insert(g)
	return nil
}

// loadMessage takes up a message that was under way; one of a sink that is no
// more is forgotten.
func (c *correlator) loadMessage(sink string, value []byte) error {
	m := &message{}
	if err := json.Unmarshal(value, m); err != nil {
		return fmt.Errorf("message to %s: %w", sink, err)
	}
	for _, s := range c.sinks {
		if s.name == sink {
			c.groups.sending[sink] = m
			return nil
		}
	}
	c.groups.dirtyMessages[sink] = true
	return nil
}

func (c *correlator) loadLearning(pool string, value []byte) error {
	if c.baseline == nil {
		return nil
	}
	p := c.baseline.pool(pool, c.config.now())
	p.dirty = false
	return json.Unmarshal(value, &p.learning)
}

func (c *correlator) loadEntry(_ string, value []byte) error {
	if c.baseline == nil {
		return nil
	}
	entry := &BaselineEntry{}
	if err := json.Unmarshal(value, entry); err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	c.baseline.pool(entry.Pool, c.config.now()).entries[entry.Destination] = entry
	return nil
}

// loadBaselineFile reads alerts.baseline.file.
func (c *correlator) loadBaselineFile() error {
	path := c.config.alerts.Baseline.File
	switch {
	case c.baseline == nil:
		return nil
	case path == "":
		c.baseline.unname(nil)
		return nil
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = c.baseline.read(data, c.config.now())
	}
	if err != nil {
		c.store.Close()
		return fmt.Errorf("reading alerts.baseline.file %s: %w", path, withoutPath(err))
	}
	return nil
}

// resume is eventReader's.
func (c *correlator) resume() (Position, bool) {
	if c.open() != nil {
		return Position{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.position, !c.position.IsZero()
}

// begin is eventReader's: everything before the place was taken.
func (c *correlator) begin(p Position) {
	if c.open() != nil {
		return
	}
	c.mu.Lock()
	c.position, c.moved = p, true
	c.mu.Unlock()
	c.commit()
}

// The system events of correlator and sinks. docs/alerts.md explains each.
const (
	SystemStateFailed = "state-failed"
	SystemSinkStopped = "sink-stopped"
	SystemSinkFailing = "sink-failing"
)

// entry finds an entry by its key in the store; nil if it is gone.
func (b *baseline) entry(key string) *BaselineEntry {
	for pool, p := range b.pools {
		if len(key) > len(pool) && key[:len(pool)] == pool && key[len(pool)] == 0 {
			return p.entries[key[len(pool)+1:]]
		}
	}
	return nil
}
