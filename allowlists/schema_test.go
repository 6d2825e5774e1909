package allowlists_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"sallyport/allowlists"
)

// keysTable is the table of docs/configuration.md.
func keysTable() string {
	var out strings.Builder
	out.WriteString("| key | type | unit | default | effect | what it is |\n|---|---|---|---|---|---|\n")
	for _, k := range allowlists.Keys() {
		when, value := "reload", ""
		if k.Restart {
			when = "restart"
		}
		if k.Default != "" {
			value = "`" + k.Default + "`"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s | %s |\n", k.Path, k.Type, k.Unit, value, when, strings.ReplaceAll(k.Doc, "|", `\|`))
	}
	return out.String()
}

// The document has the keys that the program has; -update writes them.
func TestConfigurationIsDocumented(t *testing.T) {
	const path, begin, end = "../docs/configuration.md", "<!-- keys: begin -->\n", "<!-- keys: end -->"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(text), begin)
	_, tail, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s lacks its marks", path)
	}
	golden(t, path, head+begin+keysTable()+end+tail)
}

// Each row of the schema says what it is about.
func TestSchemaIsWhole(t *testing.T) {
	seen := make(map[string]bool)
	for _, k := range allowlists.Keys() {
		if k.Doc == "" || k.Type == "" || strings.HasSuffix(k.Doc, ".") || seen[k.Path] {
			t.Errorf("%+v", k)
		}
		seen[k.Path] = true
	}
}
