package alerting

import (
	"encoding/json"
	"fmt"
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

// A BaselineEntry is one destination that a pool reached, and who taught it.
type BaselineEntry struct {
	Pool        string          `json:"pool"`
	Destination string          `json:"destination"` // host:port
	First       time.Time       `json:"first"`
	Last        time.Time       `json:"last"`               // to the day
	Visits      []string        `json:"visits"`             // jobs, or days where the job is not known, until it is in
	By          string          `json:"by"`                 // the client that came first
	Job         *allowlists.Job `json:"job,omitempty"`      // the job that came first
	Entered     time.Time       `json:"entered,omitzero"`   // zero: it is not in the baseline yet
	FromFile    bool            `json:"from_file,omitzero"` // alerts.baseline.file named it
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
	pools   map[string]*poolBaseline
	dirty   map[string]bool // keys of entries that the store does not have
}

// A poolBaseline is the baseline of one pool.
type poolBaseline struct {
	learning learning
	entries  map[string]*BaselineEntry // by destination
	dirty    bool                      // learning is
}

func newBaseline(learn time.Duration, jobs, repeats int) *baseline {
	return &baseline{
		learn: learn, jobs: jobs, repeats: max(1, repeats), pools: make(map[string]*poolBaseline), dirty: make(map[string]bool),
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
	if now.Sub(entry.Last) >= 24*time.Hour {
		entry.Last = now.UTC().Truncate(24 * time.Hour)
		b.dirty[entryKey(e.Pool, destination)] = true
	}
	if !entry.Entered.IsZero() {
		return entry
	}
	if id := visitID(e); !slices.Contains(entry.Visits, id) {
		entry.Visits = append(entry.Visits, id)
		if len(entry.Visits) >= b.repeats {
			entry.Entered = e.Time
		}
		b.dirty[entryKey(e.Pool, destination)] = true
	}
	return entry
}

// makeRoom forgets the tenth of a full pool's entries that matters least:
// those that never entered, then those unseen for longest.
func (b *baseline) makeRoom(p *poolBaseline) {
	all := make([]*BaselineEntry, 0, len(p.entries))
	for _, entry := range p.entries {
		all = append(all, entry)
	}
	slices.SortFunc(all, func(x, y *BaselineEntry) int {
		if x.Entered.IsZero() != y.Entered.IsZero() {
			if x.Entered.IsZero() {
				return -1
			}
			return 1
		}
		return x.Last.Compare(y.Last)
	})
	for _, entry := range all[:len(all)/10+1] {
		b.forget(entry.Pool, entry.Destination)
	}
}

// expire forgets destinations that were not seen for baselineAge.
func (b *baseline) expire(now time.Time) {
	for pool, p := range b.pools {
		for destination, entry := range p.entries {
			if !entry.FromFile && now.Sub(entry.Last) > baselineAge {
				b.forget(pool, destination)
			}
		}
	}
}

// forget removes a destination, and reports whether it was there.
func (b *baseline) forget(pool, destination string) bool {
	p := b.pools[pool]
	if p == nil || p.entries[destination] == nil {
		return false
	}
	delete(p.entries, destination)
	b.dirty[entryKey(pool, destination)] = true
	return true
}

// list gives a pool's destinations, sorted, as copies.
func (b *baseline) list(pool string) []BaselineEntry {
	p := b.pools[pool]
	if p == nil {
		return nil
	}
	all := make([]BaselineEntry, 0, len(p.entries))
	for _, entry := range p.entries {
		all = append(all, *entry)
	}
	slices.SortFunc(all, func(x, y BaselineEntry) int { return strings.Compare(x.Destination, y.Destination) })
	return all
}

// read adds the entries of alerts.baseline.file: one JSON object a line, of
// which pool and destination count. A pool that the file names has learnt.
func (b *baseline) read(data []byte, now time.Time) error {
	for i, line := range strings.Split(string(data), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		var entry BaselineEntry
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Pool == "" || entry.Destination == "" {
			return fmt.Errorf(`line %d is no entry; one is {"pool":"build","destination":"registry.corp.example:443"}`, i+1)
		}
		p := b.pool(entry.Pool, now)
		if !p.learning.Done {
			p.learning.Done, p.dirty = true, true
		}
		if known := p.entries[entry.Destination]; known != nil && !known.Entered.IsZero() || len(p.entries) >= baselineEntries {
			continue
		}
		p.entries[entry.Destination] = &BaselineEntry{
			Pool: entry.Pool, Destination: entry.Destination, First: now, Last: now, Entered: now, By: "alerts.baseline.file", FromFile: true,
		}
	}
	return nil
}

// jobID names the job behind an event; "" if it is not known.
func jobID(e *Event) string {
	if e.Job == nil || e.Job.RunID == "" && e.Job.Job == "" {
		return ""
	}
	id, _ := cut(strings.Join([]string{e.Job.Repo, e.Job.RunID, e.Job.Job}, "/"), 256)
	return id
}

// visitID names the job behind an event, or its day where the job is unknown.
func visitID(e *Event) string {
	if id := jobID(e); id != "" {
		return id
	}
	return e.Time.UTC().Format(time.DateOnly)
}
