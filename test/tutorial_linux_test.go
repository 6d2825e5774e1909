package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// tutorialPage is the document whose commands are run.
const tutorialPage = "../docs/tutorial.md"

// tutorialHosts are the hosts that the page goes to; in the test they are on
// this machine, under addresses that are public elsewhere.
var tutorialHosts = []string{"github.com", "api.github.com", "www.example.com", "www.iana.org"}

// A tutorial is the page as a script: its files, and its commands with what they
// are to show.
type tutorial struct {
	t      *testing.T
	page   string
	blocks []string // the console blocks
	script string   // in txtar
	shows  []string // by the number of the command, from 1
	id     string   // the last that a refusal showed
	good   int      // answers with status 200 so far
	writes int      // changes of the configuration so far
}

var (
	fileBlock   = regexp.MustCompile("(?s)```(?:yaml|sh)\n# ([a-z.]+)(?:: [^\n]*)?\n.*?```\n")
	anyTime     = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	anyDate     = regexp.MustCompile(`20\d\d-\d\d-\d\d`)
	anyDuration = regexp.MustCompile(`\b\d+\.\d{3} ms\b|"ms":\d+\.\d+`)
)

// newTutorial takes the page apart.
func newTutorial(t *testing.T) *tutorial {
	u := &tutorial{t: t, page: readText(t, tutorialPage), shows: []string{""}}
	var files strings.Builder
	for _, m := range fileBlock.FindAllStringSubmatch(u.page, -1) {
		_, text, _ := strings.Cut(m[0], "\n")
		fmt.Fprintf(&files, "-- %s --\n%s", m[1], strings.TrimSuffix(text, "```\n"))
	}
	var script strings.Builder
	for _, m := range transcript.FindAllStringSubmatch(u.page, -1) {
		u.blocks = append(u.blocks, m[1])
		for _, part := range strings.Split("\n"+m[1], "\n$ ")[1:] {
			command, shows, _ := strings.Cut(part, "\n")
			if shows != "" && !strings.HasSuffix(shows, "\n") {
				shows += "\n"
			}
			u.shows = append(u.shows, shows)
			n := len(u.shows) - 1
			fmt.Fprintf(&files, "-- commands/%d --\n%s\n", n, command)
			if strings.HasPrefix(command, "sallyport run ") {
				fmt.Fprintf(&script, "exec within %d stays &\n", n)
				continue
			}
			fmt.Fprintf(&script, "settled %d\nexec within %d\nshown %d\n", n, n, n)
		}
	}
	u.script = script.String() + files.String()
	return u
}

// TestTutorial runs every command of docs/tutorial.md, as one script in a network
// namespace that has the hosts it goes to, and holds the output that the page
// shows against theirs; -update writes it.
func TestTutorial(t *testing.T) {
	t.Parallel()
	needProgram(t, "bash", "curl", "sed", "grep", "cut")
	u, s, ca := newTutorial(t), newSpace(t, "tutorial"), newCA(t)
	u.world(s, ca)
	dir := t.TempDir()
	file := filepath.Join(dir, "tutorial.txtar")
	if err := os.WriteFile(file, []byte(u.script), 0o644); err != nil {
		t.Fatal(err)
	}
	within := fmt.Sprintf("#!/bin/sh\ncommand=$(sed \"s/%s/$(cat .id 2>/dev/null)/\" commands/$1)\n[ -z \"$2\" ] || exec ip netns exec %s bash -c \"exec $command\"\nip netns exec %s bash -c \"exec 2>&1; $command\" || true # the page shows how it ended\n", documentID, s.name, s.name)
	if err := os.WriteFile(filepath.Join(dir, "within"), []byte(within), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "sallyport")); err != nil {
		t.Fatal(err)
	}
	t.Run("page", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Files: []string{file}, WorkdirRoot: t.TempDir(),
			Setup: func(env *testscript.Env) error {
				env.Setenv("PATH", dir+":"+os.Getenv("PATH"))
				env.Setenv("CURL_CA_BUNDLE", ca.file)
				env.Setenv("LC_ALL", "C")
				return nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){"settled": u.settled, "shown": u.shown},
		})
	})
	u.compare()
}

// world puts the hosts, and a resolver that knows them, into the namespace.
func (u *tutorial) world(s *space, ca *testCA) {
	u.t.Helper()
	cert := ca.issue(tutorialHosts...)
	var records []string
	for i, host := range tutorialHosts {
		ip := fmt.Sprintf("93.184.216.%d", 11+i)
		s.address("lo", ip+"/32")
		records = append(records, host+". 60 IN A "+ip)
		s.do(func() { httpOrigin(u.t, net.JoinHostPort(ip, "443"), &cert) })
	}
	s.address("lo", "203.0.113.53/32")
	s.do(func() { newZoneAt(u.t, "203.0.113.53:53", records...) })
	s.resolver("203.0.113.53")
}

// settled waits until what was done before stands in the event log: a close of
// each connection, a reload for each change of the configuration.
func (u *tutorial) settled(ts *testscript.TestScript, _ bool, _ []string) {
	log := ts.MkAbs("events.jsonl")
	count := func(part string) int {
		text, _ := os.ReadFile(log)
		return strings.Count(string(text), part)
	}
	eventually(u.t, "the event log of the tutorial", func() bool {
		return count(`"phase":"close"`) >= u.good && count(`"event":"reloaded"`) >= u.writes
	}, func() string { text, _ := os.ReadFile(log); return string(text) })
}

// anyAlert is the part of a story that is an alert.
var anyAlert = regexp.MustCompile(`(?m)^event     alert .*\n(?:.+\n)*\n?`)

// shown keeps what a command printed.
func (u *tutorial) shown(ts *testscript.TestScript, _ bool, args []string) {
	var n int
	if _, err := fmt.Sscan(args[0], &n); err != nil {
		ts.Fatalf("%v", err)
	}
	out := strings.ReplaceAll(ts.ReadFile("stdout")+ts.ReadFile("stderr"), "\r\n", "\n")
	if m := regexp.MustCompile(`Sallyport-Id: ([a-z2-9]{12})`).FindStringSubmatch(out); m != nil {
		u.id = m[1]
		ts.Check(os.WriteFile(ts.MkAbs(".id"), []byte(u.id), 0o644))
	}
	u.good += strings.Count(out, " 200\n")
	if command := ts.ReadFile(fmt.Sprintf("commands/%d", n)); strings.Contains(command, "--write") || strings.Contains(command, "sed -i") {
		u.writes++
	}
	if u.id != "" {
		out = strings.ReplaceAll(out, u.id, documentID)
	}
	out = anyAlert.ReplaceAllString(out, "") // it comes when it comes
	out = anyTime.ReplaceAllString(mask(out), "2026-11-23T12:00:00Z")
	out = anyDate.ReplaceAllString(out, "2026-11-23")
	u.shows[n] = anyDuration.ReplaceAllString(out, "1.500 ms")
}

// compare holds the page against the run.
func (u *tutorial) compare() {
	n := 0
	filled := transcript.ReplaceAllStringFunc(u.page, func(block string) string {
		return "```console\n" + fill(u.t, transcript.FindStringSubmatch(block)[1], func(string) string { n++; return u.shows[n] }) + "```\n"
	})
	switch {
	case n != len(u.shows)-1 || n < 15:
		u.t.Errorf("%d commands of %d were run", n, len(u.shows)-1)
	case *update:
		if err := os.WriteFile(tutorialPage, []byte(filled), 0o644); err != nil {
			u.t.Fatal(err)
		}
	case filled != u.page:
		u.t.Errorf("docs/tutorial.md shows other output than a run (go test ./test -run Tutorial -update writes it):\n%s", firstDifference(u.page, filled))
	}
}
