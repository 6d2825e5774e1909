package allowlists

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"sallyport/allowlists/diag"
)

// addPresets adds the rules of the presets that a pool names.
func (l *loader) addPresets(v values, spec *PoolSpec, places *poolPlaces) {
	nodes, _ := v["pools.*.presets"].value.(*diag.Node)
	if nodes == nil {
		return
	}
	for _, item := range nodes.Items {
		var use presetUse
		switch item.Kind {
		case diag.Text:
			use = presetUse{name: item.Text, at: item.Place}
		case diag.Map:
			var ok bool
			if use, ok = l.presetMapping(item, spec.Name); !ok {
				continue
			}
		case diag.Bad:
			continue
		default:
			l.report.Errorf(item.Place, "a preset is %s; it takes a name such as npm, or a mapping with preset", item.Kind)
			continue
		}
		lists, ok := l.presetOnce(use)
		if !ok {
			continue
		}
		from := len(spec.Allow)
		spec.Presets = append(spec.Presets, use.name)
		spec.Allow = append(spec.Allow, lists.allow...)
		spec.Quiet = append(spec.Quiet, lists.quiet...)
		for i := range spec.Allow[from:] {
			rule := &spec.Allow[from+i]
			rule.ResolvesTo = slices.Concat(rule.ResolvesTo, use.resolvesTo, spec.ResolvesTo)
		}
		places.presets = append(places.presets, use.at)
		places.presetRules = append(places.presetRules, slices.Concat(spec.Allow[from:], lists.quiet))
	}
}

// presetLists are the rules of a preset. Nobody may change them.
type presetLists struct{ allow, quiet []Rule }

// presetOnce is presetRules, with presets kept that have no parameters: many
// pools name the same.
func (l *loader) presetOnce(use presetUse) (presetLists, bool) {
	if lists, known := l.plainPresets[use.name]; known && len(use.params) == 0 {
		return lists, true
	}
	warned, failed := len(l.report.Warnings()), l.report.Count()
	allow, quiet, ok := l.presetRules(use)
	lists := presetLists{allow, quiet}
	if ok && len(use.params) == 0 && len(l.report.Warnings()) == warned && l.report.Count() == failed {
		l.plainPresets[use.name] = lists
	}
	return lists, ok
}

// A presetUse is one entry of a pool's presets.
type presetUse struct {
	name       string
	at         diag.Place
	resolvesTo []netip.Prefix
	params     []diag.Entry // what the file gives for the preset's parameters
}

// presetMapping reads the mapping form. Keys other than its own are
// parameters, held against the preset later.
func (l *loader) presetMapping(n *diag.Node, pool string) (presetUse, bool) {
	own := &diag.Node{Place: n.Place, Kind: diag.Map}
	use := presetUse{at: n.Place}
	for _, e := range n.Entries {
		if e.Key == "preset" || e.Key == "resolves_to" {
			own.Entries = append(own.Entries, e)
		} else {
			use.params = append(use.params, e)
		}
	}
	v := make(values)
	l.keys(own, "pools.*.presets[]", fmt.Sprintf("a preset of pool %q", pool), v)
	name := v["pools.*.presets[].preset"]
	if name.node == nil {
		l.report.Errorf(n.Place, "an entry of presets has no preset; write {preset: NAME}")
		return use, false
	}
	use.name, _ = name.value.(string)
	use.at = name.at()
	use.resolvesTo = get[[]netip.Prefix](v, "pools.*.presets[].resolves_to")
	return use, name.value != nil
}

// presetRules reads the rules of a preset. What is wrong with the preset's own
// text is reported at its place there.
func (l *loader) presetRules(use presetUse) (allow, quiet []Rule, ok bool) {
	text, found := l.preset(use.name)
	if !found {
		l.report.Errorf(use.at, "%q is no preset; %s", short(use.name), meantPreset(use.name, l.presetNames))
		return nil, nil, false
	}
	file := "preset:" + use.name
	if !l.presetVariables(use, text) {
		return nil, nil, false
	}
	inner := &loader{report: l.report, schema: presetSchema(), env: l.env, now: l.now}
	root := diag.Parse(file, text, l.report)
	if root == nil {
		return nil, nil, false
	}
	inner.expand(root)
	v := make(values)
	inner.section(root, "", file, v)
	params, ok := l.params(use, get[[]string](v, "params"))
	if !ok {
		return nil, nil, false
	}
	leftOut := 0
	read := func(key, list string) []Rule {
		nodes, _ := v[key].value.(*diag.Node)
		if nodes == nil {
			return nil
		}
		r := ruleReader{loader: inner, path: key + "[]", list: list, where: "a host of " + file}
		var rules []Rule
		for _, item := range nodes.Items {
			if !fillTemplate(item, params) {
				leftOut++
				continue
			}
			if rule, fine := r.rule(item); fine {
				rule.Preset = use.name
				rules = append(rules, rule)
			}
		}
		return rules
	}
	allow, quiet = read("hosts", "allow"), read("quiet", "quiet")
	if wanted := get[[]string](v, "params"); leftOut > 0 {
		l.report.Warnf(use.at, "%d of its hosts left out: %s", leftOut, needs(use.name, wanted))
	}
	return allow, quiet, true
}

// presetVariables reports whether the environment has what the text of a preset
// takes from it, as kubernetes-api does the address of the API server.
func (l *loader) presetVariables(use presetUse, text []byte) bool {
	for _, m := range variable.FindAllSubmatch(text, -1) {
		name := string(m[1])
		if _, set := l.variable(name); name != "" && !set {
			l.report.Errorf(use.at, "preset %q takes %s from the environment, where it is not set; set it, or leave the preset out", use.name, name)
			return false
		}
	}
	return true
}

// meantPreset is the mend for an unknown preset.
func meantPreset(wrong string, known []string) string {
	if near := diag.Nearest(wrong, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return `"sallyport presets" lists them`
}

// presetParam is what may stand for a parameter: one label of a host name.
var presetParam = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// params holds the parameters that the file gives against those that the
// preset has.
func (l *loader) params(use presetUse, wanted []string) (map[string]string, bool) {
	params, fine := make(map[string]string), true
	for _, e := range use.params {
		switch {
		case !slices.Contains(wanted, e.Key):
			l.report.Errorf(e.Place, "unknown key %q in preset %q; %s", short(e.Key), use.name, meant(e.Key, slices.Concat([]string{"preset", "resolves_to"}, wanted), "keys"))
			fine = false
		case e.Value.Kind != diag.Text && e.Value.Kind != diag.Number || !presetParam.MatchString(e.Value.Text):
			l.report.Errorf(e.Value.Place, "%s takes one label of a host name; write letters, digits and hyphens in lower case", e.Key)
			fine = false
		}
		params[e.Key] = e.Value.Text
	}
	if len(params) == 0 {
		return params, fine // the entries that need one are left out, with a warning
	}
	for _, name := range wanted {
		if _, given := params[name]; !given {
			l.report.Errorf(use.at, "%s", needs(use.name, wanted))
			return nil, false
		}
	}
	return params, fine
}

// needs says which parameters a preset has.
func needs(preset string, wanted []string) string {
	return fmt.Sprintf("preset %q needs %s; write {preset: %s, %s}", preset, listed(wanted), preset, strings.Join(wanted, ": ..., ")+": ...")
}

// fillTemplate puts the parameters into the host of one entry. It gives false
// if the entry needs one that is not there.
func fillTemplate(n *diag.Node, params map[string]string) bool {
	if n.Kind == diag.Map {
		n = n.Get("host")
	}
	if n == nil || n.Kind != diag.Text {
		return true
	}
	for name, value := range params {
		n.Text = strings.ReplaceAll(n.Text, "{"+name+"}", value)
	}
	return len(params) > 0 || !strings.Contains(n.Text, "{")
}
