// Package importers turns the allowlists of other tools into pools of ours. It
// guesses nothing: what our language cannot say is left out, commented out with
// its cause, and nothing becomes wider than it was unless the caller asks for
// that. What each format means is in docs/import.md.
package importers

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sallyport/allowlists"
	"sallyport/allowlists/diag"
)

// MaxBytes bounds what is imported at once.
const MaxBytes = 16 << 20

// maxTree bounds a source in YAML or JSON, which takes some hundred times its
// size while it is read.
const maxTree = 1 << 20

// maxPools bounds the pools of a result.
const maxPools = 1000

// maxRules bounds the entries of a result; our own loader is made for as many.
const maxRules = 100_000

// Options say how to import. The zero Options change nothing that can be kept.
type Options struct {
	// Pool names the pool, or begins the names of several. "" is "imported".
	Pool string
	// Ports are those of rules that the source opens on every port: "443",
	// "80,443". "" leaves every port.
	Ports string
	// Wider takes the narrowest rule of ours that covers one which cannot be
	// said exactly, instead of leaving it out.
	Wider bool
}

// An Effect is what a rule of ours is beside the one it was made from.
type Effect string

// The effects.
const (
	Same     Effect = "same"     // written otherwise, and means the same
	Narrower Effect = "narrower" // allows less than the source did
	Wider    Effect = "wider"    // allows more; only where Options ask for it
	LeftOut  Effect = "left out" // cannot be said, at least in part
)

// A Note is what a person should know of a rule. It is one line of printable
// ASCII.
type Note struct {
	Effect Effect `json:"effect"`
	About  string `json:"about"` // "ports", "apex", "wildcard", ...
	Text   string `json:"text"`
}

// An Entry is one rule of the source and what became of it.
type Entry struct {
	Line    int      `json:"line,omitempty"` // in the source, from 1; 0 if it has none
	Source  string   `json:"source"`         // the rule as it stands there, cut and made printable
	Rules   []string `json:"rules"`          // of ours, as YAML
	Offered []string `json:"offered,omitempty"`
	Notes   []Note   `json:"notes,omitempty"`
}

// A Pool is what one list of the source became.
type Pool struct {
	Name    string   `json:"pool"`
	Mode    string   `json:"mode"`
	Notes   []Note   `json:"notes,omitempty"`
	Sources []string `json:"sources,omitempty"` // clients that the source named
	Presets []*Entry `json:"presets,omitempty"`
	Allow   []*Entry `json:"allow"`
	Deny    []*Entry `json:"deny,omitempty"`
}

// A Result is an import. YAML loads without an error.
type Result struct {
	Format  string `json:"format"`
	Pools   []Pool `json:"pools"`
	LeftOut int    `json:"left_out"` // rules and settings of which something is lacking
	YAML    string `json:"yaml"`
}

// A reader fills a draft from the text of one format.
type reader func(d *draft, text []byte) error

// readers are the formats.
var readers = map[string]reader{
	"harden-runner": readHardenRunner,
	"smokescreen":   readSmokescreen,
	"cargowall":     readCargowall,
	"squid":         readSquid,
	"gh-aw":         readAgenticWorkflow,
	"iron-proxy":    readIronProxy,
}

// Formats names what can be imported, sorted.
func Formats() []string { return slices.Sorted(maps.Keys(readers)) }

// A SourceError holds what is wrong with the source. Its report has the places.
type SourceError struct{ Report *diag.Report }

func (e *SourceError) Error() string { return e.Report.Err().Error() }

// errTooLarge says that the source goes beyond a bound.
var errTooLarge = errors.New("the file is too large; 16 MiB (of YAML and JSON 1 MiB), 1,000 pools and 100,000 rules are read")

// Import reads the text of a file in a format that Formats names. The error is
// a *SourceError where places can be told.
func Import(format, file string, text []byte, options Options) (*Result, error) {
	read, known := readers[format]
	if !known {
		return nil, fmt.Errorf("no format %q; formats are %v", format, Formats())
	}
	if len(text) > MaxBytes {
		return nil, errTooLarge
	}
	d, err := newDraft(file, options)
	if err != nil {
		return nil, err
	}
	if err := read(d, text); err != nil {
		return nil, err
	}
	switch {
	case d.err != nil:
		return nil, d.err
	case d.full():
		return nil, errTooLarge
	}
	result := d.result(format)
	result.YAML = render(format, file, result.Pools)
	noEnvironment := func(string) (string, bool) { return "", false }
	if _, report := allowlists.Load([]allowlists.Source{{Name: "import", Text: []byte(result.YAML)}}, noEnvironment, time.Now()); report.Failed() {
		return nil, fmt.Errorf("what came of it does not load, which is a fault of the importer: %w", report.Err())
	}
	return result, nil
}

// parse reads a YAML source.
func (d *draft) parse(text []byte) (*diag.Node, error) {
	if len(text) > maxTree {
		return nil, errTooLarge
	}
	report := new(diag.Report)
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(slices.Clone(text), '\n') // only our own loader holds that against a file
	}
	root := diag.Parse(d.file, text, report)
	if report.Failed() {
		return nil, &SourceError{report}
	}
	return root, nil
}

// fault makes the error of one place of the source.
func fault(at diag.Place, format string, args ...any) error {
	report := new(diag.Report)
	report.Errorf(at, format, args...)
	return &SourceError{report}
}
