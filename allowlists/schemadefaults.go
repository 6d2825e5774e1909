package allowlists

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// embeddedValues are the values of the embedded configuration that are no
// defaults.
var embeddedValues = map[string]string{
	"pools.*.sources": `[127.0.0.0/8, "::1"]`,
	"pools.*.presets": "[github-actions, npm]",
}

// WriteDefaults prints every key with its default and its sentence, as YAML
// that loads: it is the embedded configuration, written out in full.
func WriteDefaults(w io.Writer) error {
	out := bufio.NewWriter(w)
	writeBelow(out, configSchema(), "", 0)
	return out.Flush()
}

// docColumn is where the sentences begin, if the value leaves room.
const docColumn = 44

// writeBelow prints the keys below a path.
func writeBelow(w io.Writer, s *schema, path string, depth int) {
	indent := strings.Repeat("  ", depth)
	for _, name := range s.below[path] {
		k := s.byPath[join(path, name)]
		value := k.def
		if set, ok := embeddedValues[k.path]; ok {
			value = set
		}
		line := indent + name + ":"
		switch {
		case strings.Contains(value, "${"): // an error where it is written and the variable is not set
			line = indent + "# " + name + ": " + value
		case name == "*":
			line = indent + "default:"
		case value != "":
			line += " " + value
		}
		fmt.Fprintf(w, "%-*s # %s\n", docColumn, line, k.sentence())
		writeBelow(w, s, k.path, depth+1)
		writeItems(w, s, k.path+"[]", indent)
	}
}

// writeItems prints the keys of a list's items as comments.
func writeItems(w io.Writer, s *schema, path, indent string) {
	mark := "- "
	for _, name := range s.below[path] {
		k := s.byPath[join(path, name)]
		line := strings.TrimRight(fmt.Sprintf("%s  # %s%s: %s", indent, mark, name, k.def), " ")
		fmt.Fprintf(w, "%-*s # %s\n", docColumn, line, k.sentence())
		mark = "  "
	}
}

// sentence is the documentation of the key, with the legal words.
func (k *key) sentence() string {
	text := k.doc
	if len(k.words) > 0 {
		text += ": " + k.typeText()
	}
	return text
}
