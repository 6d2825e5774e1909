// Package presets holds the built-in allowlists: for each forge, registry and
// cloud one YAML file of hosts, every line with its source and the day somebody
// held it against that source.
package presets

import (
	"embed"
	"slices"
	"strings"
)

//go:embed lists/*.yaml
var lists embed.FS

// Get gives the text of a preset; docs/presets.md describes its form.
func Get(name string) ([]byte, bool) {
	text, err := lists.ReadFile("lists/" + name + ".yaml")
	return text, err == nil
}

// Names lists the presets, sorted.
func Names() []string {
	entries, err := lists.ReadDir("lists")
	if err != nil {
		panic("presets: the embedded directory is gone: " + err.Error())
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}
