package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// importFixtures are the examples of the importers.
const importFixtures = "../allowlists/importers/testdata"

// TestImportCommand: exit codes and output of sallyport import.
func TestImportCommand(t *testing.T) {
	t.Parallel()
	dir, err := filepath.Abs(importFixtures)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line           string // after "sallyport import"
		code           int
		stdout, stderr string // parts that must be there
	}{
		{"harden-runner harden-runner/endpoints.txt", 0, "      - a.example\n      - b.example:22\n      - \"*.c.example\"\n", "1 pool, 3 lines, 0 left out"},
		{"harden-runner --pool ci harden-runner/endpoints.txt", 0, "\n  ci:\n    mode: enforce\n", ""},
		{"cargowall cargowall/config.json", 1, "      # - \"*.one.example\"\n", "left out  wildcard"},
		{"cargowall --wider cargowall/config.json", 1, "      - \"*.one.example\"\n", "wider     wildcard"},
		{"smokescreen --ports 443 smokescreen/acl.yaml", 1, "      - api.example\n", "narrower  ports"},
		{"squid --format json squid/whitelist.conf", 0, `"format": "squid",`, "left out"},
		{"squid squid/absent.conf", 1, "", "squid/absent.conf"},
		{"squid cargowall/config.json", 2, "", "cargowall/config.json:1:1: there is no http_access line"},
		{"squit squid/squid.conf", 2, "", `no format "squit"; did you mean "squid"?`},
		{"squid", 2, "", "accepts 2 arg(s), received 1; see sallyport import --help"},
		{"squid --format table squid/squid.conf", 2, "", "formats are yaml and json"},
		{"squid --ports http squid/squid.conf", 2, "", `"http" is no list of ports`},
		{"squid --pool /x squid/squid.conf", 2, "", "is no name for a pool"},
	} {
		r := command(t, dir, append([]string{"import"}, strings.Fields(c.line)...)...)
		if r.code != c.code || !strings.Contains(r.stdout, c.stdout) || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("import %s: exit code %d\n%s%s", c.line, r.code, r.stdout, r.stderr)
		}
	}
}

// TestImportedFilesAreGood: check takes what came of every example, and so does
// explain, once somebody gave the pool its clients.
func TestImportedFilesAreGood(t *testing.T) {
	t.Parallel()
	formats, err := os.ReadDir(importFixtures)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, format := range formats {
		files, err := filepath.Glob(filepath.Join(importFixtures, format.Name(), "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if info, err := os.Stat(file); err != nil || info.IsDir() {
				continue
			}
			seen++
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "source"), []byte(readText(t, file)), 0o644); err != nil {
				t.Fatal(err)
			}
			text := command(t, dir, "import", format.Name(), "source")
			both := command(t, dir, "import", format.Name(), "--format", "json", "source")
			var result struct {
				YAML    string `json:"yaml"`
				LeftOut int    `json:"left_out"`
			}
			if err := json.Unmarshal([]byte(both.stdout), &result); err != nil || result.YAML != text.stdout || (result.LeftOut > 0) != (text.code == 1) || text.code > 1 {
				t.Errorf("%s: exit code %d, %v\n%s%s", file, text.code, err, text.stdout, text.stderr)
			}
			if err := os.WriteFile(filepath.Join(dir, "pool.yaml"), []byte(text.stdout), 0o644); err != nil {
				t.Fatal(err)
			}
			if r := command(t, dir, "check", "-c", "pool.yaml"); r.code != 0 {
				t.Errorf("%s: check has exit code %d\n%s%s", file, r.code, r.stdout, r.stderr)
			}
		}
	}
	if seen < 14 {
		t.Errorf("only %d examples were looked at", seen)
	}
}

// TestImportTellsNoTerminal: what a source says steers no terminal and writes no
// rule, wherever it is shown.
func TestImportTellsNoTerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hostile := "acl x dstdomain \x1b[31mred \u0085-evil a.example\nhttp_access allow x\nhttp_access allow \x1b]0;title\x07\n"
	if err := os.WriteFile(filepath.Join(dir, "squid.conf"), []byte(hostile), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"yaml", "json"} {
		r := command(t, dir, "import", "squid", "--format", format, "squid.conf")
		for _, c := range r.stdout + r.stderr {
			if c != '\n' && (c < ' ' || c > '~') {
				t.Errorf("%s: %q", format, r.stdout+r.stderr)
				break
			}
		}
		if r.code != 1 {
			t.Errorf("%s: exit code %d\n%s%s", format, r.code, r.stdout, r.stderr)
		}
	}
}
