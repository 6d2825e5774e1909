package diag

import "slices"

// Nearest finds the name that a misspelt one was probably meant to be: the
// fewest edits away, at most a third of its letters and three. It gives "" if none is
// that near.
func Nearest(wrong string, names []string) string {
	best, bestEdits := "", min(3, (len(wrong)+2)/3)+1
	for _, name := range slices.Sorted(slices.Values(names)) {
		if edits := distance(wrong, name); edits < bestEdits {
			best, bestEdits = name, edits
		}
	}
	return best
}

// maxDistanceBytes bounds what distance compares; no key is longer.
const maxDistanceBytes = 64

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that lead from a to b (optimal string alignment).
func distance(a, b string) int {
	if len(a) > maxDistanceBytes || len(b) > maxDistanceBytes {
		return maxDistanceBytes
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
