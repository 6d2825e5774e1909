package allowlists

import (
	"maps"
	"slices"
	"time"

	"sallyport/allowlists/diag"
)

// LoadWith is Load with presets and secret files of the test's own.
func LoadWith(sources []Source, env func(string) (string, bool), now time.Time, presets, files map[string]string) (*File, *diag.Report) {
	l := newLoader(env, now)
	l.preset = func(name string) ([]byte, bool) { text, ok := presets[name]; return []byte(text), ok }
	l.presetNames = slices.Sorted(maps.Keys(presets))
	if files != nil {
		l.readFile = func(path string) ([]byte, error) {
			if text, ok := files[path]; ok {
				return []byte(text), nil
			}
			return readSecretFile("/nonexistent")
		}
	}
	return l.load(sources), l.report
}

// CheckDefaults gives the keys whose default does not parse.
func CheckDefaults() (broken []string) {
	for _, s := range []*schema{configSchema(), presetSchema()} {
		for i := range s.rows {
			if k := &s.rows[i]; k.hasDefault() && s.defaults[k.path] == nil {
				broken = append(broken, k.path)
			}
		}
	}
	return broken
}

// WritableHosts are the hosts that lint takes as writable.
func WritableHosts() []Rule {
	l := newLoader(nil, time.Now())
	lint := ruleLint{loader: l, own: make([]Rule, 1)}
	return lint.writableHosts()
}
