package diag

import (
	"bytes"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Long lists of names are most of a long file, and yaml.v3 takes five times as
// long for a line as all the rest. So the lines between the first and the last
// item of a run are taken out before it reads the text, and the items are made
// from the lines. Who reads the same line in the same state comes to the same
// state: if yaml.v3 finds the first and the last line to be neighbours in one
// block list, what stood between them was the same. Otherwise (the lines are
// in a comment, a quote, a block of text) it reads all of the text.

const (
	fewItems    = 16 // lines are no run
	linesAtOnce = 16 // are looked at without a rest
)

// A run is many lines in a row that are each an item of a block list at one
// indent, a dash and a word.
type run struct {
	first, last int // lines, from 1
	indent      int // of the dash, from 0
}

// A word is an item as it stands in a line of a run.
type word struct {
	indent int // of the dash, from 0
	from   int // where the text begins, behind its quote if it has one
	text   []byte
	quoted bool
}

// wordOf reads a line as an item that is text for every reader of YAML: in
// double quotes without escapes, or plain, with a letter at its beginning and a
// dot (yaml.v3 takes such for nothing else).
func wordOf(line []byte) (w word, ok bool) {
	for w.indent < len(line) && line[w.indent] == ' ' {
		w.indent++
	}
	rest := line[w.indent:]
	if len(rest) < len("- x") || rest[0] != '-' || rest[1] != ' ' {
		return word{}, false
	}
	w.from, w.text = w.indent+len("- "), rest[len("- "):]
	if w.text[0] == '"' {
		w.from, w.text, w.quoted = w.from+1, w.text[1:], true
		if len(w.text) < len(`x"`) || w.text[len(w.text)-1] != '"' {
			return word{}, false
		}
		w.text = w.text[:len(w.text)-1]
		return w, allOf(w.text, "*")
	}
	c, end := w.text[0]|0x20, w.text[len(w.text)-1]
	return w, 'a' <= c && c <= 'z' && end != ':' && allOf(w.text, "") && bytes.IndexByte(w.text, '.') > 0
}

// allOf reports whether a word has only bytes of host names and ports, and
// those of more.
func allOf(text []byte, more string) bool {
	for _, c := range text {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', 'A' <= c && c <= 'Z', c == '_', c == ':':
		case strings.IndexByte(more, c) < 0:
			return false
		}
	}
	return true
}

// findRuns finds every run of the text.
func (p *parser) findRuns() (runs []run) {
	lines := p.report.lines[p.file]
	var at run
	for i, line := range lines[:len(lines)-1] { // the last has no end
		if i%linesAtOnce == 0 {
			p.pause()
		}
		w, ok := wordOf(line)
		if ok && at.first > 0 && w.indent == at.indent {
			at.last = i + 1
			continue
		}
		runs = p.addRun(runs, at)
		at = run{}
		if ok {
			at = run{first: i + 1, last: i + 1, indent: w.indent}
		}
	}
	return p.addRun(runs, at)
}

// addRun adds a run that is worth it.
func (p *parser) addRun(runs []run, r run) []run {
	if r.first == 0 || r.last-r.first < p.few {
		return runs
	}
	return append(runs, r)
}

// without is the text with empty lines for those inside of runs.
func (p *parser) without(runs []run) []byte {
	lines := p.report.lines[p.file]
	var out bytes.Buffer
	next := 1
	copyTo := func(line int) { // up to and without it
		for ; next < line; next++ {
			if next%linesAtOnce == 0 {
				p.pause()
			}
			out.Write(lines[next-1])
			if next < len(lines) {
				out.WriteByte('\n')
			}
		}
	}
	for _, r := range runs {
		copyTo(r.first + 1)
		for ; next < r.last; next++ {
			out.WriteByte('\n')
		}
	}
	copyTo(len(lines) + 1)
	return out.Bytes()
}

// foundIn counts the runs, in their order, whose ends are neighbours in a block
// list below n.
func (p *parser) foundIn(n *yaml.Node, runs []run) (found int) {
	for i, item := range n.Content {
		if found < len(runs) && runs[found].first == item.Line && i+1 < len(n.Content) && p.isRun(n, item, n.Content[i+1], runs[found]) {
			found++
		}
		if len(item.Content) > 0 {
			found += p.foundIn(item, runs[found:])
		}
	}
	return found
}

// isRun reports whether two neighbours of a list are the ends of a run.
func (p *parser) isRun(list, first, last *yaml.Node, r run) bool {
	lines := p.report.lines[p.file]
	return list.Kind == yaml.SequenceNode && list.Style&yaml.FlowStyle == 0 && list.Column == r.indent+1 && last.Line == r.last &&
		isWord(first, lines[r.first-1]) && isWord(last, lines[r.last-1])
}

// isWord reports whether a value is the word of a line.
func isWord(n *yaml.Node, line []byte) bool {
	w, _ := wordOf(line)
	style := yaml.Style(0)
	if w.quoted {
		style, w.from = yaml.DoubleQuotedStyle, w.from-1
	}
	return n.Kind == yaml.ScalarNode && n.Style == style && n.Tag == "!!str" && n.Anchor == "" && n.Column == w.from+1 && n.Value == string(w.text)
}

// middle appends the items between the ends of a run, if a run begins in the
// line.
func (p *parser) middle(items []*Node, line int) []*Node {
	for len(p.runs) > 0 && p.runs[0].first < line { // of a list that was not looked at, for an error
		p.runs = p.runs[1:]
	}
	if len(p.runs) == 0 || p.runs[0].first != line {
		return items
	}
	r := p.runs[0]
	p.runs = p.runs[1:]
	lines := p.report.lines[p.file][r.first : r.last-1]
	size := 0
	for _, line := range lines {
		size += len(line) - r.indent - len("- ")
	}
	var texts strings.Builder // together, as they are many
	texts.Grow(size)
	items = slices.Grow(items, len(lines)+1)
	for i, line := range lines {
		w, _ := wordOf(line)
		from := texts.Len()
		texts.Write(w.text)
		n := p.newNode()
		n.Place = Place{Pos: Pos{File: p.file, Line: r.first + 1 + i, Col: r.indent + 1}, Caret: w.from + 1}
		n.Kind, n.LastLine, n.exact, n.quoted = Text, n.Pos.Line, true, w.quoted
		n.Text = texts.String()[from:]
		if w.quoted {
			n.Caret--
		}
		items = append(items, n)
	}
	return items
}
