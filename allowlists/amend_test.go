package allowlists

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAmend: lines are added where a person would write them, and nothing else
// in a file changes.
func TestAmend(t *testing.T) {
	add := []Amendment{{Pool: "build", Presets: []Line{{Text: "go", Note: "3 times"}}, Allow: []Line{{Text: "new.example", Note: "2 times"}, {Text: "once.example", Review: true}}}}
	for _, c := range []struct{ name, old, want string }{
		{"behind the last item, with comments and order kept", `pools:
  # the builders
  build:
    presets:
      - npm # ours
    allow: # what we need
      - z.example
      # mirrors
      - host: a.example # here
        ports: [22, 443]

      # the end
    deny: [x.example]
  other:
    allow: [b.example]
`, `pools:
  # the builders
  build:
    presets:
      - npm # ours
      - go  # 3 times
    allow: # what we need
      - z.example
      # mirrors
      - host: a.example # here
        ports: [22, 443]
      - new.example  # 2 times
      # review
      # - once.example

      # the end
    deny: [x.example]
  other:
    allow: [b.example]
`},
		{"lists in brackets are written out", `pools:
  build:
    presets: [npm, {preset: ecr, resolves_to: [10.0.0.0/8], region: "a,b", account: 'x]'}] # two
    allow: []
`, `pools:
  build:
    presets: # two
      - npm
      - {preset: ecr, resolves_to: [10.0.0.0/8], region: "a,b", account: 'x]'}
      - go  # 3 times
    allow:
      - new.example  # 2 times
      # review
      # - once.example
`},
		{"lists that are not there", `pools:
  build:
    sources:
    - 10.20.0.0/24
  other: {}
`, `pools:
  build:
    sources:
    - 10.20.0.0/24
    presets:
      - go  # 3 times
    allow:
      - new.example  # 2 times
      # review
      # - once.example
  other: {}
`},
		{"a pool of nothing", "pools:\n  build: {} # none\n", `pools:
  build: # none
    presets:
      - go  # 3 times
    allow:
      - new.example  # 2 times
      # review
      # - once.example
`},
		{"a reason with quotes in it", `pools:
  build:
    presets:
    - npm
    allow:
    - {host: a.example, reason: "say \"it\" and again"}
    # the other
  other:
    allow: [a.example]
`, `pools:
  build:
    presets:
    - npm
    - go  # 3 times
    allow:
    - {host: a.example, reason: "say \"it\" and again"}
    - new.example  # 2 times
    # review
    # - once.example
    # the other
  other:
    allow: [a.example]
`},
		{"lines that end as on Windows", "pools:\r\n  build:\r\n    presets: [npm]\r\n    allow:\r\n      - a.example\r\n",
			"pools:\r\n  build:\r\n    presets:\r\n      - npm\r\n      - go  # 3 times\r\n    allow:\r\n      - a.example\r\n      - new.example  # 2 times\r\n      # review\r\n      # - once.example\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			amended, err := Amend([]Source{{"a.yaml", []byte(c.old)}}, add)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(amended[0].New); got != c.want {
				t.Errorf("%s", got)
			}
			if got := patched(t, c.old, amended[0].Diff()); got != c.want {
				t.Errorf("by patch:\n%s\n%s", got, amended[0].Diff())
			}
		})
	}
}

// TestAmendReview: lines for review are written once, whatever their notes say
// later, and further ones go under the head that is there.
func TestAmendReview(t *testing.T) {
	old := []Line{{Text: "once.example", Note: "1 time", Review: true}, {Text: `"a b:80"`, Review: true}}
	again := []Line{{Text: "once.example", Note: "2 times", Review: true}, {Text: "firm.example"}, {Text: "late.example", Note: "1 time", Review: true}, {Text: `"a b:80"`, Note: "1 time", Review: true}}
	for _, c := range []struct{ name, text, want string }{
		{"a list", "pools:\n  build:\n    allow:\n      - a.example\n    deny: [x.example]\n", `pools:
  build:
    allow:
      - a.example
      - firm.example
      # review
      # - late.example  # 1 time
      # - once.example  # 1 time
      # - "a b:80"
    deny: [x.example]
`},
		{"no list, and another pool below", "pools:\n  build:\n    mode: audit\n\n  other:\n    # - late.example\n    mode: audit\n", `pools:
  build:
    mode: audit
    allow:
      - firm.example
    # review
    # - late.example  # 1 time
    # - once.example  # 1 time
    # - "a b:80"

  other:
    # - late.example
    mode: audit
`},
		{"a list in brackets, at the end of a file without a line's end", "pools:\n  build:\n    allow: []", `pools:
  build:
    allow:
      - firm.example
      # review
      # - late.example  # 1 time
      # - once.example  # 1 time
      # - "a b:80"
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := []byte(c.text)
			for _, lines := range [][]Line{old, again} {
				amended, err := Amend([]Source{{"a.yaml", text}}, []Amendment{{Pool: "build", Allow: lines}})
				if err != nil || len(amended) != 1 {
					t.Fatal(err, len(amended))
				}
				if got := patched(t, string(text), amended[0].Diff()); got != string(amended[0].New) {
					t.Errorf("by patch:\n%s", got)
				}
				text = amended[0].New
			}
			if string(text) != c.want {
				t.Errorf("%s", text)
			}
			if amended, err := Amend([]Source{{"a.yaml", text}}, []Amendment{{Pool: "build", Allow: old}}); err != nil || len(amended) != 0 {
				t.Errorf("once more: %v, %d files", err, len(amended))
			}
		})
	}
}

// TestDiffNames: a file's name begins no line of a diff and steers no terminal.
func TestDiffNames(t *testing.T) {
	for name, want := range map[string]string{
		"conf/a b.yaml": "--- conf/a b.yaml\n+++ conf/a b.yaml\n@@", "a\n+++ b\x1b[2J\u202e\".yaml": `--- "a\012+++ b\033[2J\342\200\256\042.yaml"` + "\n+++ ",
	} {
		amended, err := Amend([]Source{{name, []byte("pools:\n  build:\n    allow:\n      - a.example\n")}}, []Amendment{{Pool: "build", Allow: []Line{{Text: "b.example"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := amended[0].Diff(); !strings.HasPrefix(diff, want) {
			t.Errorf("%s", diff)
		}
	}
}

// patched is a text after patch applied a diff.
func patched(t *testing.T, text, diff string) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("SALLYPORT_CI") == "1" {
			t.Fatal("CI must have it: git")
		}
		t.Skip("SKIPPED on this machine: git is not installed")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "apply", "-p0", "-")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(diff)
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, diff)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// TestAmendRefuses: what cannot be amended without guessing is left alone.
func TestAmendRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"a pool in one line":      "pools: {build: {allow: [a.example]}}\n",
		"a list over lines":       "pools:\n  build:\n    allow: [a.example,\n      b.example]\n",
		"a list of nothing":       "pools:\n  build:\n    allow:\n",
		"a block that looks on":   "pools:\n  build:\n    allow:\n      - host: a.example\n        reason: |\n          text\n          # and more\n",
		"a pool that is not here": "pools: {}\n",
	} {
		if amended, err := Amend([]Source{{"a.yaml", []byte(text)}}, []Amendment{{Pool: "build", Allow: []Line{{Text: "new.example"}}}}); err == nil {
			t.Errorf("%s:\n%s", name, amended[0].New)
		}
	}
}

// TestAmendPlainLines: nothing that could begin another line gets into a file.
func TestAmendPlainLines(t *testing.T) {
	source := []Source{{"a.yaml", []byte("pools:\n  build:\n    allow:\n      - a.example\n")}}
	for _, l := range []Line{{Text: "b.example\n      - c.example"}, {Text: "b.example", Note: "x\r      - c.example"}, {Text: "b.example", Note: "x\u2028", Review: true}} {
		if amended, err := Amend(source, []Amendment{{Pool: "build", Allow: []Line{l}}}); err == nil {
			t.Errorf("%q", amended[0].New)
		}
	}
}

// TestAmendFiles: of a directory, the file that has the list is amended.
func TestAmendFiles(t *testing.T) {
	sources := []Source{
		{"a.yaml", []byte("pools:\n  build:\n    sources: [10.20.0.0/24]\n")},
		{"b.yaml", []byte("pools:\n  build:\n    allow:\n      - a.example\n")},
	}
	amended, err := Amend(sources, []Amendment{{Pool: "build", Presets: []Line{{Text: "go"}}, Allow: []Line{{Text: "new.example"}}}})
	if err != nil || len(amended) != 2 {
		t.Fatalf("%v, %d files", err, len(amended))
	}
	if a, b := string(amended[0].New), string(amended[1].New); !strings.HasSuffix(a, "    presets:\n      - go\n") || !strings.HasSuffix(b, "      - a.example\n      - new.example\n") {
		t.Errorf("%s%s", a, b)
	}
}
