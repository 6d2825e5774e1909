package allowlists

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/allowlists/diag"
)

// An Amendment is what is to be added to the lists of one pool.
type Amendment struct {
	Pool           string
	Presets, Allow []Line
}

// A Line is one to be added to a list. Text and Note are one line each, and
// whoever makes them vouches for what is in them.
type Line struct {
	Text   string // the item, as YAML
	Note   string // the comment behind it; "" for none
	Review bool   // commented out, for a person to decide
}

// An Amended is a file of a configuration with lines added. Everything else in
// it stands as it stood.
type Amended struct {
	Name     string
	Old, New []byte
	edits    []edit
}

// An edit puts lines in place of others.
type edit struct {
	line int // the first of them, from 1; what is added comes before it if drop is 0
	drop int
	add  []string
	key  bool // it begins with a key, so that items of a list before it come first
}

// order puts edits of one place in order: what goes on with a list, a new key,
// what stands on the line itself.
func (e *edit) order() int {
	switch {
	case e.drop > 0:
		return 2
	case e.key:
		return 1
	default:
		return 0
	}
}

// errNoAmend says that a file is written in a way that lines cannot be put into.
var errNoAmend = errors.New("its lists are written in a way that lines cannot be added to; write each item on a line of its own")

// errNoLine says that what is to be added is not one line of printable ASCII.
var errNoLine = errors.New("what is to be added is no plain line")

// Amend adds to the pools of a configuration, which has no error. It gives the
// files that change. The error says which pool cannot be amended; then nothing
// of any is given.
func Amend(sources []Source, amendments []Amendment) ([]Amended, error) {
	files := make([]*amendFile, len(sources))
	for i, s := range sources {
		report := new(diag.Report)
		f := &amendFile{Amended: Amended{Name: s.Name, Old: s.Text}, lines: strings.SplitAfter(string(s.Text), "\n"), root: diag.Parse(s.Name, s.Text, report)}
		if f.root == nil || report.Failed() {
			return nil, fmt.Errorf("%s does not read", s.Name)
		}
		files[i] = f
	}
	for _, a := range amendments {
		for _, list := range []struct {
			key   string
			lines []Line
		}{{"presets", a.Presets}, {"allow", a.Allow}} {
			if err := amendPool(files, a.Pool, list.key, list.lines); err != nil {
				return nil, fmt.Errorf("pool %q: %w", a.Pool, err)
			}
		}
	}
	var amended []Amended
	for _, f := range files {
		if len(f.edits) == 0 {
			continue
		}
		if err := f.apply(); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		amended = append(amended, f.Amended)
	}
	return amended, nil
}

// amendPool adds lines to one list of a pool, in the file that has the list,
// else in the first that has the pool.
func amendPool(files []*amendFile, pool, key string, lines []Line) error {
	if len(lines) == 0 {
		return nil
	}
	for _, l := range lines {
		if strings.ContainsFunc(l.Text+l.Note, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			return errNoLine
		}
	}
	var home *amendFile
	for _, f := range files {
		node := f.pool(pool)
		switch {
		case node == nil:
		case node.Get(key) != nil:
			return f.add(node, key, lines)
		case home == nil:
			home = f
		}
	}
	if home == nil {
		return errors.New("no file has it")
	}
	return home.add(home.pool(pool), key, lines)
}

// withKey are the lines of a list with its key. Where nothing is to be added but
// comments there is no key.
func withKey(key string, column int, lines []Line) []string {
	if !slices.ContainsFunc(lines, func(l Line) bool { return !l.Review }) {
		return listItems(column, lines)
	}
	return append([]string{strings.Repeat(" ", column) + key + ":"}, listItems(column+2, lines)...)
}

// listItems are the lines of a list at a column.
func listItems(column int, lines []Line) []string {
	var out []string
	review := false
	for _, l := range lines {
		text := strings.Repeat(" ", column)
		if l.Review {
			if !review {
				review = true
				out = append(out, text+reviewHead)
			}
			text += "# "
		}
		text += "- " + l.Text
		if l.Note != "" {
			text += "  # " + l.Note
		}
		out = append(out, text)
	}
	return out
}
