package importers

import (
	"fmt"
	"slices"
	"strings"
)

// maxShown is how much of a rule of the source is shown, in bytes.
const maxShown = 120

// maxNote is how long a note may be, in bytes.
const maxNote = 400

// clean makes one line of printable ASCII, so that nothing that a source says
// can end a comment or steer a terminal.
func clean(text string) string { return printable(text, maxNote) }

// short is clean for what is shown of a source.
func short(text string) string { return printable(strings.TrimSpace(text), maxShown) }

func printable(text string, most int) string {
	var b strings.Builder
	for _, c := range text {
		if b.Len() >= most {
			b.WriteString("...")
			break
		}
		if c < ' ' || c > '~' {
			c = '?'
		}
		b.WriteRune(c)
	}
	return b.String()
}

// render writes pools as a configuration. Only rules of ours stand outside of
// comments: canonical patterns, prefixes and ports, and checked names.
func render(format, file string, pools []Pool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Made by sallyport import %s from %s. Comments say what means something else here.\n", format, short(file))
	b.WriteString("# On port 443 the first bytes must be TLS for the host of the rule; a host in a private network needs resolves_to.\n")
	b.WriteString("pools:\n")
	for i := range pools {
		pools[i].render(&b)
	}
	if len(pools) == 0 {
		b.WriteString("  {}\n")
	}
	return b.String()
}

func (p *Pool) render(b *strings.Builder) {
	fmt.Fprintf(b, "  %s:\n", poolKey(p.Name))
	for _, n := range p.Notes {
		fmt.Fprintf(b, "    # %s\n", n)
	}
	fmt.Fprintf(b, "    mode: %s\n", p.Mode)
	sources := strings.Join(p.Sources, ", ")
	if sources == "" {
		sources = "10.20.0.0/24"
	}
	fmt.Fprintf(b, "    # sources: [%s]  # whose pool it is: the runners\n", clean(sources))
	if len(p.Presets) > 0 {
		renderList(b, "presets", p.Presets)
	}
	renderList(b, "allow", p.Allow)
	if len(p.Deny) > 0 {
		renderList(b, "deny", p.Deny)
	}
}

// yamlWords are texts that YAML takes for something else.
var yamlWords = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}

// poolKey quotes the name of a pool where YAML could take it for something
// else.
func poolKey(name string) string {
	letter := name[0] >= 'a' && name[0] <= 'z' || name[0] >= 'A' && name[0] <= 'Z'
	if letter && !slices.Contains(yamlWords, strings.ToLower(name)) {
		return name
	}
	return `"` + name + `"`
}

// renderList writes one list, empty if it has comments only.
func renderList(b *strings.Builder, key string, entries []*Entry) {
	if slices.ContainsFunc(entries, func(e *Entry) bool { return len(e.Rules) > 0 }) {
		fmt.Fprintf(b, "    %s:\n", key)
	} else {
		fmt.Fprintf(b, "    %s: []\n", key)
	}
	for _, e := range entries {
		e.render(b)
	}
}

func (e *Entry) render(b *strings.Builder) {
	for _, n := range e.Notes {
		where := ""
		if e.Line > 0 {
			where = fmt.Sprintf("line %d, ", e.Line)
		}
		fmt.Fprintf(b, "      # %s%s: %s\n", where, e.Source, n)
	}
	for _, item := range e.Rules {
		fmt.Fprintf(b, "      - %s\n", item)
	}
	for _, item := range e.Offered {
		fmt.Fprintf(b, "      # - %s\n", item)
	}
}

// String is the note as comments have it.
func (n Note) String() string { return fmt.Sprintf("%s (%s): %s", n.Effect, n.About, n.Text) }
