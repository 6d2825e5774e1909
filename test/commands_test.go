package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"gopkg.in/yaml.v3"
)

// A ran is one command line that has ended.
type ran struct {
	stdout, stderr string
	code           int
}

// command runs the binary in dir to its end. Every one of its outputs is free
// of escape sequences, as no test is a terminal.
func command(t *testing.T, dir string, args ...string) ran {
	t.Helper()
	return commandIn(t, dir, nil, binary, args...)
}

func commandIn(t *testing.T, dir string, env []string, program string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %v: %v", program, args, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %v does not end\n%s%s", program, args, stdout.String(), stderr.String())
	}
	r := ran{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if strings.Contains(r.stdout+r.stderr, "\x1b") {
		t.Errorf("%v writes escape sequences, and this is no terminal: %q", args, r.stdout+r.stderr)
	}
	return r
}

// commandFiles are the configurations of TestCommandExitCodes.
var commandFiles = map[string]string{
	"good.yaml": `
pools:
  build:
    sources: [127.0.0.0/8]
    allow:
      - registry.corp.example
      - {host: git.corp.example, ports: [22, 443]}
    deny: [gist.github.com]
`,
	"warned.yaml": `
pools:
  build:
    sources: [127.0.0.0/8]
    allow: ["*.corp.example"]
`,
	"broken.yaml": `
pools:
  build:
    sources: [10.20.0.0/24]
    allow:
      - registry.corp.example:99999
`,
	"ended.yaml": `
pools:
  build:
    sources: [10.20.0.0/24]
    allow:
      - {host: old.example, expires: 2024-01-01, owner: platform@corp.example}
      - {host: older.example, expires: 2023-01-01}
`,
	"two.yaml":  "pools: {one: {allow: [a.example]}, two: {allow: [a.example]}}\n",
	"none.yaml": "{}\n",
	"audit.yaml": `
pools:
  build:
    mode: audit
    sources: [10.20.0.0/24]
    allow: [registry.corp.example]
`,
}

func TestCommandExitCodes(t *testing.T) {
	dir := t.TempDir()
	for name, text := range commandFiles {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	printed := commandIn(t, dir, []string{}, binary, "check", "--defaults") // loads again, with nothing in the environment
	if err := os.WriteFile(filepath.Join(dir, "defaults.yaml"), []byte(printed.stdout), 0o644); err != nil {
		t.Fatal(err)
	}
	const broken = "broken.yaml:6:7: port 99999 is out of range; ports are 1 to 65535\n" +
		"    6 |       - registry.corp.example:99999\n" +
		"      |                               ^\n"
	for _, c := range []struct {
		line           string // after "sallyport"
		code           int
		stdout, stderr string // parts that must be there
	}{
		{"baseline", 2, "", "Usage:"},
		{"check", 0, "pool default: enforce, ", "writ"},
		{"check -c good.yaml", 0, "no warnings, no errors\n", ""},
		{"check --strict -c good.yaml", 0, "no warnings, no errors\n", ""},
		{"check -c warned.yaml", 0, "1 warning, no errors\n", "warned.yaml:5:13: warning: "},
		{"check --strict -c warned.yaml", 1, "1 warning, no errors\n", "warned.yaml:5:13: warning: "},
		{"check -c broken.yaml", 2, "", broken},
		{"check --strict -c broken.yaml", 2, "", broken},
		{"check -c absent.yaml", 2, "", "sallyport: "},
		{"check --defaults", 0, "pools:", ""},
		{"check --format yaml", 2, "", "formats are text and json"},
		{"run -c broken.yaml", 2, "", broken},
		{"run -c absent.yaml", 2, "", "absent.yaml"},
		{"explain -c broken.yaml --pool build github.com", 2, "", broken},
		{"explain --pool default github.com", 0, "allow (allowed)", ""},
		{"explain --pool default example.com", 3, "deny (not-in-allowlist)", ""},
		{"explain --pool default github.com:22", 3, "verdict   deny (port-not-allowed)", ""},
		{"explain --pool default github.com:22", 3, "dns       allow (allowed)\nrefusal   HTTP 403 (port-not-allowed)\n", ""},
		{"explain --pool default example.com", 3, "dns       deny (not-in-allowlist), answered NXDOMAIN\nrefusal   HTTP 403 (not-in-allowlist)\n", ""},
		{"explain --pool default motd.ubuntu.com", 3, "quiet     built in (ubuntu:9): no denied-egress alert\n", ""},
		{"explain --pool default 192.0.2.7", 3, "verdict   deny (special-address)\nrefusal   HTTP 403 (special-address)\nallow by", ""},
		{"explain --client 192.0.2.1 github.com", 3, "none admits this client; add it to the sources of one\nverdict   deny (no-pool)\ndns       deny (no-pool), answered REFUSED\n", ""},
		{"explain -c audit.yaml --pool build other.example", 0, "dns       allow (allowed-by-audit), would be not-in-allowlist", ""},
		{"explain -c ended.yaml old.example", 3, "expired   2024-01-01 at 00:00 UTC; ask its owner, platform@corp.example, for a later day\n", ""},
		{"explain -c ended.yaml older.example", 3, "expired   2023-01-01 at 00:00 UTC; ask who wrote the rule for a later day\n", ""},
		{"explain https://github.com/actions/checkout", 0, "target    github.com:443 (of the URL)\n", ""},
		{"explain http://[2001:db8::1]/x", 3, "target    [2001:db8::1]:80 (of the URL)\n", ""},
		{"explain github.com/actions", 2, "", "explain takes HOST[:PORT], such as git.corp.example:22, not \"github.com/actions\""},
		{"explain ssh://git.corp.example/x", 2, "", "explain takes HOST[:PORT], such as git.corp.example:22"},
		{"explain k3v9x2m4p7qa", 2, "", "has the form of an id, and no -c says which daemon to ask; add -c FILE (its configuration, with listen.control), --events FILE (a log) or --control unix:/path (the daemon), or, if it is a host, its port: k3v9x2m4p7qa:443"},
		{"explain -c good.yaml k3v9x2m4p7qa", 2, "", "has the form of an id, and the configuration names no listen.control to ask; add --events FILE (a log) or"},
		{"baseline list", 2, "", "no -c says which daemon to ask; add -c FILE (its configuration, with listen.control) or --control unix:/path"},
		{"baseline list -c good.yaml", 2, "", "the configuration names no listen.control to ask; add it"},
		{"explain k3v9x2m4p7qa:443", 3, "deny (not-in-allowlist)", ""},
		{"explain --pool default k3v9x2m4p7qa", 3, "deny (not-in-allowlist)", ""},
		{"explain --control /run/control.sock k3v9x2m4p7qa", 2, "", "--control /run/control.sock: write unix:/run/control.sock"},
		{"explain --control nowhere k3v9x2m4p7qa", 2, "", "--control nowhere: write unix:/path, or an address such as 127.0.0.1:9181"},
		{"explain --control http:// k3v9x2m4p7qa", 2, "", "--control http:// is a URL; write an address such as 127.0.0.1:9181, or unix:/path for a socket"},
		{"baseline list --control http://127.0.0.1:9182/x", 2, "", "is a URL; write an address such as 127.0.0.1:9182, or unix:/path for a socket"},
		{"wait-ready --timeout 5", 2, "", `--timeout "5" is no length of time; write a number with its unit, such as 500ms, 5s, 15m or 24h`},
		{"correlate --ttl 1d", 2, "", `--ttl "1d" is no length of time; write a number with its unit, such as 500ms, 5s, 15m or 24h`},
		{"run --uid x", 2, "", `--uid "x" is no number of a user; write one such as 65532`},
		{"run --uid -1", 2, "", `--uid "-1" is no number of a user; write one such as 65532`},
		{"suggest --min-jobs x", 2, "", `--min-jobs "x" is no whole number; write one such as 2`},
		{"check --strict=x", 2, "", `--strict "x" is neither true nor false; write one of them`},
		{"check -c defaults.yaml", 0, "no errors", ""},
		{"explain --control unix:/nowhere/s k3v9x2m4p7qa", 1, "", "no such file or directory; is it running? --events FILE looks into its log instead"},
		{"explain --events events.jsonl github.com", 2, "", "\"github.com\" is no id"},
		{"explain --client 10.0.0.0/8 github.com", 2, "", "--client \"10.0.0.0/8\" is no address; give that of a runner, such as 10.20.0.7"},
		{"explain -c two.yaml github.com", 2, "", "which pool asks? say --pool NAME, or --client ADDRESS; pools are one, two"},
		{"explain -c none.yaml github.com", 2, "", "the configuration has no pool"},
		{"explain --pool default 0x7f.1", 3, "deny (bad-host)", ""},
		{"explain --pool default 169.254.169.254", 3, "caution   a cloud gives its credentials to whoever reaches this address, so no line is suggested", ""},
		{"explain --pool default 10.1.2.3", 3, "allow by  - {cidr: 10.1.2.3/32, ports: [443]}", ""},
		{"explain --client 127.0.0.1 github.com", 0, "pool      default (by 127.0.0.0/8), mode enforce", ""},
		{"explain --client 192.0.2.1 github.com", 3, "deny (no-pool)", ""},
		{"explain -c good.yaml --pool build git.corp.example:22", 0, "rule      git.corp.example:22,443 at good.yaml:7", ""},
		{"explain -c good.yaml --pool build gist.github.com", 3, "at good.yaml:8", ""},
		{"explain -c good.yaml --pool build other.example:8443", 3, "allow by  - other.example:8443", ""},
		{"explain -c audit.yaml --pool build other.example", 0, "would     not-in-allowlist", ""},
		{"explain --pool nope github.com", 2, "", "pools are default"},
		{"explain", 2, "", "takes one HOST[:PORT] or ID"},
		{"explain --events absent.jsonl k3v9x2m4p7qa", 1, "", "absent.jsonl"},
		{"presets", 0, "github-actions\n", ""},
		{"presets npm", 0, "name: npm\n", ""},
		{"presets nope", 2, "", `no preset "nope"`},
		{"presets npmm", 2, "", `no preset "npmm"; did you mean "npm"?`},
		{"env --proxy sallyport", 2, "", `--proxy "sallyport": write http://HOST:PORT, such as http://sallyport:3128`},
		{"env --proxy http://sallyport", 2, "", "write http://HOST:PORT"},
		{"env --proxy socks5://sallyport:3128", 2, "", "write http://HOST:PORT"},
		{"env --proxy sallyport:3128", 0, "https_proxy='http://sallyport:3128'\n", ""},
		{"env --format java --no-proxy localhost,*.corp.example --proxy http://gate:3128", 0, "export JAVA_TOOL_OPTIONS='-Dhttp.proxyHost=gate -Dhttp.proxyPort=3128 -Dhttps.proxyHost=gate -Dhttps.proxyPort=3128 -Dhttp.nonProxyHosts=localhost|*.corp.example'\n", ""},
		{"env --format java --proxy http://[fd00::1]:3128", 0, "-Dhttp.proxyHost=fd00::1 -Dhttp.proxyPort=3128 ", ""},
		{"env --format java --proxy https://gate:3128", 2, "", "Java takes a proxy by http:// only"},
		{"env --format buildkit --no-proxy localhost --proxy gate:3128", 0, "--build-arg HTTP_PROXY=http://gate:3128 --build-arg http_proxy=http://gate:3128 ", ""},
		{"env --format buildkit --proxy http://[fd00::1]:3128", 2, "", "a shell would take"},
		{"env --format nope", 2, "", "formats are sh, github, docker, gitlab, java, buildkit and json"},
		{"version", 0, "sallyport ", ""},
		{"wait-ready --timeout 200ms --admin 127.0.0.1:1", 1, "", "connection refused; is the daemon running, and is this its listen.admin?"},
		{"healthcheck --admin 127.0.0.1:1", 1, "", "connection refused"},
		{"wait-ready --timeout 200ms --admin http://127.0.0.1:9180/", 2, "", "--admin http://127.0.0.1:9180/: write it without a scheme: 127.0.0.1:9180"},
		{"healthcheck --admin 127.0.0.1", 2, "", "--admin 127.0.0.1: write HOST:PORT, such as 127.0.0.1:9180"},
		{"--version", 0, "sallyport dev (go", ""},
		{"completion tcsh", 2, "", "sallyport completion has no \"tcsh\", only bash, fish, powershell, zsh"},
		{"completion", 2, "", "Available Commands:"},
		{"firewall nope", 2, "", "unknown command \"nope\""},
		{"check good.yaml", 2, "", "sallyport check takes no argument; for a configuration write sallyport check -c good.yaml"},
		{"run good.yaml", 2, "", "sallyport run takes no argument; for a configuration write sallyport run -c good.yaml"},
		{"run -c good.yaml --pprof", 2, "", "--pprof serves on the control listener, and there is none; set listen.control"},
		{"run --nope", 2, "", "unknown flag: --nope; see sallyport run --help"},
		{"nope", 2, "", `unknown command "nope"`},
		{"help nope", 2, "", `unknown command "nope"`},
		{"help explain nope", 2, "", `sallyport explain has no "nope"`},
		{"help baseline list", 0, "sallyport baseline list [flags]", ""},
		{"help", 0, "Available Commands:", ""},
		{"check extra", 2, "", "sallyport: "},
		{"", 2, "", "Available Commands:"},
	} {
		t.Run(c.line, func(t *testing.T) {
			got := command(t, dir, strings.Fields(c.line)...)
			if got.code != c.code || !strings.Contains(got.stdout, c.stdout) || !strings.Contains(got.stderr, c.stderr) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nwant part: %s\nstderr: %s\nwant part: %s", got.code, c.code, got.stdout, c.stdout, got.stderr, c.stderr)
			}
			if got.code >= 1 && got.code <= 2 && got.stderr == "" && !strings.Contains(c.line, "--strict") {
				t.Error("it failed without a word")
			}
		})
	}
}

// TestCommandOutputLost: who keeps the output in a file on a full disk is not
// told to look at --help.
func TestCommandOutputLost(t *testing.T) {
	for _, line := range []string{
		"check", "check --defaults", "check --format json", "explain --pool default github.com", "explain --format json github.com",
		"presets", "presets npm", "presets --format json", "env", "env --format json", "env --format gitlab", "version", "version --format json",
		"firewall print --mode sidecar", "completion bash",
	} {
		got := commandIn(t, t.TempDir(), nil, "sh", "-c", "exec "+binary+" "+line+" >/dev/full")
		if got.code != 1 || !strings.Contains(got.stderr, "no space left on device") || strings.Contains(got.stderr, "--help") {
			t.Errorf("%s: exit code %d\n%s", line, got.code, got.stderr)
		}
	}
}

// TestCommandHelp walks every command and looks for an example in its help.
func TestCommandHelp(t *testing.T) {
	seen := 0
	var walk func(path []string)
	walk = func(path []string) {
		seen++
		help := command(t, t.TempDir(), append(path, "--help")...)
		if help.code != 0 || !strings.Contains(help.stdout, "Examples:\n  ") {
			t.Errorf("%v --help has no example (exit code %d):\n%s", path, help.code, help.stdout)
		}
		_, list, _ := strings.Cut(help.stdout, "Available Commands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		for line := range strings.Lines(list) {
			if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); name != "" && name != "help" {
				walk(append(append([]string{}, path...), name))
			}
		}
	}
	walk(nil)
	walk([]string{"help"})
	if seen < 14 {
		t.Errorf("only %d commands were looked at", seen)
	}
}

func TestCommandJSON(t *testing.T) {
	d := start(t, config{upstream: "127.0.0.1:1", pools: "  build: {sources: [127.0.0.0/8], allow: [registry.corp.example]}\n"})
	refused := connect(t, d.proxy, "evil.example:443")
	id := refused.header.Get("Sallyport-Id")
	for _, line := range []string{
		"check --format json",
		"check --format json -c sallyport.yaml",
		"explain --format json --pool default github.com",
		"explain --format json --pool default example.com",
		"explain --format json --events events.jsonl " + id,
		"explain --format json -c sallyport.yaml " + id,
		"presets --format json",
		"presets --format json npm",
		"version --format json",
		"env --format json",
	} {
		got := command(t, d.dir, strings.Fields(line)...)
		if !json.Valid([]byte(got.stdout)) {
			t.Errorf("%s prints no JSON (exit code %d): %s%s", line, got.code, got.stdout, got.stderr)
		}
	}
}

// TestCommandExplainsAnID looks one refusal up in the log, and in the running
// daemon by the configuration's control listener.
func TestCommandExplainsAnID(t *testing.T) {
	d := start(t, config{upstream: "127.0.0.1:1", pools: "  build: {sources: [127.0.0.0/8], allow: [registry.corp.example]}\n"})
	refused := connect(t, d.proxy, "evil.example:443")
	id := refused.header.Get("Sallyport-Id")
	if len(id) != 12 {
		t.Fatalf("no id in %v", refused.header)
	}
	for _, line := range []string{
		"explain --events events.jsonl " + id,
		"explain --control unix:" + d.path("control.sock") + " " + id,
		"explain -c sallyport.yaml " + id,
	} {
		got := command(t, d.dir, strings.Fields(line)...)
		for _, part := range []string{"conn refused " + id, "evil.example:443", "deny (not-in-allowlist)", "build"} {
			if got.code != 3 || !strings.Contains(got.stdout, part) {
				t.Errorf("%s: exit code %d\n%s%s\nwant %q", line, got.code, got.stdout, got.stderr, part)
			}
		}
	}
	if got := command(t, d.dir, "explain", "-c", "sallyport.yaml", "aaaaaaaaaaaa"); got.code != 1 || !strings.Contains(got.stderr, "no event has the id") {
		t.Errorf("an unknown id: exit code %d, %s", got.code, got.stderr)
	}
}

// TestCommandCheckLooksAtPaths: check tells of a log that cannot be written and
// of a token that is too short, and makes no file.
func TestCommandCheckLooksAtPaths(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"short": "0123456789abcde\n", "long": "0123456789abcdef\n", "file": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		yaml string
		code int
		text string // "" for a clean check
	}{
		{"log: {events: " + dir + "/new.jsonl}", 0, ""},
		{"log: {events: " + dir + "/file}", 0, ""},
		{"log: {events: " + dir + "/none/new.jsonl}", 1, "c.yaml:2:15: warning: log.events cannot be written here by this user (its directory does not exist)"},
		{"log: {events: " + dir + "/dir}", 1, "(it is a directory)"},
		{"log: {events: " + dir + "/file/new.jsonl}", 1, "c.yaml:2:15: warning: log.events cannot be written"},
		{"{listen: {control: 127.0.0.1:9181}, admin: {token_file: " + dir + "/long}}", 0, ""},
		{"{listen: {control: 127.0.0.1:9181}, admin: {token_file: " + dir + "/short}}", 2, "c.yaml:2:57: admin.token_file holds less than 16 characters"},
		{"{listen: {control: 127.0.0.1:9181}, admin: {token_file: " + dir + "/none}}", 1, "c.yaml:2:57: warning: admin.token_file cannot be read here (no such file or directory)"},
		{"{listen: {control: \"unix:" + dir + "/s\"}, admin: {token_file: " + dir + "/short}}", 0, ""},
	} {
		yaml := "\n" + c.yaml + "\n"
		if strings.HasPrefix(c.yaml, "{") {
			yaml = "\n" + strings.TrimSuffix(c.yaml, "}") + ", pools: {a: {sources: [127.0.0.0/8], allow: [a.example]}}}\n"
		} else {
			yaml += "pools: {a: {sources: [127.0.0.0/8], allow: [a.example]}}\n"
		}
		if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(yaml), 0o644); err != nil {
			t.Fatal(err)
		}
		got := command(t, dir, "check", "--strict", "-c", "c.yaml")
		if got.code != c.code || !strings.Contains(got.stderr, c.text) || c.text == "" && got.stderr != "" {
			t.Errorf("%s: exit code %d, want %d; stderr %s\nwant %s", c.yaml, got.code, c.code, got.stderr, c.text)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new.jsonl")); err == nil {
		t.Error("check made the log")
	}
	needRoot(t) // to be somebody else
	needProgram(t, "setpriv")
	if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte("log: {events: "+dir+"/new.jsonl}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := commandIn(t, dir, nil, "setpriv", "--reuid", "65534", "--clear-groups", binary, "check", "-c", "c.yaml")
	if got.code != 0 || !strings.Contains(got.stderr, "log.events cannot be written here by this user (permission denied)") {
		t.Errorf("as nobody: exit code %d, stderr %s", got.code, got.stderr)
	}
}

// TestCommandFilesNotRead: what a configuration directory holds and is not
// read is named, by check and by run.
func TestCommandFilesNotRead(t *testing.T) {
	d := prepare(t, config{upstream: "127.0.0.1:1", pools: "  build: {sources: [127.0.0.0/8], allow: [registry.corp.example]}\n"})
	if err := os.Mkdir(d.path("conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.path("sallyport.yaml"), d.path("conf/a.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.path("conf/deny.yml"), []byte("pools: {build: {deny: [evil.example]}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := command(t, d.dir, "check", "--strict", "-c", "conf")
	if got.code != 1 || !strings.Contains(got.stderr, "conf/deny.yml: warning: this file is not read, as only *.yaml are; rename it") || !strings.Contains(got.stdout, "1 warning, no errors") {
		t.Errorf("check: exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	d.args = []string{"-c", d.path("conf")} // of two, the last counts
	d.run()
	if !strings.Contains(d.stderr.String(), "conf/deny.yml: this file is not read") {
		t.Errorf("run says nothing of it: %s", d.stderr)
	}
}

// TestStartDetailsAreDocumented: docs/events.md has every detail of a start.
func TestStartDetailsAreDocumented(t *testing.T) {
	d := start(t, config{upstream: "127.0.0.1:1", pools: "  {}\n"})
	row := regexp.MustCompile("(?m)^\\| `started` .*$").FindString(readText(t, "../docs/events.md"))
	details, _ := d.wait("the start", func(e event) bool { return e.text("event") == "started" })["details"].(map[string]any)
	if len(details) < 10 {
		t.Errorf("the start has only %v", details)
	}
	for name := range details {
		if !strings.Contains(row, "`"+name+"`") {
			t.Errorf("docs/events.md does not know %s: %s", name, row)
		}
	}
}

// TestCommandBindFails says what a person does about each way not to bind.
func TestCommandBindFails(t *testing.T) {
	needRoot(t)
	needProgram(t, "setpriv")
	for _, c := range []struct{ listen, want string }{
		{"proxy: 192.0.2.5:3128", "cannot assign requested address; no interface of this machine has that address"},
		{"dns: 127.77.0.1:53", "permission denied; ports below 1024 take root or the capability NET_BIND_SERVICE"},
	} {
		d := prepare(t, config{})
		text := "listen: {proxy: " + d.proxy + ", dns: " + d.dns + ", admin: " + d.admin + "}\npools: {build: {sources: [127.0.0.0/8]}}\n"
		key, _, _ := strings.Cut(c.listen, " ")
		text = regexp.MustCompile(key+" [0-9.:]+").ReplaceAllString(text, c.listen)
		if err := os.WriteFile(d.path("bind.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got := commandIn(t, d.dir, nil, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--",
			binary, "run", "-c", "bind.yaml")
		if got.code != 1 || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: exit code %d\n%s", c.listen, got.code, got.stderr)
		}
	}
}

// TestCommandControlOfAnotherUser: who may not open the socket is not asked
// whether the daemon runs.
func TestCommandControlOfAnotherUser(t *testing.T) {
	needRoot(t)
	needProgram(t, "setpriv")
	d := start(t, config{upstream: "127.0.0.1:1", pools: "  {}\n"})
	got := commandIn(t, d.dir, nil, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--",
		binary, "baseline", "list", "--control", "unix:"+d.path("control.sock"))
	if got.code != 1 || !strings.Contains(got.stderr, "permission denied; its socket is for the daemon's user and for root") || strings.Contains(got.stderr, "running?") {
		t.Errorf("exit code %d\n%s", got.code, got.stderr)
	}
}

// TestCommandRunWarns: what check warns of is in the log of a start and of each
// reload, so that nobody audits for weeks and believes to enforce.
func TestCommandRunWarns(t *testing.T) {
	d := start(t, config{upstream: "127.0.0.1:1", pools: "  build: {mode: audit, sources: [127.0.0.0/8], allow: [a.example]}\n"})
	if !strings.Contains(d.stderr.String(), "sallyport.yaml:10:17: pool \\\"build\\\" is in audit: ") {
		t.Errorf("the start says nothing of audit: %s", d.stderr)
	}
	if strings.Contains(d.stderr.String(), "a new configuration serves") {
		t.Errorf("the start speaks of a reload: %s", d.stderr)
	}
	d.write("127.0.0.1:1", "  {}\n")
	d.wait("the reload", func(e event) bool { return e.text("event") == "reloaded" })
	if !strings.Contains(d.stderr.String(), "there is no pool, so every client is refused") {
		t.Errorf("the reload says nothing of its pools: %s", d.stderr)
	}
	if !strings.Contains(d.stderr.String(), `"policy":2,`) || !strings.Contains(d.stderr.String(), "a new configuration serves") {
		t.Errorf("the reload does not say that it worked: %s", d.stderr)
	}
}

func TestCommandEnv(t *testing.T) {
	const proxy, hosts = "http://user:it's@10.0.0.1:3128", "localhost,10.0.0.0/8"
	want := map[string]string{}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		want[name], want[strings.ToLower(name)] = proxy, proxy
	}
	want["NO_PROXY"], want["no_proxy"] = hosts, hosts

	lines := func(text string) map[string]string {
		got := make(map[string]string)
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			got[name] = value
		}
		return got
	}
	readers := map[string]func(string) map[string]string{
		"github": lines,
		"docker": lines,
		"gitlab": func(text string) map[string]string {
			var file struct{ Variables map[string]string }
			if err := yaml.Unmarshal([]byte(text), &file); err != nil {
				t.Error(err)
			}
			return file.Variables
		},
		"json": func(text string) (got map[string]string) {
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Error(err)
			}
			return got
		},
		"sh": func(text string) map[string]string {
			out := commandIn(t, t.TempDir(), nil, "sh", "-c", text+"\nenv")
			return lines(out.stdout)
		},
	}
	for format, read := range readers {
		out := command(t, t.TempDir(), "env", "--format", format, "--proxy", proxy, "--no-proxy", hosts)
		got := read(out.stdout)
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %q, want %q", format, name, got[name], value)
			}
		}
	}
	if out := command(t, t.TempDir(), "env"); !strings.Contains(out.stdout, "export https_proxy='http://127.0.0.1:3128'\n") {
		t.Errorf("the default is not the embedded configuration's proxy:\n%s", out.stdout)
	}
}

// TestCommandCompletion holds the scripts to the shells that are here, and
// asks what bash would ask.
func TestCommandCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		out := command(t, t.TempDir(), "completion", shell)
		if out.code != 0 || !strings.Contains(out.stdout, "sallyport") {
			t.Errorf("completion %s: exit code %d, %d bytes", shell, out.code, len(out.stdout))
		}
	}
	script := command(t, t.TempDir(), "completion", "bash").stdout
	checked := commandIn(t, t.TempDir(), nil, "bash", "-c", script+"\ncomplete -p sallyport")
	if checked.code != 0 || !strings.Contains(checked.stdout, "sallyport") {
		t.Errorf("bash does not take its script: %s%s", checked.stdout, checked.stderr)
	}
	if out := command(t, t.TempDir(), "__complete", "presets", "git"); !strings.Contains(out.stdout, "github-actions\n") {
		t.Errorf("presets are not completed:\n%s", out.stdout)
	}
}

// TestCommandColour: there is none but on a terminal, and NO_COLOR or a forced
// TERM changes nothing; command itself looks for escape sequences.
func TestCommandColour(t *testing.T) {
	for _, env := range [][]string{{"NO_COLOR=1"}, {"TERM=xterm-256color", "CLICOLOR_FORCE=1", "FORCE_COLOR=1"}} {
		commandIn(t, t.TempDir(), env, binary, "check")
		commandIn(t, t.TempDir(), env, binary, "explain", "--pool", "default", "example.com")
		commandIn(t, t.TempDir(), env, binary, "--help")
	}
}

// TestCommandReadiness: healthcheck and wait-ready reach a daemon that serves,
// without asking the proxy that the environment names.
func TestCommandReadiness(t *testing.T) {
	d := start(t, config{upstream: "127.0.0.1:1", pools: "  build: {sources: [127.0.0.0/8], allow: [registry.corp.example]}\n"})
	env := []string{"HTTP_PROXY=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1"}
	for _, name := range []string{"healthcheck", "wait-ready"} {
		if got := commandIn(t, d.dir, env, binary, name, "--admin", d.admin); got.code != 0 {
			t.Errorf("%s: exit code %d, %s", name, got.code, got.stderr)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not ready \x1b[31m", http.StatusServiceUnavailable)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	got := command(t, d.dir, "wait-ready", "--admin", l.Addr().String(), "--timeout", "300ms")
	if got.code != 1 || !strings.Contains(got.stderr, "503 Service Unavailable: not ready") {
		t.Errorf("a daemon that is never ready: exit code %d, %s", got.code, got.stderr)
	}
}

// TestCommandRunNeedsAResolver: system stands for resolv.conf without our own
// listeners. Where none is left, run says so and ends with exit code 2.
func TestCommandRunNeedsAResolver(t *testing.T) {
	needRoot(t)
	needProgram(t, "unshare", "mount")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sallyport.yaml":   "listen: {proxy: \"127.76.0.1:3128\", dns: \"127.76.0.1:53\", admin: \"127.76.0.1:9180\"}\npools: {build: {sources: [127.0.0.0/8], allow: [a.example]}}\n",
		"only-us.conf":     "nameserver 127.76.0.1\n",
		"nobody-else.conf": "# empty\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, resolvConf := range []string{"only-us.conf", "nobody-else.conf"} {
		script := "mount --bind " + resolvConf + " /etc/resolv.conf && exec " + binary + " run -c sallyport.yaml"
		got := commandIn(t, dir, nil, "unshare", "-m", "sh", "-c", script)
		if got.code != 2 || !strings.Contains(got.stderr, "dns.upstreams") {
			t.Errorf("%s: exit code %d, stderr %s", resolvConf, got.code, got.stderr)
		}
	}
}

// TestCommandRunGreets starts the embedded configuration, follows what it
// prints, and ends it.
func TestCommandRunGreets(t *testing.T) {
	if l, err := net.Listen("tcp", "127.0.0.1:3128"); err != nil {
		need(t, false, "the port 3128 of loopback, which the embedded configuration listens on")
	} else {
		l.Close()
	}
	d := &daemon{t: t, dir: t.TempDir(), proxy: "127.0.0.1:3128", dns: "127.0.0.1:5300", admin: "127.0.0.1:9180"}
	d.runEmbedded()
	for _, want := range []string{
		"curl -x http://127.0.0.1:3128 -sI https://github.com", "dig @127.0.0.1 -p 5300 github.com", "sallyport explain --pool default example.com",
	} {
		if !strings.Contains(d.stderr.String(), want) {
			t.Errorf("the greeting lacks %q:\n%s", want, d.stderr)
		}
	}
	if told := strings.Count(d.stderr.String(), "state_dir"); told != 1 {
		t.Errorf("it says %d times what goes without a state_dir:\n%s", told, d.stderr)
	}
	twice := command(t, d.dir, "run")
	if twice.code != 1 || !strings.Contains(twice.stderr, "address already in use; another program has it, perhaps a Sallyport that runs already") {
		t.Errorf("a second one: exit code %d\n%s", twice.code, twice.stderr)
	}
	refused := connect(t, d.proxy, "example.com:443")
	if want := regexp.MustCompile(`^HTTP/1\.1 403 Sallyport: example\.com:443 not in pool default \(not-in-allowlist, [a-z2-9]{12}\)$`); !want.MatchString(refused.status) {
		t.Errorf("status line %q", refused.status)
	}
	if reply := ask(t, d.dns, "example.com", dns.TypeA); reply.Rcode != dns.RcodeNameError {
		t.Errorf("a refused name is answered with %s", dns.RcodeToString[reply.Rcode])
	}
}

// runEmbedded starts the daemon without -c and waits until it is ready.
func (d *daemon) runEmbedded() {
	d.t.Helper()
	d.cmd = exec.Command(binary, "run")
	d.stderr = &lockedBuffer{}
	d.cmd.Stderr = d.stderr
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.exited = make(chan struct{})
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	d.t.Cleanup(d.stop)
	if out := command(d.t, d.dir, "wait-ready", "--timeout", "20s"); out.code != 0 {
		d.t.Fatalf("the daemon is not ready: %s\n%s", out.stderr, d.stderr)
	}
}
