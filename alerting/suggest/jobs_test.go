package suggest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sallyport/alerting/foreignlog"
	"sallyport/alerting/suggest"
)

// visited is a connection that only audit let pass, of a client at a time of
// November; more is further fields.
func visited(at, client, more string) string {
	return fmt.Sprintf(`{"v":1,"time":"2026-11-%s:00.000000Z","kind":"conn","id":"k3v9x2m4p7qa","pool":"build","client":"%s",%s"via":"connect","host":"wanted.example","port":443,`+
		`"ip":"93.184.216.34","verdict":"allow","reason":"allowed-by-audit","would":"not-in-allowlist","ms":1.000,"phase":"open"}`+"\n", at, client, more)
}

// TestJobsAreNotCountedTwice: one job does not become two, by whatever it can do
// itself, and so does not write itself into a list.
func TestJobsAreNotCountedTwice(t *testing.T) {
	t.Parallel()
	const runner, other, day = "10.20.0.7", "10.20.0.8", "20T12:00"
	run := func(id, job string) string {
		return fmt.Sprintf(`"job":{"repo":"a/b","run_id":"%s","job":"%s"},`, id, job)
	}
	const bridge = `"iface":"br-build",`
	for _, c := range []struct {
		name string
		log  string
		jobs int
	}{
		{"two clients", visited(day, runner, "") + visited(day, other, ""), 2},
		{"one client twice a day", visited("20T01:00", runner, "") + visited("20T23:00", runner, ""), 1},
		{"one client over midnight", visited("20T23:50", runner, "") + visited("21T00:10", runner, "") + visited("21T05:50", runner, ""), 1},
		{"one client on two days", visited("20T14:00", runner, "") + visited("21T09:00", runner, ""), 2},
		{"the same, the later log first", visited("21T09:00", runner, "") + visited("20T14:00", runner, ""), 2},
		{"the addresses of a sidecar", visited(day, "127.0.0.1", "") + visited(day, "127.77.0.3", "") + visited(day, "::1", ""), 1},
		{"addresses on a gateway's interface", visited(day, runner, bridge) + visited(day, other, bridge), 1},
		{"a gateway's interface on two days", visited(day, runner, bridge) + visited("22T12:00", other, bridge), 2},
		{"addresses of one IPv6 network", visited(day, "2001:db8::1", "") + visited(day, "2001:db8::2:3", ""), 1},
		{"two IPv6 networks", visited(day, "2001:db8::1", "") + visited(day, "2001:db8:0:1::1", ""), 2},
		{"IPv4 and IPv6", visited(day, runner, "") + visited(day, "2001:db8::1", ""), 1},
		{"an IPv4 address in both forms", visited(day, runner, "") + visited(day, "::ffff:"+runner, ""), 1},
		{"two runs", visited(day, runner, run("1", "test")) + visited(day, runner, run("2", "test")), 2},
		{"two jobs of one run", visited(day, runner, run("1", "test")) + visited(day, other, run("1", "build")), 1},
		{"one run on two days", visited(day, runner, run("1", "test")) + visited("22T12:00", other, run("1", "test")), 1},
		{"a job without its run", visited(day, runner, run("", "test")) + visited(day, other, run("", "test")), 1},
		{"a job that is named for a part of its time", visited(day, runner, "") + visited(day, runner, run("1", "test")), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			source, err := foreignlog.Probe("-", foreignlog.FormatNamed("sallyport"), foreignlog.Options{}, strings.NewReader(c.log))
			if err != nil {
				t.Fatal(err)
			}
			file := load(t, "pools: {build: {mode: audit}}\ndefault_pool: build\n")
			result, err := suggest.Run(context.Background(), suggest.Config{Sources: []*foreignlog.Source{source}, Spec: file.Spec})
			if err != nil {
				t.Fatal(err)
			}
			p := result.Pools[0]
			lines := append(p.Allow, p.Review...)
			if len(lines) != 1 || lines[0].Jobs != c.jobs || len(p.Allow) != c.jobs-1 {
				t.Errorf("not %d jobs: %+v", c.jobs, p)
			}
		})
	}
}
