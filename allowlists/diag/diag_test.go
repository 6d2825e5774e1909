package diag_test

import (
	"fmt"
	"strings"
	"testing"

	"sallyport/allowlists/diag"
)

func TestNearest(t *testing.T) {
	known := []string{"limits", "listen", "log", "pools", "presets", "ports"}
	for wrong, want := range map[string]string{
		"limts": "limits", "limist": "limits", "Listen": "listen", "pool": "pools", "prots": "ports", "lgo": "log",
		"everything": "", "x": "", "": "", strings.Repeat("pools", 100): "",
	} {
		if got := diag.Nearest(wrong, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", wrong, got, want)
		}
	}
}

// A caret stands under the fault, whatever stands before it.
func TestSnippets(t *testing.T) {
	long := strings.Repeat("x", 500)
	for _, c := range []struct{ what, line, want string }{
		{"letters of other scripts count once", "ключ: BAD", "    1 | ключ: BAD\n      |       ^\n"},
		{"wide characters take two columns", "鍵: 한글ｆ😀 BAD", "    1 | 鍵: 한글ｆ😀 BAD\n      |              ^\n"},
		{"halfwidth ones take one", "ｶ: BAD", "    1 | ｶ: BAD\n      |    ^\n"},
		{"accents of their own take none", "e\u0301: BAD", "    1 | e\u0301: BAD\n      |    ^\n"},
		{"tabs stay tabs", "a:\t BAD", "    1 | a:\t BAD\n      |   \t ^\n"},
		{"what steers a terminal is replaced", "\x1b[31m BAD", "    1 | \uFFFD[31m BAD\n      |       ^\n"},
		{"broken UTF-8 is replaced", "a\xff BAD", "    1 | a\uFFFD BAD\n      |    ^\n"},
		{"U+2028 ends no line", "a\u2028 BAD", "    1 | a\uFFFD BAD\n      |    ^\n"},
		{"a long line is cut", long + "BAD" + long, "    1 | " + strings.Repeat("x", 159) + "B\n      | " + strings.Repeat(" ", 159) + "^\n"},
	} {
		var r diag.Report
		r.AddSource("f", []byte(c.line+"\n"))
		col := len([]rune(strings.ToValidUTF8(c.line[:strings.Index(c.line, "BAD")], "?"))) + 1
		r.Errorf(diag.Place{Pos: diag.Pos{File: "f", Line: 1, Col: col}}, "bad")
		var out strings.Builder
		if err := r.WriteErrors(&out); err != nil {
			t.Fatal(err)
		}
		if _, got, _ := strings.Cut(out.String(), ": bad\n"); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.what, got, c.want)
		}
	}
}

// Problems come in the order of the files, each once, errors and warnings apart.
func TestReportOrder(t *testing.T) {
	var r diag.Report
	at := func(file string, line, col int) diag.Place {
		return diag.Place{Pos: diag.Pos{File: file, Line: line, Col: col}}
	}
	r.Errorf(at("b", 1, 1), "four")
	r.Errorf(at("a", 10, 1), "three")
	r.Errorf(at("a", 9, 7), "two")
	r.Errorf(at("a", 9, 2), "one")
	r.Errorf(at("a", 9, 2), "one")
	r.Warnf(at("a", 1, 1), "five")
	var errors, warnings strings.Builder
	r.WriteErrors(&errors)
	r.WriteWarnings(&warnings)
	if want := "a:9:2: one\na:9:7: two\na:10:1: three\nb:1:1: four\n"; errors.String() != want {
		t.Errorf("%s", errors.String())
	}
	if want := "a:1:1: warning: five\n"; warnings.String() != want {
		t.Errorf("%s", warnings.String())
	}
	if want := "a:9:2: one (and 3 more)"; r.Err().Error() != want {
		t.Errorf("%s", r.Err())
	}
}

// What a variable or a quote hides does not move the caret to a wrong place.
func TestCaretIntoValues(t *testing.T) {
	for text, want := range map[string]int{
		"k: abc:99\n": 8, `k: "abc:99"` + "\n": 9, "k: 'abc:99'\n": 9, `k: "ab\u0063:99"` + "\n": 4, "k: >\n  abc:99\n": 4, "- abc:99\n": 7, "-   abc:99\n": 9,
		`- "abc:99"` + "\n": 8, "\ufeffk: abc:99\n": 8, "{k: abc:99}\n": 9, "k:\tabc:99\n": 8, "{鍵: 1, k: 'abc:99'}\n": 16, "k:\n  abc:99\r\n": 7,
	} {
		var r diag.Report
		root := diag.Parse("f", []byte(text), &r)
		if root == nil || r.Failed() {
			t.Fatalf("%q: %v", text, r.Err())
		}
		n := root.Get("k")
		if root.Kind == diag.List {
			n = root.Items[0]
			if n.Pos.Col != 1 {
				t.Errorf("%q: an item stands at column %d, not at its dash", text, n.Pos.Col)
			}
		}
		if got := n.At(4).Caret; got != want {
			t.Errorf("%q: column %d, want %d", text, got, want)
		}
	}
}

// TestPlaces finds every key and value where it begins, and whole values of
// block lists at their dash: line:column, and the caret's column where that is
// another.
func TestPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"bad: 1\n":                     "1:1",
		"x: {a: 1,bad: 2}\n":           "1:10",
		`x: {"a": 1, "bad": 2}` + "\n": "1:13",
		"x: [{a: 1, bad: 2}]\n":        "1:12",
		"x: [bad: 1]\n":                "1:5",
		"- a: 1\n  bad: 2\n":           "2:3",
		"- {bad: 1}\n":                 "1:4",
		"x: {a:\t1,\tbad: 2}\n":        "1:11",
		"鍵: {é: 1, bad: 2}\n":          "1:11",
		"\ufeffbad: 1\n":               "1:1",
		"? bad\n: 1\n":                 "1:3",
		"x: bad\n":                     "1:4",
		"x: \"bad\"\n":                 "1:4",
		"x: 'bad'\n":                   "1:4",
		"x: [a, \"bad\"]\n":            "1:8",
		"- bad\n":                      "1:1^3",
		"x:\n  -   \"bad\"\n":          "2:3^7",
		"- - bad\n":                    "1:3^5",
		"-\n  bad\n":                   "2:3",
		"x:\n  - # none\n    'bad'\n":  "3:5",
		"x: \"a\n  b\"\nbad: 1\n":      "3:1",
		"a: 1\r\nbad: 2\r\n":           "2:1",
	} {
		var r diag.Report
		root := diag.Parse("f", []byte(text), &r)
		if root == nil || r.Failed() {
			t.Errorf("%q: %v", text, r.Err())
			continue
		}
		at := findBad(root)
		got := fmt.Sprintf("%d:%d", at.Pos.Line, at.Pos.Col)
		if at.Caret != at.Pos.Col {
			got += fmt.Sprintf("^%d", at.Caret)
		}
		if got != want {
			t.Errorf("%q: the place is %s, want %s", text, got, want)
		}
	}
}

// findBad is the place of the key or value that is "bad".
func findBad(n *diag.Node) diag.Place {
	if n.Text == "bad" {
		return n.Place
	}
	for _, item := range n.Items {
		if at := findBad(item); at.Pos.Line > 0 {
			return at
		}
	}
	for _, e := range n.Entries {
		if e.Key == "bad" {
			return e.Place
		}
		if at := findBad(e.Value); at.Pos.Line > 0 {
			return at
		}
	}
	return diag.Place{}
}

// TestOddLineBreaks: no file is read whose lines have other numbers for YAML
// than for whoever edits it.
func TestOddLineBreaks(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1\rb: 2\n": "f:1:5", "a: 1\r\nb: 2 # é\r": "f:2:9", "a: \"\u2028\"\n": "f:1:5", "a: 1\nb: 1\u2029": "f:2:5", "é: 1\u0085b: 2\n": "f:1:5",
		"a: 1\r\nb: 2\r\n": "", "a: 1\n\n": "",
	} {
		var r diag.Report
		if root := diag.Parse("f", []byte(text), &r); (root == nil) != (want != "") {
			t.Errorf("%q was read: %t", text, root != nil)
		}
		if err := r.Err(); want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want+": a line ends with a character")) {
			t.Errorf("%q: %v, want one at %q", text, err, want)
		}
	}
}

func TestHiddenLines(t *testing.T) {
	var r diag.Report
	r.AddSource("f", []byte("one\ncanary\nthree\n"))
	r.Hide("f", 2, 2)
	for line := 1; line <= 3; line++ {
		r.Errorf(diag.Place{Pos: diag.Pos{File: "f", Line: line, Col: 1}}, "bad")
	}
	var out strings.Builder
	r.WriteErrors(&out)
	if strings.Contains(out.String(), "canary") || !strings.Contains(out.String(), "one") || !strings.Contains(out.String(), "three") {
		t.Error(out.String())
	}
}

// TestALongLine: each of very many values of one line is found where it stands,
// without going through the line for each.
func TestALongLine(t *testing.T) {
	const n = 100_000
	text := "é: [" + strings.Repeat("\"ü\", b, ", n) + "last]\n"
	root := diag.Parse("f", []byte(text), new(diag.Report))
	list := root.Get("é")
	if len(list.Items) != 2*n+1 {
		t.Fatalf("%d items", len(list.Items))
	}
	for i, want := range map[int]int{0: 5, 1: 10, 2: 13, 2*n - 2: 8*(n-1) + 5, 2 * n: 8*n + 5} {
		if got := list.Items[i].Caret; got != want {
			t.Errorf("item %d: caret at %d, not %d", i, got, want)
		}
	}
}
