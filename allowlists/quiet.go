package allowlists

import (
	"strings"
	"sync"
	"time"

	"sallyport/allowlists/diag"
	"sallyport/allowlists/presets"
)

// quietFile begins the file of a line of the built-in quiet list, before the
// operating system: "quiet:ubuntu:12" is where such a rule stands.
const quietFile = "quiet:"

// builtinQuiet is what machines ask for by themselves, whatever job they run:
// exact names whose owner is the maker of the system. Refused, they raise no
// denied-egress. It is the same for every pool.
var builtinQuiet = sync.OnceValue(func() *index {
	var rules []Rule
	for _, system := range presets.QuietSystems() {
		rules = append(rules, quietRules(system)...)
	}
	return newIndex(rules)
})

// quietRules reads one file of the built-in list, which is a preset in form. One
// that does not read is a mistake of this build.
func quietRules(system string) []Rule {
	report := &diag.Report{}
	l := &loader{
		report: report, env: func(string) (string, bool) { return "", false }, now: time.Time{},
		preset: presets.Quiet, presetNames: presets.QuietSystems(),
	}
	_, rules, ok := l.presetRules(presetUse{name: system})
	if !ok || len(report.Errors()) > 0 {
		panic("allowlists: the built-in quiet list of " + system + " does not read")
	}
	for i := range rules {
		rules[i].Pos.File, rules[i].Preset = quietFile+system, ""
	}
	return rules
}

// BuiltinQuiet tells where in the built-in quiet list a rule stands, as
// "ubuntu:12"; ok is false for any other rule, and for nil.
func (r *Rule) BuiltinQuiet() (where string, ok bool) { return strings.CutPrefix(r.Where(), quietFile) }
