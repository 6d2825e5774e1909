package allowlists

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"sallyport/allowlists/diag"
)

// apply makes the new text, and holds it against the old one: the same but for
// what was added.
func (f *amendFile) apply() error {
	slices.SortStableFunc(f.edits, func(a, b edit) int { return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.order(), b.order())) })
	if strings.HasSuffix(f.lines[0], "\r\n") {
		for _, e := range f.edits {
			for i := range e.add {
				e.add[i] += "\r"
			}
		}
	}
	var b bytes.Buffer
	next := 1
	for _, e := range f.edits {
		b.WriteString(strings.Join(f.lines[next-1:min(e.line-1, len(f.lines))], ""))
		if n := b.Len(); n > 0 && b.Bytes()[n-1] != '\n' {
			b.WriteByte('\n')
		}
		for _, line := range e.add {
			b.WriteString(line + "\n")
		}
		next = e.line + e.drop
	}
	if next <= len(f.lines) {
		b.WriteString(strings.Join(f.lines[next-1:], ""))
	}
	f.New = b.Bytes()
	report := new(diag.Report)
	root := diag.Parse(f.Name, f.New, report)
	if root == nil || report.Failed() || !extends(f.root, root, "") {
		return errNoAmend
	}
	return nil
}

// extends reports whether a file says what it said, but for items at the end of
// the lists that are amended.
func extends(old, now *diag.Node, path string) bool {
	switch {
	case old.Kind == diag.Map && now.Kind == diag.Map:
		for _, e := range now.Entries {
			value, below := old.Get(e.Key), path+"/"+e.Key
			if value == nil && amends(below) && e.Value.Kind == diag.List {
				continue
			}
			if value == nil || !extends(value, e.Value, below) {
				return false
			}
		}
		return !slices.ContainsFunc(old.Entries, func(e diag.Entry) bool { return now.Get(e.Key) == nil })
	case old.Kind == diag.List && now.Kind == diag.List:
		if len(now.Items) < len(old.Items) || len(now.Items) > len(old.Items) && !amends(path) {
			return false
		}
		for i := range old.Items {
			if !extends(old.Items[i], now.Items[i], path+"/-") {
				return false
			}
		}
		return true
	default:
		return old.Kind == now.Kind && old.Text == now.Text
	}
}

// amends reports whether a path is that of a list which is amended.
func amends(path string) bool {
	parts := strings.Split(path, "/")
	return len(parts) == 4 && parts[1] == "pools" && (parts[3] == "allow" || parts[3] == "presets")
}
