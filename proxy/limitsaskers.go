package proxy

import "time"

// askers remembers the last two different parties that asked, which is enough
// to know whether anyone besides a given one asked of late.
type askers[K comparable] struct {
	last, before         K
	lastTime, beforeTime time.Time
}

// note remembers that who asked now.
func (a *askers[K]) note(who K, now time.Time) {
	if a.last != who {
		a.before, a.beforeTime = a.last, a.lastTime
		a.last = who
	}
	a.lastTime = now
}

// besides reports whether anyone but who asked within asksFor.
func (a *askers[K]) besides(who K, now time.Time) bool {
	at := a.lastTime
	if a.last == who {
		at = a.beforeTime
	}
	return !at.IsZero() && now.Sub(at) < asksFor
}
