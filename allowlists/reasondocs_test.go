package allowlists_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sallyport/allowlists"
)

// TestReasonsAreDocumented holds docs/reasons.md against the closed set: one
// section each, in order, with the status that a refusal has.
func TestReasonsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(text), "\n## ")[1:]
	reasons := allowlists.Reasons()
	if len(sections) != len(reasons) {
		t.Fatalf("%d sections for %d reasons", len(sections), len(reasons))
	}
	status := regexp.MustCompile(`\b[45]\d\d\b`)
	for i, r := range reasons {
		name, body, _ := strings.Cut(sections[i], "\n")
		if name != r.String() {
			t.Errorf("section %d is %s, want %s", i, name, r)
		}
		row := strings.Split(body, "\n")[3]
		if want := r.Status(); want != 0 && !strings.Contains(row, strconv.Itoa(want)) || want == 0 && status.MatchString(row) {
			t.Errorf("%s: the row is %q, the status %d", name, row, want)
		}
		if !strings.Contains(body, "**What to do:**") {
			t.Errorf("%s does not say what to do", name)
		}
		if back, ok := allowlists.ParseReason(name); !ok || back != r {
			t.Errorf("ParseReason(%q) = %v", name, back)
		}
	}
}
