package alerting

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// fromFile stands where an entry says who came first, if its line does not.
const fromFile = "alerts.baseline.file"

// read adds the entries of alerts.baseline.file: one JSON object a line, as
// list gives them, of which pool and destination must be there. A pool that the
// file names has learnt. An entry that is known already, or was removed, stays
// as it is, but for a usual upload that is less than the file's. A removal of
// what the file does not name any more is forgotten.
func (b *baseline) read(data []byte, now time.Time) error {
	named := make(map[*BaselineEntry]bool)
	for i, line := range bytes.Split(data, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var entry BaselineEntry
		if err := json.Unmarshal(line, &entry); err != nil || entry.Pool == "" || entry.Destination == "" || entry.Usual < 0 {
			return fmt.Errorf(`line %d is no entry; one is {"pool":"build","destination":"registry.corp.example:443"}`, i+1)
		}
		named[b.adopt(&entry, now)] = true
	}
	b.unname(named)
	return nil
}

// unname has the entries that the file does not name age as any other, and
// forgets which of them were removed. named may be nil, where there is no file.
func (b *baseline) unname(named map[*BaselineEntry]bool) {
	for pool, p := range b.pools {
		for destination, entry := range p.entries {
			if !entry.FromFile || named[entry] {
				continue
			}
			entry.FromFile = false
			if !entry.Removed.IsZero() {
				b.drop(pool, destination)
			}
		}
	}
}

// adopt takes one entry of the file and gives what stands for it.
func (b *baseline) adopt(entry *BaselineEntry, now time.Time) *BaselineEntry {
	p := b.pool(entry.Pool, now)
	if !p.learning.Done {
		p.learning.Done, p.learning.Jobs, p.dirty = true, nil, true
	}
	known := p.entries[entry.Destination]
	switch {
	case known != nil && known.matters():
		known.FromFile = true
		if known.Removed.IsZero() {
			known.Usual = max(known.Usual, entry.Usual)
		}
		return known
	case known == nil && len(p.entries) >= baselineEntries:
		return nil
	}
	if entry.First.IsZero() {
		entry.First = now
	}
	if entry.By == "" {
		entry.By = fromFile
	}
	p.entries[entry.Destination] = &BaselineEntry{
		Pool: entry.Pool, Destination: entry.Destination, First: entry.First, By: entry.By, Job: entry.Job,
		Last: now.UTC().Truncate(24 * time.Hour), Entered: now, FromFile: true, Usual: entry.Usual,
	}
	return p.entries[entry.Destination]
}
