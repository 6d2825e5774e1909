package presets_test

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/publicsuffix"
	"gopkg.in/yaml.v3"

	"sallyport/allowlists/presets"
)

// A list is the text of one preset. Its form is what docs/presets.md says; the
// loader of package allowlists reads it more strictly still.
type list struct {
	Name, Description string
	Params            []string
	Hosts             []entry
	Quiet             []string
	Downloads         []download
}

// A download is a file that jobs take from a host of the list.
type download struct{ URL, Source, Verified string }

// An entry is one line of a list: a pattern, perhaps with ports, and who says so.
type entry struct {
	Host, Source, Verified, TLS, Reason string
	CIDR                                string // instead of Host
	Ports                               []string
	Writable, Anyone                    bool
	DNSTypes                            []string `yaml:"dns_types"`
	ResolvesTo                          []string `yaml:"resolves_to"`
}

// pattern is the entry's host without its ports.
func (e entry) pattern() string {
	host, _, _ := strings.Cut(e.Host, ":")
	return host
}

// ports are the entry's ports as written, 443 where none are.
func (e entry) ports() []string {
	if len(e.Ports) > 0 {
		return e.Ports
	}
	if _, ports, found := strings.Cut(e.Host, ":"); found {
		return strings.Split(ports, ",")
	}
	return []string{"443"}
}

// read decodes one preset and fails the test on a key that is not of the form.
func read(t *testing.T, name string) list {
	t.Helper()
	text, ok := presets.Get(name)
	if !ok {
		t.Fatalf("no preset %s", name)
	}
	var l list
	decode(t, name, text, &l)
	return l
}

// decode reads a file, and fails the test on a key that is not of its form.
func decode(t *testing.T, name string, text []byte, into any) {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// each runs a check for every entry of every preset.
func each(t *testing.T, check func(t *testing.T, preset string, e entry)) {
	t.Helper()
	for _, name := range presets.Names() {
		for _, e := range read(t, name).Hosts {
			check(t, name, e)
		}
	}
}

func TestNamesAreSortedAndEachHasAText(t *testing.T) {
	names := presets.Names()
	if !slices.IsSorted(names) || len(names) == 0 {
		t.Errorf("names: %v", names)
	}
	for _, absent := range []string{"", "nosuch", "../presets", "npm.yaml", "lists/npm"} {
		if _, ok := presets.Get(absent); ok {
			t.Errorf("there is a preset %q", absent)
		}
	}
	for _, name := range names {
		l := read(t, name)
		if l.Name != name || !strings.HasSuffix(l.Description, ".") || len(l.Hosts)+len(l.Quiet) == 0 {
			t.Errorf("%s: name %q, description %q, %d hosts", name, l.Name, l.Description, len(l.Hosts))
		}
		if strings.HasPrefix(name, "quiet-") != (len(l.Hosts) == 0) || strings.HasPrefix(name, "quiet-") != (len(l.Quiet) > 0) {
			t.Errorf("%s: a preset either allows hosts or keeps noise quiet, and is named for it", name)
		}
	}
}

func TestEveryLineHasASourceAndADate(t *testing.T) {
	sourced := func(t *testing.T, preset, what, source, verified string) {
		t.Helper()
		if source == "" || strings.Contains(source, "://") || strings.HasPrefix(source, "/") {
			t.Errorf("%s: the source of %s is %q; name a public document", preset, what, source)
		}
		if _, err := time.Parse(time.DateOnly, verified); err != nil && verified != "unverified" {
			t.Errorf("%s: %s is verified %q; write a day such as 2026-10-01, or unverified", preset, what, verified)
		}
		if strings.HasPrefix(source, "general knowledge") && verified != "unverified" {
			t.Errorf("%s: %s is general knowledge and cannot have been verified against it", preset, what)
		}
	}
	each(t, func(t *testing.T, preset string, e entry) { sourced(t, preset, e.Host, e.Source, e.Verified) })
	for _, name := range presets.Names() {
		for _, d := range read(t, name).Downloads {
			sourced(t, name, d.URL, d.Source, d.Verified)
		}
	}
}

func TestNoLineIsThereTwice(t *testing.T) {
	for _, name := range presets.Names() {
		l, seen := read(t, name), make(map[string]bool)
		for _, e := range l.Hosts {
			for _, port := range e.ports() {
				if key := e.pattern() + e.CIDR + ":" + port; seen[key] {
					t.Errorf("%s: %s is there twice", name, key)
				} else {
					seen[key] = true
				}
			}
		}
		if sorted := slices.Sorted(slices.Values(l.Quiet)); len(slices.Compact(sorted)) != len(l.Quiet) {
			t.Errorf("%s: a quiet host is there twice", name)
		}
	}
}

// label is one label of a host name with at most one wildcard, or a parameter.
var label = regexp.MustCompile(`^(\*|[a-z0-9-]*\*?[a-z0-9-]*)$`)

// fromEnvironment is a value that is a variable of the environment.
var fromEnvironment = regexp.MustCompile(`^\$\{[A-Z_]+\}$`)

// template is a parameter in a host.
var template = regexp.MustCompile(`\{([a-z]+)\}`)

func TestPatternsAreNarrow(t *testing.T) {
	each(t, func(t *testing.T, preset string, e entry) {
		if e.CIDR != "" {
			if e.Host != "" || !fromEnvironment.MatchString(e.CIDR) {
				t.Errorf("%s: addresses change hands; name a host, or take %q from the environment", preset, e.CIDR)
			}
			return
		}
		first, rest, _ := strings.Cut(template.ReplaceAllString(e.pattern(), "x"), ".")
		for i, l := range append([]string{first}, strings.Split(rest, ".")...) {
			if l == "" || !label.MatchString(l) || i > 0 && strings.Contains(l, "*") {
				t.Errorf("%s: %s is no pattern", preset, e.Host)
			}
		}
		if !strings.Contains(first, "*") {
			return
		}
		if suffix, _ := publicsuffix.PublicSuffix(rest); suffix == rest {
			t.Errorf("%s: %s stands over a public suffix", preset, e.Host)
		}
		if e.Anyone {
			t.Errorf("%s: %s needs anyone; name the hosts instead", preset, e.Host)
		}
	})
}

func TestPortsAreNumbersAndTLSIsOffOnlyWhereSSHAnswersOn443(t *testing.T) {
	each(t, func(t *testing.T, preset string, e entry) {
		for _, text := range e.ports() {
			if fromEnvironment.MatchString(text) {
				continue
			}
			if port, err := strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
				t.Errorf("%s: port %q of %s", preset, text, e.Host)
			}
		}
		ssh := strings.HasSuffix(e.Host, ":443") && (strings.HasPrefix(e.Host, "ssh.") || strings.HasPrefix(e.Host, "altssh."))
		if (e.TLS == "off") != ssh || e.TLS != "" && e.TLS != "off" {
			t.Errorf("%s: tls of %s is %q", preset, e.Host, e.TLS)
		}
	})
}

func TestEveryParameterIsDeclaredAndUsed(t *testing.T) {
	for _, name := range presets.Names() {
		l, used := read(t, name), make(map[string]bool)
		for _, e := range l.Hosts {
			for _, m := range template.FindAllStringSubmatch(e.Host, -1) {
				used[m[1]] = true
			}
		}
		for _, p := range l.Params {
			if !used[p] {
				t.Errorf("%s: no host has {%s}", name, p)
			}
			delete(used, p)
		}
		for p := range used {
			t.Errorf("%s: {%s} is no parameter", name, p)
		}
	}
}
