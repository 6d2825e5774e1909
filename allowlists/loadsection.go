package allowlists

import (
	"slices"
	"strings"

	"sallyport/allowlists/diag"
)

// A setting is one value of a file, or its default.
type setting struct {
	value any
	node  *diag.Node // nil for a default
}

// at is where the value stands; the zero Place for a default.
func (s setting) at() diag.Place {
	if s.node == nil {
		return diag.Place{}
	}
	return s.node.Place
}

// values holds settings by their path in the schema.
type values map[string]setting

// get gives a value, or the zero T where there is none, or a broken one.
func get[T any](v values, path string) T {
	value, _ := v[path].value.(T)
	return value
}

// given reports whether the file itself sets the key.
func (v values) given(path string) bool { return v[path].node != nil }

// places are where the keys stand that the file sets itself.
func (v values) places() map[string]diag.Place {
	places := make(map[string]diag.Place, len(v))
	for path, s := range v {
		if s.node != nil {
			places[path] = s.node.Place
		}
	}
	return places
}

// section reads the keys of a mapping at a path of the schema into out, and
// fills in the defaults of the rest. where names the mapping in messages.
func (l *loader) section(n *diag.Node, path, where string, out values) {
	l.keys(n, path, where, out)
	l.defaults(path, out)
}

// keys is section without the defaults.
func (l *loader) keys(n *diag.Node, path, where string, out values) {
	for _, e := range n.Entries {
		k := l.schema.byPath[join(path, e.Key)]
		if k == nil || strings.ContainsAny(e.Key, "*.[") {
			l.unknownKey(e, path, where)
			continue
		}
		if e.Value.Kind == diag.Bad {
			continue
		}
		if k.kind == sectionKind {
			if e.Value.Kind != diag.Map {
				l.wrongKind(k, e.Value)
				continue
			}
			out[k.path] = setting{node: e.Value}
			l.section(e.Value, k.path, e.Key, out)
			continue
		}
		value, ok := k.kind.parse(l, k, e.Value)
		if !ok {
			value = nil
		}
		out[k.path] = setting{value: value, node: e.Value}
	}
}

// join makes the path of a key below a parent.
func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

// defaults fills in what the file leaves out directly below path, and in
// sections there that it leaves out whole.
func (l *loader) defaults(path string, out values) {
	for _, name := range l.schema.below[path] {
		k := l.schema.byPath[join(path, name)]
		if _, set := out[k.path]; set || name == "*" {
			continue
		}
		if k.kind == sectionKind {
			l.defaults(k.path, out)
			continue
		}
		if value, ok := l.schema.defaults[k.path]; ok {
			out[k.path] = setting{value: value}
		}
	}
}

// parseDefaults parses the defaults of all keys as if a file gave them, in one
// document, as a parser of YAML costs more than what it reads here. That every
// default parses is held by a test.
func (s *schema) parseDefaults() {
	var text strings.Builder
	var keys []*key
	for i := range s.rows {
		if k := &s.rows[i]; k.hasDefault() {
			text.WriteString("- " + k.def + "\n")
			keys = append(keys, k)
		}
	}
	l := &loader{report: new(diag.Report), schema: s}
	list := diag.Parse("", []byte(text.String()), l.report)
	if list == nil || len(list.Items) != len(keys) {
		return
	}
	for i, k := range keys {
		if value, ok := k.kind.parse(l, k, list.Items[i]); ok {
			s.defaults[k.path] = value
		}
	}
}

// hasDefault reports whether the key has a default of its own; that of a secret
// URL is the environment's.
func (k *key) hasDefault() bool { return k.def != "" && k.kind != secretURLKind }

// unknownKey reports a key that is not in the schema.
func (l *loader) unknownKey(e diag.Entry, path, where string) {
	known := slices.DeleteFunc(slices.Clone(l.schema.below[path]), func(name string) bool { return name == "*" })
	in := ""
	if where != "" {
		in = " in " + where
	}
	mend := meant(e.Key, known, "keys")
	if home := l.schema.elsewhere(e.Key); diag.Nearest(e.Key, known) == "" && home != "" && home != path {
		mend = "it belongs under " + home
	}
	l.report.Errorf(e.Place, "unknown key %q%s; %s", short(e.Key), in, mend)
}

// wrongKind reports a value of another shape than the key takes.
func (l *loader) wrongKind(k *key, n *diag.Node) bool {
	if n.Kind == diag.Null {
		l.report.Errorf(n.Place, "%s has no value; it takes %s", k.label(), k.takes())
	} else if n.Kind != diag.Bad {
		l.report.Errorf(n.Place, "%s is %s; it takes %s", k.label(), n.Kind, k.takes())
	}
	return false
}

// label names the key in messages.
func (k *key) label() string { return k.name() }

// takes says what the key takes.
func (k *key) takes() string {
	if len(k.words) == 0 {
		return k.kind.name
	}
	plain := slices.DeleteFunc(slices.Clone(k.words), func(w string) bool { return strings.Contains(w, "=") })
	return strings.Join(plain[:len(plain)-1], ", ") + " or " + plain[len(plain)-1]
}

// maxQuoted is how many characters of a value a message repeats.
const maxQuoted = 80

// short cuts a value for a message.
func short(text string) string {
	if runes := []rune(text); len(runes) > maxQuoted {
		return string(runes[:maxQuoted]) + "..."
	}
	return text
}

// listed joins words for a message: "a, b and c".
func listed(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
