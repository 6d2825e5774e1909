package allowlists

import (
	"strings"
	"sync"

	"sallyport/allowlists/diag"
)

// A key is one row of the schema: everything that is known about one key of
// the configuration file. Unknown-key detection, types, defaults, what
// "check --defaults" prints and docs/configuration.md all come from the rows.
type key struct {
	// path names the key from the root: "dns.max_ttl". A * stands for a name
	// of the user's, [] for each item of a list.
	path string
	kind *kind
	// def is the default as YAML text; "" for a key that must be given or
	// that stands for nothing by itself.
	def string
	// doc is one sentence, without its full stop.
	doc string
	// unit says in what a whole number counts; "" is a mere count.
	unit string
	// words are the legal values of a wordKind; an alias follows the word
	// it stands for as "alias=word".
	words []string
	// least and most bound a number, a size in bytes or a duration in
	// nanoseconds; most 0 means the kind's own bound.
	least, most int64
	restart     bool // takes effect at a restart, not at a reload
}

// A kind is a type of value: its name in the documents, and how a value is
// read. parse adds what is wrong to the loader's report and then gives false.
type kind struct {
	name  string
	parse func(l *loader, k *key, n *diag.Node) (any, bool)
}

// name is the last word of the path.
func (k *key) name() string { return k.path[strings.LastIndexByte(k.path, '.')+1:] }

// parent is the path without its last word, "" at the root.
func (k *key) parent() string { return k.path[:max(strings.LastIndexByte(k.path, '.'), 0)] }

// schema is the table, looked up by path and by parent.
type schema struct {
	rows   []key
	byPath map[string]*key
	below  map[string][]string // names of the keys below a parent, in order
	// defaults are the parsed defaults by path, shared by all who load: nobody
	// may change them.
	defaults map[string]any
}

func newSchema(rows []key) *schema {
	s := &schema{rows: rows, byPath: make(map[string]*key), below: make(map[string][]string), defaults: make(map[string]any)}
	for i := range rows {
		k := &rows[i]
		s.byPath[k.path] = k
		s.below[k.parent()] = append(s.below[k.parent()], k.name())
	}
	s.parseDefaults()
	return s
}

// configSchema is the schema of configuration files, presetSchema that of the
// built-in presets. Both are made once and only read.
var (
	configSchema = sync.OnceValue(func() *schema { return newSchema(configKeys()) })
	presetSchema = sync.OnceValue(func() *schema { return newSchema(presetKeys()) })
)

// elsewhere finds the parent under which a key of that name stands, for a key
// that was indented wrongly; "" if there is none, or more than one.
func (s *schema) elsewhere(name string) string {
	found := ""
	for i := range s.rows {
		k := &s.rows[i]
		if k.name() != name || strings.Contains(k.parent(), "*") {
			continue
		}
		if found != "" {
			return ""
		}
		found = k.parent()
	}
	return found
}

// A KeyDoc is one row of the schema, for documents.
type KeyDoc struct {
	Path    string // "pools.*.allow[].host"
	Type    string
	Unit    string // "" where the type has none
	Default string // as YAML text; "" for none
	Doc     string
	Restart bool // takes effect at a restart, not at a reload
}

// Keys lists every key of the configuration file, in the order of the documents.
func Keys() []KeyDoc {
	rows := configSchema().rows
	docs := make([]KeyDoc, len(rows))
	for i, k := range rows {
		docs[i] = KeyDoc{Path: k.path, Type: k.typeText(), Unit: k.unitText(), Default: k.def, Doc: k.doc, Restart: k.restart}
	}
	return docs
}

// unitText says in what a number counts.
func (k *key) unitText() string {
	switch k.kind {
	case durationKind:
		return "ms, s, m, h, d"
	case sizeKind:
		return "bytes, or kB, MB, KiB, MiB, ..."
	case countKind:
		return orElse(k.unit, "count")
	default:
		return ""
	}
}

// typeText names the kind, with the legal words.
func (k *key) typeText() string {
	if len(k.words) == 0 {
		return k.kind.name
	}
	var plain, aliases []string
	for _, w := range k.words {
		if alias, word, ok := strings.Cut(w, "="); ok {
			aliases = append(aliases, alias+" is "+word)
		} else {
			plain = append(plain, w)
		}
	}
	text := strings.Join(plain, ", ")
	if len(aliases) > 0 {
		text += " (" + strings.Join(aliases, ", ") + ")"
	}
	return text
}
