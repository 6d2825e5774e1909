package diag_test

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sallyport/allowlists/diag"
)

// sameWithRuns holds a text that is read by its runs, however short, against the
// same that yaml.v3 reads line by line: every value at its place, every problem.
func sameWithRuns(t *testing.T, text string) {
	t.Helper()
	var wantReport, gotReport diag.Report
	want := diag.ParseRuns("f", []byte(text), &wantReport, math.MaxInt)
	got := diag.ParseRuns("f", []byte(text), &gotReport, 2)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q: read by its runs it is\n%s\nwithout them\n%s", text, written(got), written(want))
	}
	var wantText, gotText strings.Builder
	wantReport.WriteErrors(&wantText)
	gotReport.WriteErrors(&gotText)
	if gotText.String() != wantText.String() {
		t.Errorf("%q: the problems are\n%s\nand not\n%s", text, gotText.String(), wantText.String())
	}
}

// written writes the texts of a tree.
func written(n *diag.Node) string {
	if n == nil {
		return "nothing"
	}
	text := n.Kind.String() + " " + n.Text + " " + n.Pos.String()
	for _, item := range n.Items {
		text += ", " + written(item)
	}
	for _, e := range n.Entries {
		text += ", " + e.Key + ": " + written(e.Value)
	}
	return "(" + text + ")"
}

const threeItems = "  - a.example\n  - \"*.b.example:443\"\n  - C.example:80\n"

// runTexts are texts where lines look like a run: some are, and some are parts
// of something else.
var runTexts = []string{
	"k:\n" + threeItems,
	"k:\n" + threeItems + "  - last.example\n",
	strings.ReplaceAll("k:\n"+threeItems, "  - ", "- "),
	threeItems,
	"- " + threeItems[2:] + threeItems,
	"-\n" + threeItems + "-\n" + threeItems,
	"k:\n" + threeItems + "l:\n" + threeItems + "m: 1\n",
	"k:\n" + threeItems + "  - {host: d.example}\n" + threeItems + "  # words\n" + threeItems,
	"k: # words\n  # more\n" + threeItems + "# at the end\n",
	"k:\n" + threeItems + "\n\n" + threeItems,
	"k: |\n" + threeItems + "l: 1\n",
	"k: >-\n" + threeItems,
	"k: \"\n" + threeItems + "\"\n",
	"k: '\n" + threeItems + "'\nl:\n" + threeItems,
	"k: words\n" + threeItems,
	"k: [\n" + threeItems + "]\n",
	"k: {\n" + threeItems + "}\n",
	"k: &a\n" + threeItems + "l:\n" + threeItems,
	"k: !t\n" + threeItems + "l:\n" + threeItems,
	"k:\n" + threeItems + "k:\n" + threeItems,
	"k:\n" + threeItems + "---\nk:\n" + threeItems,
	"k:\n" + threeItems + "   - deeper.example\n",
	"k:\n" + threeItems + "    and on\n",
	"k:\n" + threeItems + " - less.example\n",
	"k:\n" + threeItems + "\t- tab.example\n",
	"k:\n" + threeItems + "  - *star\n",
	"k:\n" + threeItems + "  - cut.exam",
	"k:\n" + threeItems + "  - a.example\r\n" + threeItems,
	"k:\n  - true\n  - yes\n  - 1.5\n  - y.n\n  - n.y\n  - t.f\n  - \"true\"\n  - \"1.5\"\n  - \"1\"\n",
	"k:\n  - a.b\n  - true\n  - null\n  - y\n  - a.b\n",
	"k:\n  - a.b\n  - a.b:\n  - a.b\n",
	"k: &a\n  l:\n" + threeItems + "m:\n" + threeItems,
	"k:\n  - a.b:\n  - a.b:\n  - a.b:\n",
	"k:\n  -  a.b\n  -  a.b\n  -  a.b\n  - a.b \n  - a.b \n  - a.b \n",
	"k:\n  - - a.b\n    - a.b\n    - a.b\n  - a.b\n  - a.b\n  - a.b\n",
	"? \n" + threeItems + ":\n" + threeItems,
	"é:\n" + threeItems,
}

func TestRuns(t *testing.T) {
	for _, text := range runTexts {
		sameWithRuns(t, text)
	}
	paths, _ := filepath.Glob("../testdata/*/*.yaml")
	if len(paths) == 0 {
		t.Error("there are no other texts")
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sameWithRuns(t, string(text))
	}
}

func FuzzRuns(f *testing.F) {
	for _, text := range runTexts {
		f.Add(text)
	}
	f.Fuzz(sameWithRuns)
}
