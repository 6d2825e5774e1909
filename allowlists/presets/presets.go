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

// quiet holds the built-in quiet list, one file an operating system.
//
//go:embed quiet/*.yaml
var quiet embed.FS

// Get gives the text of a preset; docs/presets.md describes its form.
func Get(name string) ([]byte, bool) {
	text, err := lists.ReadFile("lists/" + name + ".yaml")
	return text, err == nil
}

// Quiet gives one part of the built-in quiet list, in the form of a preset: what
// machines with an operating system ask for by themselves.
func Quiet(system string) ([]byte, bool) {
	text, err := quiet.ReadFile("quiet/" + system + ".yaml")
	return text, err == nil
}

// QuietSystems are the operating systems that Quiet knows, sorted.
func QuietSystems() []string { return names(quiet, "quiet") }

// Names lists the presets, sorted.
func Names() []string { return names(lists, "lists") }

// names are those of the files in an embedded directory, sorted.
func names(files embed.FS, dir string) []string {
	entries, err := files.ReadDir(dir)
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
