package allowlists

import (
	"slices"
	"strings"

	"sallyport/allowlists/diag"
)

// reviewHead is the comment ahead of lines for review.
const reviewHead = "# review"

// review plans the edit of a pool's comments for review, where it has any, and
// gives the lines that are still to be placed. What stands there already is not
// written again, whatever its note says by now; what does not goes under the
// head that is there. last is the line of the pool's last key.
func (f *amendFile) review(pool *diag.Node, last int, lines []Line) []Line {
	column := pool.Entries[0].Place.Pos.Col - 1
	from, to := pool.Entries[0].Place.Pos.Line, f.end(last, column, true)
	for to < len(f.lines) && f.belongs(to+1, column) {
		to++
	}
	head, known := 0, make(map[string]bool)
	for n := from; n <= to; n++ {
		text := strings.TrimSpace(f.lines[n-1])
		if item, ok := strings.CutPrefix(text, "# - "); ok {
			item, _, _ = strings.Cut(item, "  # ")
			known[item] = true
		}
		if text == reviewHead && head == 0 {
			head = n
		}
	}
	lines = slices.DeleteFunc(slices.Clone(lines), func(l Line) bool { return l.Review && known[l.Text] })
	if head == 0 || !slices.ContainsFunc(lines, func(l Line) bool { return l.Review }) {
		return lines
	}
	var rest, reviewed []Line
	for _, l := range lines {
		if l.Review {
			reviewed = append(reviewed, l)
		} else {
			rest = append(rest, l)
		}
	}
	under := f.lines[head-1]
	items := listItems(len(under)-len(strings.TrimLeft(under, " ")), reviewed)
	f.edits = append(f.edits, edit{line: head + 1, add: items[1:]}) // without a head of its own
	return rest
}

// belongs reports whether a line may be a comment of what stands at a column, or
// parts it from one.
func (f *amendFile) belongs(n, column int) bool {
	text := strings.TrimRight(f.lines[n-1], "\r\n")
	trimmed := strings.TrimLeft(text, " ")
	return trimmed == "" || trimmed[0] == '#' && len(text)-len(trimmed) >= column
}
