package diag_test

import (
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
		{"wide characters count once", "ключ: BAD", "    1 | ключ: BAD\n      |       ^\n"},
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
