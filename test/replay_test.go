package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// replayFiles are two policies and a log for the commands that read logs.
var replayFiles = map[string]string{
	"old.yaml":    "pools:\n  build:\n    sources: [10.20.0.0/24]\n    allow:\n      - a.example\n      - b.example\n",
	"new.yaml":    "pools:\n  build:\n    sources: [10.20.0.0/24]\n    allow:\n      - b.example\n      - c.example\n",
	"audit.yaml":  "pools:\n  build:\n    mode: audit\n    sources: [10.20.0.0/24]\n    allow:\n      - b.example\n",
	"broken.yaml": "pools: {build: {mode: nothing}}\n",
	"odd.log":     "no event at all\n",
	"none.jsonl":  "",
	"idle.jsonl":  `{"v":1,"time":"2026-11-20T12:00:00.000000Z","kind":"system","event":"started","details":{}}` + "\n",
	"events.jsonl": replayLine("a.example", `"verdict":"allow","reason":"allowed","rule":"old.yaml:5"`, "open") +
		replayLine("b.example", `"verdict":"allow","reason":"allowed","rule":"old.yaml:6"`, "open") +
		replayLine(`c\u001b[31m.example`, `"verdict":"deny","reason":"bad-host"`, "refused") +
		replayLine("c.example", `"verdict":"deny","reason":"not-in-allowlist"`, "refused"),
}

// replayLine is a conn event of the client 10.20.0.7.
func replayLine(host, verdict, phase string) string {
	return fmt.Sprintf(`{"v":1,"time":"2026-11-23T12:00:00.000000Z","kind":"conn","id":"k3v9x2m4p7qa","pool":"build","client":"10.20.0.7","via":"connect","host":"%s","port":443,%s,"ms":1.000,"phase":"%s"}`+"\n",
		host, verdict, phase)
}

// TestReplayCommand: exit codes and output of sallyport replay.
func TestReplayCommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range replayFiles {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		line           string // after "sallyport replay"
		code           int
		stdout, stderr string // parts that must be there
	}{
		{"-c old.yaml events.jsonl", 0, `"newly_refused": {` + "\n    \"decisions\": 0", ""},
		{"-c new.yaml events.jsonl", 3, `"host": "a.example"`, ""},
		{"-c new.yaml events.jsonl --format table", 3, "a.example:443", ""},
		{"-c new.yaml events.jsonl --format table", 3, "not-in-allowlist -> allowed          new.yaml:6\n", ""},
		{"-c new.yaml --old old.yaml events.jsonl --format table", 3, "3 decisions, 1 newly refused, 1 newly allowed\n", ""},
		{"-c audit.yaml events.jsonl --format table", 0, "2 decisions pass only as their pool is in audit", ""},
		{"-c audit.yaml --enforce events.jsonl --format table", 3, "1 newly refused, 0 newly allowed", ""},
		{"-c broken.yaml events.jsonl", 2, "", "broken.yaml:1:"},
		{"-c old.yaml --old broken.yaml events.jsonl", 2, "", "broken.yaml:1:"},
		{"-c old.yaml", 2, "", "no event log is given"},
		{"-c old.yaml - -", 2, "", "once only"},
		{"-c old.yaml events.jsonl --format yaml", 2, "", "formats are table and json"},
		{"-c old.yaml nothing.jsonl", 1, "", "nothing.jsonl"},
		{"-c old.yaml odd.log", 1, "", "odd.log holds no event"},
		{"-c old.yaml none.jsonl", 1, `"decisions": 0`, "nothing was replayed, and nothing is proven"},
		{"-c old.yaml idle.jsonl none.jsonl", 1, "", "nothing was replayed, and nothing is proven"},
		{"-c old.yaml none.jsonl events.jsonl", 0, "", ""},
	} {
		r := command(t, dir, append([]string{"replay"}, strings.Fields(c.line)...)...)
		if r.code != c.code || !strings.Contains(r.stdout, c.stdout) || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("replay %s: exit code %d\n%s%s", c.line, r.code, r.stdout, r.stderr)
		}
	}
}

// TestReplayOfItself: the policy that a daemon served by changes nothing about
// that daemon's log, whatever was tried, and a tighter one shows what it breaks.
func TestReplayOfItself(t *testing.T) {
	t.Parallel()
	z := newZone(t,
		"a.example. 60 A 127.0.0.1", "edge.example. 60 A 127.0.0.1", "www.example. 60 CNAME edge.example.", "inside.example. 60 A 10.1.2.3",
		"_http._tcp.srv.example. 60 SRV 1 1 80 edge.example.", "srv.example. 60 A 127.0.0.1", "a.example. 60 TXT text")
	echo := echoOrigin(t, "127.0.0.1:0")
	port := strconv.Itoa(int(echo.addr.Port()))
	const pools = `  build:
    sources: [127.0.0.0/8]
    allow:
      - {host: a.example, ports: [443, %[1]s], resolves_to: [127.0.0.0/8]}
      - {host: www.example, resolves_to: [127.0.0.0/8]}
      - {host: srv.example, dns_types: [SRV], resolves_to: [127.0.0.0/8]}
      - inside.example
    deny: [never.example]
`
	d := start(t, config{upstream: z.addr, pools: fmt.Sprintf(pools, port)})
	for _, name := range []string{"a.example", "www.example", "edge.example", "evil.example", "never.example", "inside.example", "_http._tcp.srv.example", "1.0.0.127.in-addr.arpa"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeSRV, dns.TypePTR} {
			ask(t, d.dns, name, qtype)
		}
	}
	ask(t, d.dns, "edge.example", dns.TypeA) // now the target of a service
	for _, target := range []string{"a.example:" + port, "a.example:444", "evil.example:443", "never.example:443", "inside.example:443", "127.0.0.1:" + port, "169.254.169.254:80", "b d:443", "a.example:443"} {
		connect(t, d.proxy, target).conn.Close()
	}
	d.stop()
	r := command(t, d.dir, "replay", "-c", "sallyport.yaml", "events.jsonl")
	var report struct {
		Decisions int
		Refused   struct{ Decisions int } `json:"newly_refused"`
		Allowed   struct{ Decisions int } `json:"newly_allowed"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if r.code != 0 || report.Decisions < 30 || report.Refused.Decisions+report.Allowed.Decisions != 0 {
		t.Errorf("the same policy: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	d.write(z.addr, "  build:\n    sources: [127.0.0.0/8]\n    allow: [www.example]\n")
	r = command(t, d.dir, "replay", "-c", "sallyport.yaml", "events.jsonl", "--format", "table")
	if r.code != 3 || !strings.Contains(r.stdout, "a.example:"+port) || !strings.Contains(r.stdout, "a.example (dns)") {
		t.Errorf("a tighter policy: exit code %d\n%s", r.code, r.stdout)
	}
}
