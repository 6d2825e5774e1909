package proxy

import (
	"sync"
	"testing"
	"testing/synctest"
)

// TestCrew has more work than goroutines that wait, some of it at once.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		var mu sync.Mutex
		done := 0
		hold := make(chan struct{})
		for range 2 * idleCrew {
			c.do(func() { <-hold; mu.Lock(); defer mu.Unlock(); done++ })
		}
		close(hold)
		synctest.Wait()
		if len(c.waiting) != idleCrew {
			t.Errorf("%d goroutines wait for work, want %d", len(c.waiting), idleCrew)
		}
		c.rest() // there was something to do
		if len(c.waiting) != idleCrew {
			t.Errorf("%d goroutines wait for work after a rest, want %d", len(c.waiting), idleCrew)
		}
		c.rest()
		synctest.Wait()
		if len(c.waiting) != 0 {
			t.Errorf("%d goroutines wait for work that does not come", len(c.waiting))
		}
		again := make(chan struct{})
		c.do(func() { close(again) })
		<-again
		c.end() // and synctest finds whoever is left
		if done != 2*idleCrew || c.waiting != nil {
			t.Errorf("%d of %d were done", done, 2*idleCrew)
		}
	})
}
