package allowlists

import (
	"net/url"
	"sync"
	"time"

	"sallyport/allowlists/diag"
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
	// Downloads are URLs of files that a job takes from there. They show where a
	// download is redirected to, and allow nothing.
	Downloads []*url.URL
}

// PresetLists gives those presets, sorted by name. They are read once and
// shared: nobody may change them. Safe for concurrent use.
var PresetLists = sync.OnceValue(func() []PresetList {
	var lists []PresetList
	for _, name := range presets.Names() {
		l := newLoader(func(string) (string, bool) { return "", false }, time.Now())
		allow, _, ok := l.presetRules(presetUse{name: name})
		if ok && len(allow) > 0 && !l.report.Failed() && len(l.report.Warnings()) == 0 {
			lists = append(lists, PresetList{name, allow, l.presetDownloads(name)})
		}
	}
	return lists
})

// presetDownloads reads the downloads of a built-in preset. What is wrong with
// one is reported, and it is left out.
func (l *loader) presetDownloads(name string) []*url.URL {
	text, _ := l.preset(name)
	inner := &loader{report: l.report, schema: presetSchema(), env: l.env, now: l.now}
	file := "preset:" + name
	root := diag.Parse(file, text, l.report)
	if root == nil {
		return nil
	}
	v := make(values)
	inner.section(root, "", file, v)
	nodes, _ := v["downloads"].value.(*diag.Node)
	if nodes == nil {
		return nil
	}
	var downloads []*url.URL
	for _, item := range nodes.Items {
		own := make(values)
		inner.keys(item, "downloads[]", "a download of "+file, own)
		u, err := url.Parse(get[string](own, "downloads[].url"))
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Host != u.Hostname() || u.User != nil {
			l.report.Errorf(item.Place, "a download has no url such as https://github.com/file, without a port or a user")
			continue
		}
		downloads = append(downloads, u)
	}
	return downloads
}
