package allowlists

import (
	_ "embed"
	"fmt"
	"os"
	"time"

	"sallyport/allowlists/diag"
	"sallyport/allowlists/presets"
)

// A File is a configuration that was loaded without an error.
type File struct {
	Settings Settings
	Policy   *Policy
	// Spec is what Policy was made from. Nobody may change it.
	Spec PolicySpec
	// Search are the suffixes of dns.search that the file names itself.
	Search []Host

	restart map[string]string     // values of the keys that need a restart, by path
	given   map[string]diag.Place // where the keys outside of pools stand
	places  map[string]poolPlaces
}

// Place is where the file gives a key outside of pools, such as "log.events";
// the zero Place if it does not.
func (f *File) Place(path string) diag.Place { return f.given[path] }

// SourcePlace is where a source of a pool stands, by its index in the spec.
func (f *File) SourcePlace(pool string, i int) diag.Place {
	places := f.places[pool]
	return places.at("sources", i)
}

// A loader reads one configuration. It is used once, by one goroutine.
type loader struct {
	report *diag.Report
	schema *schema
	env    func(string) (string, bool)
	now    time.Time
	// rest lets other work of this process go on; nil if there is none.
	rest func()
	// readFile reads secret files.
	readFile func(string) ([]byte, error)
	// preset finds a built-in preset.
	preset func(string) ([]byte, bool)
	// presetNames lists the built-in presets, for did-you-mean.
	presetNames []string

	settings Settings
	spec     PolicySpec
	search   []Host
	restart  map[string]string
	// expiryWarning is the threshold of that name.
	expiryWarning time.Duration
	// writable are the hosts that any preset marks so; nil until first needed.
	writable []Rule
	// routePools are the pool names in Slack routes, to be checked at the end.
	routePools []*diag.Node
	// listeners are the addresses that something is to be bound to.
	listeners map[string]listener
	// places are where the parts of pools stand, for lint.
	places map[string]poolPlaces
	// plainPresets are presets that were read without anything given to them.
	plainPresets map[string]presetLists
}

// Load turns configuration text into settings and a policy. env looks a
// variable of the environment up, for ${NAME}; now is the day that rules
// expire by. Secrets that the text names a file for are read here. The report
// holds every error and warning; after an error the File is nil, so that
// nothing of a broken configuration applies.
func Load(sources []Source, env func(string) (string, bool), now time.Time) (*File, *diag.Report) {
	return LoadGently(sources, env, now, nil)
}

// LoadGently is Load for a process that serves meanwhile: it calls rest after
// each few lines and rules, which may sleep; nil is not called.
func LoadGently(sources []Source, env func(string) (string, bool), now time.Time, rest func()) (*File, *diag.Report) {
	l := newLoader(env, now)
	l.rest = rest
	return l.load(sources), l.report
}

// newLoader makes a loader that draws on this machine.
func newLoader(env func(string) (string, bool), now time.Time) *loader {
	return &loader{
		report: new(diag.Report), schema: configSchema(), env: env, now: now, readFile: readSecretFile,
		preset: presets.Get, presetNames: presets.Names(),
		restart: make(map[string]string), listeners: make(map[string]listener), places: make(map[string]poolPlaces),
		plainPresets: make(map[string]presetLists),
	}
}

// load is Load with everything it draws on in place.
func (l *loader) load(sources []Source) *File {
	root := l.parse(sources)
	if root == nil {
		return nil
	}
	l.hideSecrets(root)
	l.expand(root)
	all := make(values)
	if root.Kind != diag.Map {
		l.report.Errorf(root.Place, "the file is %s; it takes a mapping of keys such as pools", root.Kind)
		return nil
	}
	l.section(root, "", "", all)
	l.fillSettings(all)
	l.fillPools(all)
	l.checkDefaultPool(all)
	if l.report.Failed() {
		return nil
	}
	l.lint(root, all)
	policy, err := newPolicy(l.spec, l.pause)
	if err != nil {
		l.report.Errorf(root.Place, "%s", err)
		return nil
	}
	return &File{
		Settings: l.settings, Policy: policy, Spec: l.spec, Search: l.search,
		restart: l.restart, given: all.places(), places: l.places,
	}
}

// pause rests where there is other work.
func (l *loader) pause() {
	if l.rest != nil {
		l.rest()
	}
}

// parse reads every source and merges their keys; nil after a syntax error.
func (l *loader) parse(sources []Source) *diag.Node {
	var root *diag.Node
	broken := false
	for _, s := range sources {
		node := diag.ParseGently(s.Name, s.Text, l.report, l.rest)
		switch {
		case node == nil:
			broken = true
		case root == nil:
			root = node
		case root.Kind == diag.Map && node.Kind == diag.Map:
			root.Merge(node, l.report)
		default:
			l.report.Errorf(node.Place, "the file is %s; it takes a mapping of keys such as pools", node.Kind)
		}
	}
	switch {
	case broken:
		return nil
	case root == nil:
		return &diag.Node{Kind: diag.Map}
	default:
		return root
	}
}

// checkDefaultPool holds default_pool against the pools there are.
func (l *loader) checkDefaultPool(all values) {
	name := get[string](all, "default_pool")
	l.spec.DefaultPool = name
	if name == "" {
		return
	}
	var names []string
	for _, p := range l.spec.Pools {
		if p.Name == name {
			return
		}
		names = append(names, p.Name)
	}
	l.report.Errorf(all["default_pool"].at(), "default_pool %q is no pool; %s", name, meant(name, names, "pools"))
}

// meant is the mend for a word that is none of the known ones.
func meant(wrong string, known []string, what string) string {
	if near := diag.Nearest(wrong, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return "there are no " + what + " here"
	}
	return "known " + what + " are " + listed(known)
}

// embedded is the configuration that serves without -c.
//
//go:embed embedded.yaml
var embeddedText []byte

// EmbeddedName is what positions in the embedded configuration show as file.
const EmbeddedName = "embedded.yaml"

// Embedded is the configuration that serves without -c: loopback clients as
// pool "default".
func Embedded() []Source {
	return []Source{{Name: EmbeddedName, Text: embeddedText}}
}

// maxSecretBytes bounds a file that holds a secret.
const maxSecretBytes = 64 << 10

// readSecretFile reads a file that holds a secret.
func readSecretFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, maxSecretBytes)
}
