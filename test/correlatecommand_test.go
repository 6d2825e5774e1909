package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// correlate runs the command in a directory and gives what it said and its exit code.
func correlate(t *testing.T, dir, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"correlate"}, args...)...)
	var out, messages bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(stdin), &out, &messages
	_ = cmd.Run()
	return out.String(), messages.String(), cmd.ProcessState.ExitCode()
}

// squidDenied is a line of Squid's that refuses a host.
func squidDenied(second int, host string) string {
	return fmt.Sprintf("17954250%02d.446      2 10.20.0.7 TCP_DENIED/403 3412 CONNECT %s:443 - HIER_NONE/- text/html\n", second, host)
}

// TestCorrelateCommand: files and standard input, formats of output, exit codes.
func TestCorrelateCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"access.log": squidDenied(1, "evil.example") + "no line of squid\n" + squidDenied(2, "evil.example"),
		"odd.log":    strings.Repeat("what is this\n", 10),
		"empty.log":  "",
		"late.log":   strings.Repeat("starting\n", 300) + squidDenied(3, "evil.example"),
		"bad.yaml":   "pools: {build: {mode: nothing}}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, stdin, args string
		code              int
		stdout, stderr    []string // substrings
	}{
		{"an alert is a line of JSON", "", "--proxy access.log", 0, []string{`"kind":"alert"`, `"alert":"denied-egress"`, `"count":2`, `"evidence":["access.log:1","access.log:3"]`}, []string{"2 records in 3 lines", "1 line skipped (2)", "no log of a resolver"}},
		{"a table where asked for", "", "--proxy access.log --format table", 0, []string{"FIRST (UTC)", "evil.example:443 was refused"}, nil},
		{"exit code 3 where asked for", "", "--proxy access.log --exit-code", 3, nil, nil},
		{"no alert is 0 all the same", "", "empty.log --exit-code", 0, nil, []string{"empty.log: empty"}},
		{"standard input", squidDenied(1, "evil.example"), "--proxy -", 0, []string{`"evidence":["-:1"]`}, nil},
		{"no file", "", "", 2, nil, []string{"no log is given"}},
		{"standard input twice", "", "--dns - --proxy -", 2, nil, []string{"once only"}},
		{"a file that is not there", "", "nothing.log", 1, nil, []string{"nothing.log", "1 file cannot be read"}},
		{"files that are no log, all at once", "", "odd.log nothing.log access.log", 1, nil, []string{"odd.log is no log that I know", "nothing.log", "2 files"}},
		{"a directory", "", ".", 1, nil, []string{"is a directory"}},
		{"a format by hand", "", "late.log --format-of late.log=squid", 0, []string{"denied-egress"}, []string{"300 lines skipped (1, 2, 3, 4, 5, ...)"}},
		{"a format that is none", "", "access.log --format-of access.log=apache", 2, nil, []string{"formats are zeek"}},
		{"a format of no file", "", "access.log --format-of other.log=squid", 2, nil, []string{"a file that is given"}},
		{"an output that is none", "", "access.log --format yaml", 2, nil, []string{"formats are table and json"}},
		{"a pool that is none", "", "-c bad.yaml access.log", 2, nil, []string{"bad.yaml"}},
		{"a zone that is none", "", "access.log --zone Nowhere", 2, nil, []string{"--zone"}},
		{"a skew out of bounds", "", "access.log --skew 2h", 2, nil, []string{"--skew"}},
		{"a client that is none", "", "access.log --dns-client proxy", 2, nil, []string{"--dns-client"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, stderr, code := correlate(t, dir, c.stdin, strings.Fields(c.args)...)
			if code != c.code {
				t.Errorf("exit code %d, not %d", code, c.code)
			}
			for _, part := range c.stdout {
				if !strings.Contains(stdout, part) {
					t.Errorf("standard output lacks %q", part)
				}
			}
			for _, part := range c.stderr {
				if !strings.Contains(stderr, part) {
					t.Errorf("standard error lacks %q", part)
				}
			}
			if t.Failed() {
				t.Logf("%s\n%s", stdout, stderr)
			}
		})
	}
}

// TestCorrelateIsNoWayIn: names that others wrote into a log forge no line and
// reach no terminal.
func TestCorrelateIsNoWayIn(t *testing.T) {
	t.Parallel()
	evil := "a\x1b[2J\x07\u202e\"}\\x0a{\"kind\":\"alert\".example" // \x0a: Zeek's way to write a line feed
	head := "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\t%s\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\t%s\n"
	zeek := fmt.Sprintf(head, "http", "method\turi") + "1795425001.4\tC1\t10.20.0.7\t40000\t10.20.0.9\t3128\tCONNECT\tgood.example:443\n" +
		fmt.Sprintf(head, "ssl", "server_name") + "1795425001.5\tC1\t10.20.0.7\t40000\t10.20.0.9\t3128\t" + evil + "\n" +
		"1795425002.5\tC2\t10.20.0.7\t40001\t169.254.169.254\t443\t" + evil + "\n"
	dir := t.TempDir()
	name := "log\x1b[2J.log" // the file's name, too
	if err := os.WriteFile(filepath.Join(dir, name), []byte(zeek+"\x1b[31mred\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"json", "table"} {
		stdout, stderr, code := correlate(t, dir, "", "--proxy", name, "--format", format)
		for stream, text := range map[string]string{"output": stdout, "error": stderr} {
			if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && (r < 0x20 || r == 0x7f || r == '\u202e' && format == "table") }); i >= 0 {
				t.Errorf("%s as %s has a control character: %q", stream, format, text)
			}
		}
		lines := strings.Count(stdout, "\n")
		if code != 0 || lines < 2 || lines > 3 || !strings.Contains(stdout, "sni-mismatch") {
			t.Errorf("%d lines as %s, exit code %d\n%s\n%s", lines, format, code, stdout, stderr)
		}
	}
}
