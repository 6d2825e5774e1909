package allowlists

import (
	"fmt"
	"strings"
)

// diffContext is how many unchanged lines a diff shows around a change.
const diffContext = 3

// Diff is the change as a unified diff, as patch and git apply take it.
func (a *Amended) Diff() string {
	lines := strings.SplitAfter(string(a.Old), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %[1]s\n", diffName(a.Name))
	shift := 0 // by how much what follows has moved
	for i := 0; i < len(a.edits); {
		group := 1
		for i+group < len(a.edits) && a.edits[i+group].line-(a.edits[i+group-1].line+a.edits[i+group-1].drop) <= 2*diffContext {
			group++
		}
		shift = writeHunk(&b, lines, a.edits[i:i+group], shift)
		i += group
	}
	return b.String()
}

// diffName is a file's name as git and patch read it in a diff: within quotes, and
// each odd byte in octal, where it has one that could begin another line or
// steer a terminal.
func diffName(name string) string {
	odd := func(c byte) bool { return c < 0x20 || c > 0x7e || c == '"' || c == '\\' }
	var b strings.Builder
	for _, c := range []byte(name) {
		if odd(c) {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	if b.Len() == len(name) {
		return name
	}
	return `"` + b.String() + `"`
}

// writeHunk writes edits that are near each other, and gives the new shift.
func writeHunk(b *strings.Builder, lines []string, edits []edit, shift int) int {
	from := max(1, edits[0].line-diffContext)
	last := edits[len(edits)-1]
	to := min(len(lines), last.line+last.drop-1+diffContext) // the last line shown
	var body strings.Builder
	put := func(sign, line string) {
		body.WriteString(sign + line)
		if !strings.HasSuffix(line, "\n") {
			body.WriteString("\n")
			if sign != "+" {
				body.WriteString("\\ No newline at end of file\n")
			}
		}
	}
	n, olds, news := from, 0, 0
	keep := func(until int) {
		for ; n < until && n <= len(lines); n++ {
			put(" ", lines[n-1])
			olds, news = olds+1, news+1
		}
	}
	for _, e := range edits {
		keep(e.line)
		for range e.drop {
			put("-", lines[n-1])
			n, olds = n+1, olds+1
		}
		for _, line := range e.add {
			put("+", line)
			news++
		}
	}
	keep(to + 1)
	fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n%s", from, olds, from+shift, news, body.String())
	return shift + news - olds
}
