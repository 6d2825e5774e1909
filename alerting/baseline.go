package alerting

import (
	"slices"
	"strings"
	"time"

	"sallyport/allowlists"
)

// The bounds of a baseline.
const (
	baselineEntries = 20_000              // destinations of one pool; the longest unseen go first
	baselineJobs    = 10_000              // distinct jobs that a pool counts while it learns
	baselineAge     = 90 * 24 * time.Hour // a destination unseen for this long is forgotten
)

// A BaselineEntry is one destination that a pool reached, and who taught it. As
// JSON it is a record of the store, an answer of the control API, and a line of
// alerts.baseline.file.
type BaselineEntry struct {
	Pool        string          `json:"pool"`
	Destination string          `json:"destination"` // host:port
	First       time.Time       `json:"first"`
	Last        time.Time       `json:"last"`               // to the day
	Visits      []string        `json:"visits,omitempty"`   // jobs, or days where the job is not known, until it is in
	By          string          `json:"by"`                 // the client that came first
	Job         *allowlists.Job `json:"job,omitempty"`      // the job that came first
	Entered     time.Time       `json:"entered,omitzero"`   // zero: it is not in the baseline yet
	FromFile    bool            `json:"from_file,omitzero"` // alerts.baseline.file named it
	// Removed is when somebody removed an entry that the file names: it stays, so
	// that the file does not bring it back, and is as good as new until it enters
	// again. Zero for any other.
	Removed time.Time `json:"removed,omitzero"`
	// Usual is the most that clients usually send there within an hour, in bytes.
	Usual   int64    `json:"usual,omitzero"`
	Lessons []lesson `json:"lessons,omitempty"` // that Usual comes from: a few
	// Base is what Usual was at Grew, from when it may at most double in a day.
	Base int64     `json:"base,omitzero"`
	Grew time.Time `json:"grew,omitzero"`
}

// learning is how far a pool has come. It is done once learn is over or enough
// jobs were seen, whichever is first.
type learning struct {
	Since time.Time `json:"since"`
	Jobs  []string  `json:"jobs"` // distinct, while it learns
	Done  bool      `json:"done"`
}

// A baseline knows what the pools usually reach. It is not safe for concurrent
// use; the correlator owns it. Bounds: baselineEntries and baselineJobs a pool,
// and pools come from configuration.
type baseline struct {
	learn   time.Duration
	jobs    int
	repeats int // distinct jobs or days before a destination enters
	// trivial is a usual upload below which size does not matter, in bytes.
	trivial int64
	pools   map[string]*poolBaseline
	dirty   map[string]bool // keys of entries that the store does not have
}

// A poolBaseline is the baseline of one pool.
type poolBaseline struct {
	learning learning
	entries  map[string]*BaselineEntry // by destination
	dirty    bool                      // learning is
}

func newBaseline(learn time.Duration, jobs, repeats int, trivial int64) *baseline {
	return &baseline{
		learn: learn, jobs: jobs, repeats: max(1, repeats), trivial: trivial, pools: make(map[string]*poolBaseline), dirty: make(map[string]bool),
	}
}

// pool is the baseline of a pool; made, and learning from now on, if missing.
func (b *baseline) pool(name string, now time.Time) *poolBaseline {
	p := b.pools[name]
	if p == nil {
		p = &poolBaseline{learning: learning{Since: now}, entries: make(map[string]*BaselineEntry), dirty: true}
		b.pools[name] = p
	}
	return p
}

// entryKey names an entry in the store. No pool has a NUL in its name.
func entryKey(pool, destination string) string { return pool + "\x00" + destination }

// visit notes that e reached a destination and reports whether that is news:
// the pool has learnt and the destination is not in its baseline. With teaches
// false nothing is learnt.
func (b *baseline) visit(e *Event, destination string, teaches bool, now time.Time) (news bool) {
	p := b.pool(e.Pool, now)
	p.progress(e, b, now)
	entry := p.entries[destination]
	known := entry != nil && !entry.Entered.IsZero()
	if teaches {
		entry = b.teach(p, entry, e, destination, now)
		known = known || !entry.Entered.IsZero()
	}
	return p.learning.Done && !known
}

// progress counts jobs and days until the pool has learnt.
func (p *poolBaseline) progress(e *Event, b *baseline, now time.Time) {
	l := &p.learning
	if l.Done {
		return
	}
	if id := jobID(e); id != "" && len(l.Jobs) < baselineJobs && !slices.Contains(l.Jobs, id) {
		l.Jobs, p.dirty = append(l.Jobs, id), true
	}
	if now.Sub(l.Since) >= b.learn || b.jobs > 0 && len(l.Jobs) > b.jobs {
		l.Done, l.Jobs, p.dirty = true, nil, true
	}
}

// teach notes a visit in the destination's entry, which enters the baseline
// with its visits by enough distinct jobs or days.
func (b *baseline) teach(p *poolBaseline, entry *BaselineEntry, e *Event, destination string, now time.Time) *BaselineEntry {
	if entry == nil {
		if len(p.entries) >= baselineEntries {
			b.makeRoom(p)
		}
		entry = &BaselineEntry{Pool: e.Pool, Destination: destination, First: e.Time, By: e.Subject().Key().String(), Job: e.Job}
		p.entries[destination] = entry
	}
	if len(entry.Visits) == 0 && !entry.Removed.IsZero() { // it begins anew
		entry.First, entry.By, entry.Job = e.Time, e.Subject().Key().String(), e.Job
	}
	if now.Sub(entry.Last) >= 24*time.Hour {
		entry.Last = now.UTC().Truncate(24 * time.Hour)
		b.dirty[entryKey(e.Pool, destination)] = true
	}
	if !entry.Entered.IsZero() {
		return entry
	}
	if id := visitOf(e); !slices.ContainsFunc(entry.Visits, id.same) {
		entry.Visits = append(entry.Visits, id.String())
		if id.count(entry.Visits) >= b.repeats {
			entry.Entered, entry.Removed = e.Time, time.Time{}
		}
		b.dirty[entryKey(e.Pool, destination)] = true
	}
	return entry
}

// makeRoom forgets the tenth of a full pool's entries that matters least:
// those that never entered, then those unseen for longest. What was removed on
// purpose matters as much as what entered.
func (b *baseline) makeRoom(p *poolBaseline) {
	all := make([]*BaselineEntry, 0, len(p.entries))
	for _, entry := range p.entries {
		all = append(all, entry)
	}
	slices.SortFunc(all, func(x, y *BaselineEntry) int {
		if x.matters() != y.matters() {
			if y.matters() {
				return -1
			}
			return 1
		}
		return x.Last.Compare(y.Last)
	})
	for _, entry := range all[:len(all)/10+1] {
		b.drop(entry.Pool, entry.Destination)
	}
}

// matters reports whether the entry is in the baseline, or out of it on purpose.
func (entry *BaselineEntry) matters() bool { return !entry.Entered.IsZero() || !entry.Removed.IsZero() }

// expire forgets destinations that were not seen for baselineAge.
func (b *baseline) expire(now time.Time) {
	for pool, p := range b.pools {
		for destination, entry := range p.entries {
			if !entry.FromFile && now.Sub(entry.Last) > baselineAge {
				b.drop(pool, destination)
			}
		}
	}
}

// drop forgets a destination.
func (b *baseline) drop(pool, destination string) {
	delete(b.pools[pool].entries, destination)
	b.dirty[entryKey(pool, destination)] = true
}

// remove makes a destination as good as new, and reports whether it was there.
// One that alerts.baseline.file names is remembered as removed.
func (b *baseline) remove(pool, destination string, now time.Time) bool {
	p := b.pools[pool]
	if p == nil || p.entries[destination] == nil {
		return false
	}
	entry := p.entries[destination]
	if !entry.isListed() {
		return false
	}
	b.drop(pool, destination)
	if entry.FromFile {
		p.entries[destination] = &BaselineEntry{Pool: pool, Destination: destination, FromFile: true, Removed: now, First: now, Last: now}
	}
	return true
}

// isListed reports whether the entry is more than the memory of a removal.
func (entry *BaselineEntry) isListed() bool { return entry.Removed.IsZero() || len(entry.Visits) > 0 }

// list gives a pool's destinations, sorted, as copies: those in the baseline
// and those on their way there.
func (b *baseline) list(pool string) []BaselineEntry {
	p := b.pools[pool]
	if p == nil {
		return nil
	}
	all := make([]BaselineEntry, 0, len(p.entries))
	for _, entry := range p.entries {
		if entry.isListed() {
			clone := *entry
			clone.Visits, clone.Lessons = slices.Clone(entry.Visits), slices.Clone(entry.Lessons)
			if clone.Last.Before(clone.First) { // it is kept to the day
				clone.Last = clone.First
			}
			all = append(all, clone)
		}
	}
	slices.SortFunc(all, func(x, y BaselineEntry) int { return strings.Compare(x.Destination, y.Destination) })
	return all
}
