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
