package allowlists_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sallyport/allowlists"
)

// seeds are the texts of testdata.
func seeds(t testing.TB) []string {
	var texts []string
	for _, glob := range []string{"testdata/ok/*.yaml", "testdata/err/*.yaml", "testdata/lint/*.yaml"} {
		paths, _ := filepath.Glob(glob)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(text))
		}
	}
	return texts
}

// FuzzLoad holds two promises over any text: the loader never panics, and what
// loads allows nothing that is not written there.
func FuzzLoad(f *testing.F) {
	for _, text := range seeds(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, report := load(text)
		var out strings.Builder
		report.WriteErrors(&out)
		report.WriteWarnings(&out)
		if (file == nil) != report.Failed() {
			t.Fatalf("file %v, errors %v", file != nil, report.Errors())
		}
		if strings.ContainsAny(out.String(), "\x1b\r\x00") {
			t.Fatalf("problems steer the terminal: %q", out.String())
		}
		if file == nil {
			return
		}
		for _, p := range file.Spec.Pools {
			for _, r := range p.Allow {
				checkWritten(t, text, r)
			}
		}
	})
}

// checkWritten holds one allow rule against the text it came from.
func checkWritten(t *testing.T, text string, r allowlists.Rule) {
	t.Helper()
	if r.Host.IsZero() == !r.Prefix.IsValid() || r.Ports.Empty() {
		t.Fatalf("rule %+v", r)
	}
	if r.Preset != "" {
		if !strings.Contains(text, r.Preset) {
			t.Fatalf("preset %q is not in the text", r.Preset)
		}
		return
	}
	if strings.ContainsAny(text, `\$`) || !isPlainASCII(text) {
		return // written with escapes, variables or in another script
	}
	written := r.Host.Base()
	if r.Prefix.IsValid() {
		return // has many spellings; TestTruncation holds prefixes
	}
	if !strings.Contains(strings.ToLower(text), written) {
		t.Fatalf("%q is allowed, and not in the text", r.Text)
	}
	for _, port := range r.Ports.List() {
		if port != 443 && !strings.Contains(text, fmt.Sprint(port)) {
			t.Fatalf("port %d is allowed, and not in the text", port)
		}
	}
	if r.Ports.All() && !strings.Contains(text, "*") {
		t.Fatal("every port is allowed, and not in the text")
	}
	if icann, _ := r.Host.PublicSuffix(); icann {
		t.Fatalf("%q is allowed over a public suffix", r.Text)
	}
}

func isPlainASCII(text string) bool {
	return strings.IndexFunc(text, func(c rune) bool { return c < ' ' && c != '\n' || c > '~' }) < 0
}

// comment finds the comments of testdata, which only take time.
var comment = regexp.MustCompile(`(?m) +# .*$`)

// A file that was cut off, as one that is being written is, is an error or
// allows no name, port, address, client or special range that the whole does
// not. What stands below the cut restricts nothing, of course: see
// docs/configuration.md on replacing files in one step.
func TestTruncation(t *testing.T) {
	for _, path := range []string{"testdata/ok/full.yaml", "testdata/ok/cut.yaml"} {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := comment.ReplaceAllString(string(raw), "")
		if above, rest, _ := strings.Cut(text, "\npools:"); strings.HasPrefix(above, "listen:") {
			text = "pools:" + rest // what stands above decides nothing
		}
		whole := mustLoad(t, text)
		loaded := 0
		for n := range len(text) {
			cut, _ := load(text[:n])
			if cut == nil {
				continue
			}
			loaded++
			if more := beyond(whole, cut); more != "" {
				t.Fatalf("%s cut at byte %d (...%q) allows more: %s", path, n, text[max(0, n-40):n], more)
			}
		}
		if loaded < 3 {
			t.Errorf("%s: only %d cuts load; the test looks at nothing", path, loaded)
		}
	}
}

// beyond finds something that cut lets through and whole does not, going by
// the rules alone.
func beyond(whole, cut *allowlists.File) string {
	if cut.Spec.DefaultPool != "" && cut.Spec.DefaultPool != whole.Spec.DefaultPool {
		return "default_pool " + cut.Spec.DefaultPool
	}
	for _, p := range cut.Spec.Pools {
		pool := whole.Policy.Pool(p.Name)
		if pool == nil {
			return "pool " + p.Name
		}
		spec := pool.Spec()
		if missing := prefixesBeyond(spec.Sources, p.Sources) + prefixesBeyond(spec.ResolvesTo, p.ResolvesTo); missing != "" {
			return missing
		}
		if p.Mode == allowlists.Audit && spec.Mode == allowlists.Enforce {
			return "audit"
		}
		for _, r := range p.Allow {
			if text := ruleBeyond(spec.Allow, r); text != "" {
				return text
			}
		}
	}
	return ""
}

// ruleBeyond holds a rule against those of the whole file.
func ruleBeyond(all []allowlists.Rule, r allowlists.Rule) string {
	why := fmt.Sprintf("%s is not there", r.Text)
	for _, w := range all {
		if w.Host != r.Host || w.Prefix != r.Prefix {
			continue
		}
		if why = prefixesBeyond(w.ResolvesTo, r.ResolvesTo); why != "" {
			continue
		}
		// A cut before "ports" leaves the default, 443.
		ports := r.Ports.List()
		if r.Ports.All() && !w.Ports.All() {
			why = r.Text + " on every port"
		}
		for _, port := range ports {
			if port != 443 && !w.Ports.Contains(port) {
				why = fmt.Sprintf("%s on port %d", r.Text, port)
			}
		}
		if why == "" {
			return ""
		}
	}
	return why
}

// prefixesBeyond gives a prefix that is in list and not in all.
func prefixesBeyond(all, list []netip.Prefix) string {
	for _, p := range list {
		found := false
		for _, w := range all {
			found = found || w == p
		}
		if !found {
			return p.String()
		}
	}
	return ""
}
