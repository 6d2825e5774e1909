package allowlists_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"sallyport/allowlists"
)

// The embedded configuration and the documented sample load with the built-in
// presets.
func TestBuiltInPresetsLoad(t *testing.T) {
	f, report := allowlists.Load(allowlists.Embedded(), testEnv, today)
	if f == nil || len(f.Spec.Pools[0].Allow) < 10 {
		t.Fatal(report.Err())
	}
	text, err := os.ReadFile("testdata/ok/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Also without the parameters of a preset that has some.
	bare := regexp.MustCompile(`, region: [^,]*, account: [^,]*`).ReplaceAllString(string(text), "")
	if bare == string(text) {
		t.Fatal("the sample has changed")
	}
	for _, sample := range []string{string(text), bare} {
		f, report := allowlists.Load([]allowlists.Source{{Name: "sallyport.yaml", Text: []byte(sample)}}, testEnv, today)
		if f == nil {
			var out strings.Builder
			report.WriteErrors(&out)
			t.Error(out.String())
		}
	}
}
