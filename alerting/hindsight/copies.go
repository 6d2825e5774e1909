package hindsight

import "time"

// maxCopies bounds the sums of lines that are remembered.
const maxCopies = 1 << 16

// copies finds lines that two files have, as rotated files that overlap do.
type copies struct {
	seen map[uint64]seen
}

// seen is where a line was.
type seen struct {
	at   time.Time
	file int
}

func newCopies() copies { return copies{seen: make(map[uint64]seen)} }

// has reports whether another file had this very line. Copies have one time, so
// they come close to each other.
func (c *copies) has(sum uint64, at time.Time, file int) bool {
	if sum == 0 {
		return false
	}
	if before, ok := c.seen[sum]; ok && before.at.Equal(at) {
		return before.file != file
	}
	if len(c.seen) >= maxCopies {
		for old, s := range c.seen {
			if at.Sub(s.at) > time.Minute {
				delete(c.seen, old)
			}
		}
		if len(c.seen) >= maxCopies {
			clear(c.seen)
		}
	}
	c.seen[sum] = seen{at, file}
	return false
}
