package alerting

import (
	"cmp"
	"slices"
	"time"
)

// A lesson is the most that one visit saw a client send within an hour.
type lesson struct {
	Visit string `json:"visit"`
	Bytes int64  `json:"bytes"`
}

// usualGrowth is how much a pool's usual upload may grow in a day once the pool
// has learnt: whoever wants to hide an upload behind smaller ones takes days.
const usualGrowth = 2

// taught notes that a client sent so many bytes to a destination within an
// hour. Usual is what that many distinct jobs or days reached as it takes to
// enter the baseline. A destination without an entry learns nothing.
func (b *baseline) taught(e *Event, destination string, bytes int64, now time.Time) {
	p := b.pool(e.Pool, now)
	entry := p.entries[destination]
	if entry == nil || bytes <= entry.Usual || !entry.note(visitOf(e), bytes, b.repeats) {
		return
	}
	b.dirty[entryKey(e.Pool, destination)] = true
	usual := entry.reached(visitOf(e), b.repeats)
	if p.learning.Done {
		if now.Sub(entry.Grew) >= 24*time.Hour {
			entry.Base, entry.Grew = entry.Usual, now
		}
		usual = min(usual, usualGrowth*max(entry.Base, b.trivial))
	}
	entry.Usual = max(entry.Usual, usual)
}

// note remembers the lesson, and reports whether it is news by more than an
// eighth; the repeats largest of jobs, and of days, are kept.
func (entry *BaselineEntry) note(v visit, bytes int64, repeats int) bool {
	i := slices.IndexFunc(entry.Lessons, func(l lesson) bool { return v.same(l.Visit) })
	switch {
	case i < 0:
		entry.Lessons = append(entry.Lessons, lesson{v.String(), bytes})
	case bytes <= entry.Lessons[i].Bytes+entry.Lessons[i].Bytes/8:
		return false
	default:
		entry.Lessons[i].Bytes = bytes
	}
	slices.SortFunc(entry.Lessons, func(a, b lesson) int { return cmp.Compare(b.Bytes, a.Bytes) })
	kept, days, jobs := entry.Lessons[:0], 0, 0
	for _, l := range entry.Lessons {
		n := &jobs
		if _, isDay := dayOf(l.Visit); isDay {
			n = &days
		}
		if *n++; *n <= repeats {
			kept = append(kept, l)
		}
	}
	entry.Lessons = kept
	return true
}

// reached is what repeats lessons like v reached; 0 if there are fewer.
func (entry *BaselineEntry) reached(v visit, repeats int) int64 {
	n := 0
	for _, l := range entry.Lessons { // largest first
		if !v.alike(l.Visit) {
			continue
		}
		if n++; n == repeats {
			return l.Bytes
		}
	}
	return 0
}

// usual is what the clients of the event's pool usually send to a destination
// within an hour; ok is false while the pool learns.
func (b *baseline) usual(e *Event, destination string, now time.Time) (bytes int64, ok bool) {
	p := b.pool(e.Pool, now)
	p.progress(e, b, now)
	if entry := p.entries[destination]; entry != nil && !entry.Entered.IsZero() {
		bytes = entry.Usual
	}
	return bytes, p.learning.Done
}
