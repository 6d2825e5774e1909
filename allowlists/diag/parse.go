package diag

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Parse reads one YAML document and adds what is wrong with it to the report:
// a syntax error, which then stands alone, or else every anchor, alias, merge
// key, tag, second document and duplicate key. It gives the root, which is an
// empty Map for an empty file, and nil after a syntax error.
func Parse(file string, text []byte, report *Report) *Node {
	return ParseGently(file, text, report, nil)
}

// ParseGently is Parse that calls rest after each few values, so that whoever
// has other work on the same processor can let it go on; nil is not called.
func ParseGently(file string, text []byte, report *Report, rest func()) *Node {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // which no column counts
	p := parser{file: file, text: text, report: report, rest: rest, few: fewItems}
	return p.parse()
}

// parse is Parse.
func (p *parser) parse() *Node {
	report := p.report
	report.AddSource(p.file, p.text)
	if at := p.badBytes(); at != nil {
		report.Errorf(*at, "the file is not UTF-8 text; save it as UTF-8")
		return nil
	}
	if at := p.oddBreak(); at != nil {
		report.Errorf(*at, "a line ends with a character that YAML takes for the end of a line, and hardly an editor does; end lines with a newline")
		return nil
	}
	doc, second, err, more := p.decode()
	if errors.Is(err, io.EOF) {
		return &Node{Place: Place{Pos: Pos{File: p.file, Line: 1, Col: 1}}, Kind: Map}
	}
	switch {
	case err != nil:
		p.syntaxError(err)
		return nil
	case errors.Is(more, io.EOF):
	case more != nil:
		p.syntaxError(more)
		return nil
	default:
		report.Errorf(p.place(second), "a second document begins here; keep one document in a file")
	}
	p.checkEnd(doc.Content[0]) // before its nodes go
	root := p.node(doc.Content[0], 0)
	if root.Kind == Null {
		root.Kind = Map
	}
	return root
}

// decode has yaml.v3 read the text, but for what stands inside of runs if that
// leaves their ends where they are. It gives the first document and a second
// one, and the error at each.
func (p *parser) decode() (doc, second *yaml.Node, err, more error) {
	if runs := p.findRuns(); len(runs) > 0 {
		doc, second, err, more = p.decodeAll(p.without(runs))
		if err == nil && errors.Is(more, io.EOF) && p.foundIn(doc, runs) == len(runs) {
			p.runs = runs
			return doc, second, err, more
		}
	}
	return p.decodeAll(p.text)
}

// decodeAll is decode of a whole text.
func (p *parser) decodeAll(text []byte) (doc, second *yaml.Node, err, more error) {
	dec := yaml.NewDecoder(gentleReader{bytes.NewReader(text), p.pause})
	doc, second, more = new(yaml.Node), new(yaml.Node), io.EOF
	if err = dec.Decode(doc); err == nil {
		more = dec.Decode(second)
	}
	return doc, second, err, more
}

// A parser turns the yaml.Nodes of one file into Nodes.
type parser struct {
	file   string
	text   []byte
	report *Report
	rest   func()
	spare  []Node // allocated together, as a file has many
	reach  reach
	few    int   // lines are no run
	runs   []run // whose middle yaml.v3 has not read, in their order
}

// A reach is how far a line was skipped, as many values may stand in one.
type reach struct {
	line, runes int
	rest        []byte
}

// A gentleReader rests before each read; yaml.v3 reads 512 bytes at once.
type gentleReader struct {
	io.Reader
	rest func()
}

func (r gentleReader) Read(into []byte) (int, error) {
	r.rest()
	return r.Reader.Read(into)
}

// At most nodesAtOnce Nodes are allocated together, and for a small text as
// many as it may hold.
const (
	nodesAtOnce  = 64
	bytesPerNode = 16
)

// pause rests where there is other work.
func (p *parser) pause() {
	if p.rest != nil {
		p.rest()
	}
}

// newNode gives a Node of its own.
func (p *parser) newNode() *Node {
	if len(p.spare) == 0 {
		p.pause()
		p.spare = make([]Node, min(nodesAtOnce, 1+len(p.text)/bytesPerNode))
	}
	n := &p.spare[0]
	p.spare = p.spare[1:]
	return n
}

func (p *parser) place(n *yaml.Node) Place {
	return Place{Pos: Pos{File: p.file, Line: n.Line, Col: n.Column}, Caret: n.Column}
}

// badBytes finds the first byte that is not UTF-8.
func (p *parser) badBytes() *Place {
	if utf8.Valid(p.text) {
		return nil
	}
	bad := 0
	for bad < len(p.text) {
		c, n := utf8.DecodeRune(p.text[bad:])
		if c == utf8.RuneError && n == 1 {
			break
		}
		bad += n
	}
	return p.placeOf(bad)
}

// oddBreak finds the first character that ends a line for yaml.v3 but not for
// us: every number of a line behind it would be another, also of those that
// hold secrets.
func (p *parser) oddBreak() *Place {
	first := len(p.text)
	for _, odd := range []string{"\u0085", "\u2028", "\u2029"} {
		if i := bytes.Index(p.text[:first], []byte(odd)); i >= 0 {
			first = i
		}
	}
	for from := 0; ; {
		i := bytes.IndexByte(p.text[from:first], '\r')
		if i < 0 {
			break
		}
		if from += i + 1; from == len(p.text) || p.text[from] != '\n' {
			first = from - 1
			break
		}
	}
	if first == len(p.text) {
		return nil
	}
	return p.placeOf(first)
}

// placeOf is the place of a byte of the text.
func (p *parser) placeOf(offset int) *Place {
	before := p.text[:offset]
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	return &Place{Pos: Pos{File: p.file, Line: bytes.Count(before, []byte("\n")) + 1, Col: utf8.RuneCount(line) + 1}}
}

// node checks and converts one value, and lets go of what is converted. Its
// depth is bounded by the parser of yaml.v3, at 10,000.
func (p *parser) node(n *yaml.Node, column int) *Node {
	at := p.place(n)
	if column > 0 {
		at.Pos.Col = column // an item of a block list stands where its dash does
	}
	out := p.newNode()
	out.Place, out.LastLine = at, n.Line
	if p.decorated(n) {
		out.Kind = Bad
		return out
	}
	switch n.Kind {
	case yaml.MappingNode:
		out.Kind = Map
		p.entries(n, out)
	case yaml.SequenceNode:
		out.Kind = List
		out.Items = make([]*Node, 0, len(n.Content))
		for i, item := range n.Content {
			n.Content[i] = nil
			dash := 0
			if n.Style&yaml.FlowStyle == 0 && item.Kind == yaml.ScalarNode && p.dashAt(item.Line, n.Column) {
				dash = n.Column
			}
			out.Items = p.middle(append(out.Items, p.node(item, dash)), item.Line)
		}
	case yaml.ScalarNode:
		p.scalar(n, out)
	}
	for _, item := range out.Items {
		out.LastLine = max(out.LastLine, item.LastLine)
	}
	for _, e := range out.Entries {
		out.LastLine = max(out.LastLine, e.Value.LastLine)
	}
	return out
}

// dashAt reports whether an item's dash stands there: it may stand in a line
// above its item.
func (p *parser) dashAt(line, column int) bool {
	lines := p.report.lines[p.file]
	if line < 1 || line > len(lines) {
		return false
	}
	rest, ok := skipRunes(lines[line-1], column-1)
	return ok && len(rest) > 0 && rest[0] == '-'
}

// decorated refuses what would make a value other than it looks.
func (p *parser) decorated(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		p.report.Errorf(p.place(n), "*%s is an alias; write the value itself, or put quotes around a pattern that begins with *", n.Value)
	case n.Anchor != "":
		p.report.Errorf(p.place(n), "&%s is an anchor; remove it and write the value where it is needed", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		p.report.Errorf(p.place(n), "%s is a tag; remove it", n.Tag)
	default:
		return false
	}
	return true
}

// entries converts the keys of a mapping.
func (p *parser) entries(n *yaml.Node, out *Node) {
	out.Entries = make([]Entry, 0, len(n.Content)/2)
	var lines map[string]int // by key; nil where there are few
	if len(n.Content) > 2*fewKeys {
		lines = make(map[string]int, len(n.Content)/2)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], p.node(n.Content[i+1], 0)
		n.Content[i], n.Content[i+1] = nil, nil
		first, twice := lineOfKey(key.Value, out.Entries, lines)
		switch {
		case p.decorated(key):
		case key.Kind != yaml.ScalarNode:
			p.report.Errorf(p.place(key), "a key is a word, not a list or a mapping; write it as text")
		case key.Tag == "!!merge":
			p.report.Errorf(p.place(key), "<< merges keys from elsewhere; write the keys themselves")
		case twice:
			p.report.Errorf(p.place(key), "key %q was given in line %d already; keep one of them", key.Value, first)
		default:
			if lines != nil {
				lines[key.Value] = key.Line
			}
			out.Entries = append(out.Entries, Entry{Key: key.Value, Place: p.place(key), Value: value})
		}
	}
}

// fewKeys is how many keys are looked through as fast as a map finds one.
const fewKeys = 8

// lineOfKey finds where a mapping has a key already: in lines, or where that is
// nil among its entries.
func lineOfKey(key string, entries []Entry, lines map[string]int) (line int, found bool) {
	if lines != nil {
		line, found = lines[key]
		return line, found
	}
	for i := range entries {
		if entries[i].Key == key {
			return entries[i].Place.Pos.Line, true
		}
	}
	return 0, false
}

// scalar finds the kind of a scalar, and whether it stands in the file as its
// value reads, so that a caret can point into it.
func (p *parser) scalar(n *yaml.Node, out *Node) {
	out.Text, out.Kind = n.Value, Text
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
	block := n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
	if !quoted && !block {
		switch n.Tag {
		case "!!null":
			out.Kind = Null
		case "!!int", "!!float":
			out.Kind = Number
		case "!!bool":
			out.Kind = Bool
		}
	}
	lines := p.report.lines[p.file]
	if n.Line < 1 || n.Line > len(lines) || block {
		out.LastLine = n.Line + strings.Count(n.Value, "\n") + 1
		return
	}
	from := n.Column - 1
	if quoted {
		from++
	}
	if rest, ok := p.skip(lines, n.Line, from); ok && len(rest) >= len(n.Value) && string(rest[:len(n.Value)]) == n.Value {
		out.exact, out.quoted = true, quoted
		return
	}
	// Spread over several lines or written with escapes: nobody tells where
	// it ends, so take it to reach as far as it could.
	out.LastLine = min(len(lines), n.Line+strings.Count(n.Value, "\n")+strings.Count(n.Value, " ")+1)
}

// skip gives what stands behind the first characters of a line, beginning where
// the last value of that line stood.
func (p *parser) skip(lines [][]byte, line, runes int) (rest []byte, ok bool) {
	if p.reach.line != line || p.reach.runes > runes {
		p.reach = reach{line: line, rest: lines[line-1]}
	}
	rest, ok = skipRunes(p.reach.rest, runes-p.reach.runes)
	if ok {
		p.reach.runes, p.reach.rest = runes, rest
	}
	return rest, ok
}

// skipRunes gives the text behind its first n characters; ok is false if it has
// fewer.
func skipRunes(text []byte, n int) (rest []byte, ok bool) {
	for ; n > 0 && len(text) > 0; n-- {
		_, size := utf8.DecodeRune(text)
		text = text[size:]
	}
	return text, n == 0
}

// checkEnd refuses a file whose last line may have been cut in the middle of a
// value: a name, a prefix or a date without its end means something else.
// After a closing quote or bracket nothing can be missing from the value.
func (p *parser) checkEnd(root *yaml.Node) {
	last := root
	for len(last.Content) > 0 && last.Style&yaml.FlowStyle == 0 {
		last = last.Content[len(last.Content)-1]
	}
	plain := last.Kind == yaml.ScalarNode && last.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0
	if !plain || last.Value == "" || bytes.HasSuffix(p.text, []byte("\n")) {
		return
	}
	end := p.text[bytes.LastIndexByte(p.text, '\n')+1:]
	if trimmed := bytes.TrimSpace(end); len(trimmed) == 0 || trimmed[0] == '#' {
		return
	}
	at := Pos{File: p.file, Line: bytes.Count(p.text, []byte("\n")) + 1, Col: utf8.RuneCount(end) + 1}
	p.report.Errorf(Place{Pos: at}, "the file ends in the middle of a line and may have been cut off; end the last line with a newline")
}

// lineOf reads the line number out of an error of yaml.v3, 0 if it has none.
func lineOf(text string) int {
	_, rest, ok := strings.Cut(text, "line ")
	if !ok {
		return 0
	}
	digits, _, _ := strings.Cut(rest, ":")
	line, _ := strconv.Atoi(digits)
	return line
}
