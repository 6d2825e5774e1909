package diag

import "unicode/utf8"

// A Kind is the shape of a Node.
type Kind uint8

// The kinds.
const (
	Null   Kind = iota // nothing, ~ or null
	Text               // quoted, or plain and no other scalar
	Number             // a plain integer or decimal
	Bool               // a plain true or false
	List
	Map
	Bad // an alias or a tagged value, reported already: to be passed over
)

// String names the kind as an error message does.
func (k Kind) String() string {
	return [...]string{"nothing", "text", "a number", "true or false", "a list", "a mapping", "an alias"}[k]
}

// A Node is one value of a file, checked for everything that is the same in
// every file: see Parse.
type Node struct {
	Place
	Kind Kind
	// Expanded is set by who replaced variables in Text.
	Expanded bool
	exact    bool // Text stands in the file byte for byte, from Caret on or behind the quote there
	quoted   bool
	// Text is a scalar's value as written, without quotes.
	Text    string
	Items   []*Node // of a List
	Entries []Entry // of a Map, in the order of the file, each key once
	// LastLine is where the value ends, for hiding it.
	LastLine int
}

// An Entry is one key of a Map and its value.
type Entry struct {
	Key   string
	Place Place // of the key
	Value *Node
}

// At gives the place of the node, the caret moved to the character that begins
// at the given byte of Text where that can be told.
func (n *Node) At(offset int) Place {
	at := n.Place
	if n.exact && !n.Expanded && 0 < offset && offset <= len(n.Text) {
		at.Caret += utf8.RuneCountInString(n.Text[:offset])
		if n.quoted {
			at.Caret++
		}
	}
	return at
}

// Get gives the value of a key, or nil.
func (n *Node) Get(key string) *Node {
	for i := range n.Entries {
		if n.Entries[i].Key == key {
			return n.Entries[i].Value
		}
	}
	return nil
}

// Merge adds the keys of other to n, both Maps, and those of Maps below; a key
// that both give otherwise is an error.
func (n *Node) Merge(other *Node, report *Report) {
	index := make(map[string]int, len(n.Entries))
	for i, e := range n.Entries {
		index[e.Key] = i
	}
	for _, e := range other.Entries {
		i, twice := index[e.Key]
		switch {
		case !twice:
			n.Entries = append(n.Entries, e)
		case n.Entries[i].Value.Kind == Map && e.Value.Kind == Map:
			n.Entries[i].Value.Merge(e.Value, report)
		default:
			report.Errorf(e.Place, "key %q was given at %s already; keep one of them", e.Key, n.Entries[i].Place.Pos)
		}
	}
}
