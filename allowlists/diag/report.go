package diag

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// A Place is a position, and the column in its line that a caret points to,
// which may be a part of what stands there. A zero Caret means the position's
// own column.
type Place struct {
	Pos   Pos
	Caret int
}

// A Problem is one thing wrong, or doubtful, in a file. Text is a finished
// sentence: what is wrong; how to mend it.
type Problem struct {
	Place
	Text string
}

// String gives "file:line:col: text" without the source line.
func (p Problem) String() string {
	switch {
	case p.Pos.File == "":
		return p.Text
	case p.Pos.Line == 0:
		return p.Pos.File + ": " + p.Text
	default:
		return fmt.Sprintf("%s:%d:%d: %s", p.Pos.File, p.Pos.Line, p.Pos.Col, p.Text)
	}
}

// A Report gathers the problems of a set of files: errors, which make the set
// unusable, and warnings, which do not. It is not safe for concurrent use. The
// zero Report is ready.
type Report struct {
	errors   []Problem
	warnings []Problem
	lines    map[string][][]byte // source lines by file, for the snippets
	hidden   map[string]map[int]bool
}

// AddSource gives the report a file's text, to show lines from.
func (r *Report) AddSource(file string, text []byte) {
	if r.lines == nil {
		r.lines = make(map[string][][]byte)
	}
	r.lines[file] = bytes.Split(text, []byte("\n"))
}

// Hide keeps the lines from first to last of a file out of every snippet, as
// they hold a secret.
func (r *Report) Hide(file string, first, last int) {
	if r.hidden == nil {
		r.hidden = make(map[string]map[int]bool)
	}
	if r.hidden[file] == nil {
		r.hidden[file] = make(map[int]bool)
	}
	for line := first; line <= last; line++ {
		r.hidden[file][line] = true
	}
}

// Errorf adds an error.
func (r *Report) Errorf(at Place, format string, args ...any) {
	r.errors = append(r.errors, Problem{at, fmt.Sprintf(format, args...)})
}

// Warnf adds a warning.
func (r *Report) Warnf(at Place, format string, args ...any) {
	r.warnings = append(r.warnings, Problem{at, fmt.Sprintf(format, args...)})
}

// Failed reports whether there is an error.
func (r *Report) Failed() bool { return len(r.errors) > 0 }

// Count is the number of errors.
func (r *Report) Count() int { return len(r.errors) }

// Errors gives the errors in the order of files, lines and columns.
func (r *Report) Errors() []Problem { return sorted(r.errors) }

// Warnings gives the warnings in the order of files, lines and columns.
func (r *Report) Warnings() []Problem { return sorted(r.warnings) }

// Err sums the errors up in one line, for a log; nil without errors.
func (r *Report) Err() error {
	switch all := r.Errors(); len(all) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s", all[0])
	default:
		return fmt.Errorf("%s (and %d more)", all[0], len(all)-1)
	}
}

// sorted gives the problems in order, each once.
func sorted(problems []Problem) []Problem {
	all := slices.Clone(problems)
	slices.SortStableFunc(all, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.Pos.File, b.Pos.File),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.column(), b.column()),
			cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(all)
}

// column is where the caret goes.
func (p Place) column() int { return cmp.Or(p.Caret, p.Pos.Col) }

// WriteErrors prints the errors, each with its source line and a caret.
func (r *Report) WriteErrors(w io.Writer) error { return r.write(w, r.Errors(), "") }

// WriteWarnings prints the warnings in the same way.
func (r *Report) WriteWarnings(w io.Writer) error { return r.write(w, r.Warnings(), "warning: ") }

func (r *Report) write(w io.Writer, problems []Problem, label string) error {
	var out strings.Builder
	for _, p := range problems {
		text := p.Text
		p.Text = label + text
		out.WriteString(printable(p.String()) + "\n")
		out.WriteString(r.snippet(p.Place))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// maxSnippet is how many characters of a source line are shown.
const maxSnippet = 160

// snippet gives the source line with a caret below, or "" where there is none
// to show.
func (r *Report) snippet(at Place) string {
	lines := r.lines[at.Pos.File]
	if at.Pos.Line < 1 || at.Pos.Line > len(lines) || r.hidden[at.Pos.File][at.Pos.Line] {
		return ""
	}
	line := []rune(strings.TrimRight(strings.ToValidUTF8(string(lines[at.Pos.Line-1]), "\uFFFD"), "\r"))
	column := min(max(at.column(), 1), len(line)+1)
	if from := column - maxSnippet; from > 0 {
		line, column = line[from:], maxSnippet
	}
	if len(line) > maxSnippet {
		line = line[:maxSnippet]
	}
	var pad strings.Builder
	for _, c := range line[:min(column-1, len(line))] {
		pad.WriteString(blank(c))
	}
	return fmt.Sprintf("%5d | %s\n      | %s^\n", at.Pos.Line, printable(string(line)), pad.String())
}

// blank is as wide as a terminal shows a character of a snippet.
func blank(c rune) string {
	switch {
	case c == '\t':
		return "\t"
	case unicode.In(c, unicode.Mn, unicode.Me):
		return ""
	case unicode.Is(wide, c):
		return "  "
	default:
		return " "
	}
}

// wide are the characters that take two columns, to a good part: Unicode
// Standard Annex 11, East Asian Width, F and W.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1}, // Hangul letters that begin a syllable
		{Lo: 0x2e80, Hi: 0x303e, Stride: 1}, // radicals, punctuation
		{Lo: 0x3041, Hi: 0xa4cf, Stride: 1}, // Kana, Han, Yi
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1}, // Hangul syllables
		{Lo: 0xf900, Hi: 0xfaff, Stride: 1}, // Han for compatibility
		{Lo: 0xfe30, Hi: 0xfe6f, Stride: 1}, // forms for compatibility
		{Lo: 0xff01, Hi: 0xff60, Stride: 1}, // fullwidth
		{Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x1f300, Hi: 0x1f64f, Stride: 1}, // pictures
		{Lo: 0x1f900, Hi: 0x1f9ff, Stride: 1},
		{Lo: 0x20000, Hi: 0x3fffd, Stride: 1}, // more Han
	},
}

// printable replaces what could steer a terminal.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c == '\t' || c == ' ' || unicode.IsGraphic(c) && !unicode.Is(unicode.Zl, c) && !unicode.Is(unicode.Zp, c) {
			return c
		}
		return '\uFFFD'
	}, text)
}
