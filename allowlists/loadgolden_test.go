package allowlists_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/allowlists"
	"sallyport/allowlists/diag"
)

var update = flag.Bool("update", false, "write the .out files of testdata anew")

// golden compares text with a file, or writes it there.
func golden(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", path, text, want)
	}
}

// loadFile loads a file of testdata under its base name.
func loadFile(t *testing.T, path string) (*allowlists.File, *diag.Report) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return allowlists.LoadWith([]allowlists.Source{{Name: filepath.Base(path), Text: text}}, testEnv, today, testPresets, map[string]string{})
}

// Each CASE.yaml must not load, and CASE.out is what is said about it. A case
// is added with two files; -update writes the second.
func TestErrorsReadAsWritten(t *testing.T) {
	cases, err := filepath.Glob("testdata/err/*.yaml")
	if err != nil || len(cases) < 60 {
		t.Fatalf("%d cases, want at least 60 (%v)", len(cases), err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			f, report := loadFile(t, path)
			var out strings.Builder
			if err := report.WriteErrors(&out); err != nil {
				t.Fatal(err)
			}
			if f != nil || !report.Failed() {
				t.Error("it loads")
			}
			if strings.Contains(out.String(), "canary") {
				t.Error("a secret is shown")
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".out", out.String())
		})
	}
}
