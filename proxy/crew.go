package proxy

import "sync"

// idleCrew is how many goroutines a crew keeps waiting.
const idleCrew = 256

// A crew runs functions on goroutines that wait for the next one when they are
// done: their stacks have grown already, which costs a short connection more
// than all else that Go does for it. The zero crew is ready, and safe for
// concurrent use.
type crew struct {
	all sync.WaitGroup

	mu      sync.Mutex      // guards all below
	waiting []chan<- func() // newest last: its stack is the warmest
	used    bool            // since the last rest
	over    bool
}

// do runs f, at once, on a goroutine of its own. f recovers from its panics.
func (c *crew) do(f func()) {
	c.mu.Lock()
	c.used = true
	last := len(c.waiting) - 1
	if last < 0 {
		c.mu.Unlock()
		c.all.Go(func() { c.work(f) })
		return
	}
	idle := c.waiting[last]
	c.waiting = c.waiting[:last]
	c.mu.Unlock()
	idle <- f
}

// work runs f, and then whatever else there is to do.
func (c *crew) work(f func()) {
	next := make(chan func(), 1)
	for f != nil {
		f()
		if !c.wait(next) {
			return
		}
		f = <-next
	}
}

// wait puts a goroutine among those that wait; false if it is not needed.
func (c *crew) wait(next chan<- func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || len(c.waiting) == idleCrew {
		return false
	}
	c.waiting = append(c.waiting, next)
	return true
}

// rest lets the goroutines go that wait, if there was nothing to do since the
// last rest.
func (c *crew) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.used {
		c.dismiss()
	}
	c.used = false
}

// dismiss lets the goroutines go that wait. The caller holds mu.
func (c *crew) dismiss() {
	for _, idle := range c.waiting {
		close(idle)
	}
	c.waiting = nil
}

// end lets the goroutines go that wait, and waits until all others are done.
// Nothing is begun after it.
func (c *crew) end() {
	c.mu.Lock()
	c.over = true
	c.dismiss()
	c.mu.Unlock()
	c.all.Wait()
}
