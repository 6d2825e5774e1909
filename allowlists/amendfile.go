package allowlists

import (
	"slices"
	"strings"

	"sallyport/allowlists/diag"
)

// An amendFile is a file that is being amended.
type amendFile struct {
	Amended
	lines []string // with their ends
	root  *diag.Node
}

// pool is the value of a pool; nil if the file has none of that name.
func (f *amendFile) pool(name string) *diag.Node {
	pools := f.root.Get("pools")
	if pools == nil {
		return nil
	}
	return pools.Get(name)
}

// add plans the edit of one list.
func (f *amendFile) add(pool *diag.Node, key string, lines []Line) error {
	at, found := 0, false
	var entry diag.Entry
	last := 0 // the line on which the last key of the pool stands
	for i, e := range pool.Entries {
		if e.Key == key {
			entry, found = e, true
		}
		if e.Place.Pos.Line > last {
			at, last = i, e.Place.Pos.Line
		}
	}
	if len(pool.Entries) > 0 {
		lines = f.review(pool, last, lines)
	}
	switch {
	case len(lines) == 0:
		return nil
	case len(pool.Entries) == 0:
		return f.fill(pool, key, lines)
	case f.lead(pool.Entries[at].Place) != indent(pool.Entries[at].Place):
		return errNoAmend // keys in one line
	case !found:
		column := pool.Entries[at].Place.Pos.Col - 1
		f.edits = append(f.edits, edit{line: f.end(last, column, true) + 1, add: withKey(key, column, lines), key: true})
		return nil
	case entry.Value.Kind != diag.List:
		return errNoAmend
	case f.byte(entry.Value.Place) == '[':
		return f.unfold(entry, lines)
	case len(entry.Value.Items) == 0:
		return errNoAmend
	}
	column := entry.Value.Place.Pos.Col - 1
	item := entry.Value.Items[len(entry.Value.Items)-1]
	f.edits = append(f.edits, edit{line: f.end(item.Place.Pos.Line, column, false) + 1, add: listItems(column, lines)})
	return nil
}

// fill writes the keys of a pool that has none: "{}".
func (f *amendFile) fill(pool *diag.Node, key string, lines []Line) error {
	n := pool.Place.Pos.Line
	for i := range f.edits {
		if e := &f.edits[i]; e.line == n && e.drop == 1 { // by the other list
			e.add = append(e.add, withKey(key, f.lead(pool.Place)+2, lines)...)
			return nil
		}
	}
	before, after, ok := strings.Cut(f.lines[n-1], "{}")
	if strings.TrimRight(before, " ") == "" || !ok || strings.ContainsAny(before, "{[") {
		return errNoAmend
	}
	column := len(before) - len(strings.TrimLeft(before, " "))
	head := strings.TrimRight(before, " ") + strings.TrimRight(after, "\r\n")
	f.edits = append(f.edits, edit{line: n, drop: 1, add: append([]string{head}, withKey(key, column+2, lines)...)})
	return nil
}

// unfold writes a list in brackets, which stands on the line of its key, with
// each item on a line of its own.
func (f *amendFile) unfold(entry diag.Entry, lines []Line) error {
	n, column := entry.Place.Pos.Line, entry.Place.Pos.Col-1
	if entry.Value.Place.Pos.Line != n {
		return errNoAmend
	}
	text := strings.TrimRight(f.lines[n-1], "\r\n")
	open := strings.IndexByte(text, '[')
	parts, after, ok := splitFlow(text[open+1:])
	if !ok || after != "" && after[0] != '#' {
		return errNoAmend
	}
	head := strings.TrimRight(text[:open], " ")
	if after != "" {
		head += " " + after
	}
	if len(parts) == 0 && !slices.ContainsFunc(lines, func(l Line) bool { return !l.Review }) {
		head = text // an empty list stays one
	}
	out := []string{head}
	for _, part := range parts {
		out = append(out, strings.Repeat(" ", column+2)+"- "+part)
	}
	f.edits = append(f.edits, edit{line: n, drop: 1, add: append(out, listItems(column+2, lines)...)})
	return nil
}

// splitFlow cuts what follows an opening bracket into the items, and what
// stands behind the closing one; ok is false if that is not in the text.
func splitFlow(text string) (parts []string, after string, ok bool) {
	depth, start, quote := 0, 0, byte(0)
	cut := func(to int) {
		if part := strings.TrimSpace(text[start:to]); part != "" {
			parts = append(parts, part)
		}
		start = to + 1
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quote != 0:
			if c == '\\' && quote == '"' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '[' || c == '{':
			depth++
		case c == ']' && depth == 0:
			cut(i)
			return parts, strings.TrimSpace(text[i+1:]), true
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth == 0:
			cut(i)
		}
	}
	return nil, "", false
}

// lead is how many spaces the line of a place begins with.
func (f *amendFile) lead(at diag.Place) int {
	line := f.lines[at.Pos.Line-1]
	return len(line) - len(strings.TrimLeft(line, " "))
}

// indent is how far in a place stands.
func indent(at diag.Place) int { return at.Pos.Col - 1 }

// byte is what stands at a place.
func (f *amendFile) byte(at diag.Place) byte {
	line := []rune(f.lines[at.Pos.Line-1])
	if n := at.Pos.Col - 1; n < len(line) && line[n] < 0x80 {
		return byte(line[n])
	}
	return 0
}

// end is the last line of what begins on a line and belongs to a block at a
// column: what follows is further in. Items of a list may stand as far in as its
// key does (dashes).
func (f *amendFile) end(line, column int, dashes bool) int {
	last := line
	for n := line + 1; n <= len(f.lines); n++ {
		text := strings.TrimRight(f.lines[n-1], "\r\n")
		trimmed := strings.TrimLeft(text, " ")
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		in := len(text) - len(trimmed)
		if in < column || in == column && !(dashes && strings.HasPrefix(trimmed, "-")) {
			break
		}
		last = n
	}
	return last
}
