package allowlists

import (
	"sync"
	"time"

	"sallyport/allowlists/presets"
)

// PresetRules gives the allow rules of every built-in preset, whether a pool
// uses it or not, but those that need a parameter. They are read once and
// shared: nobody may change them. Safe for concurrent use.
var PresetRules = sync.OnceValue(func() []Rule {
	var rules []Rule
	for _, name := range presets.Names() {
		l := newLoader(func(string) (string, bool) { return "", false }, time.Now())
		allow, _, _ := l.presetRules(presetUse{name: name})
		rules = append(rules, allow...)
	}
	return rules
})

// A PresetList is a built-in preset that can be used as it is: it has no
// parameter, and takes nothing from the environment.
type PresetList struct {
	Name  string
	Allow []Rule
}

// PresetLists gives those presets, sorted by name. They are read once and
// shared: nobody may change them. Safe for concurrent use.
var PresetLists = sync.OnceValue(func() []PresetList {
	var lists []PresetList
	for _, name := range presets.Names() {
		l := newLoader(func(string) (string, bool) { return "", false }, time.Now())
		allow, _, ok := l.presetRules(presetUse{name: name})
		if ok && len(allow) > 0 && !l.report.Failed() && len(l.report.Warnings()) == 0 {
			lists = append(lists, PresetList{name, allow})
		}
	}
	return lists
})
