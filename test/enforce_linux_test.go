package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEnforcementIsMeasured takes a part of the firewall away by hand: the
// gauge, the status and an alert tell the truth within 15 s, by the kernel's
// tables where they may be read and by effect where not; and so when it is back.
func TestEnforcementIsMeasured(t *testing.T) {
	needProgram(t, "nft", "curl", "setpriv")
	for _, row := range []struct {
		says, mode, by string
		args           []string // of run
	}{
		{"a sidecar that may read the tables", "sidecar", "table", []string{"--firewall", "sidecar"}},
		{"a sidecar that may not", "sidecar", "probe", []string{"--uid", "65532"}},
		{"a gateway", "gateway", "table", []string{"--firewall", "gateway"}},
	} {
		t.Run(row.says, func(t *testing.T) {
			s, peer := newSpace(t, "e"), newSpace(t, "p")
			wire(s, "up0", peer, "down0")
			s.address("up0", "93.184.1.2/24", "2606:2800:1::2/64")
			peer.address("down0", "93.184.1.1/24", "2606:2800:1::1/64")
			s.route("default", "93.184.1.1", "default", "2606:2800:1::1")
			run := func(args ...string) (string, error) {
				out, err := exec.Command("ip", append([]string{"netns", "exec", s.name}, args...)...).CombinedOutput()
				return string(out), err
			}
			must := func(args ...string) string {
				t.Helper()
				out, err := run(args...)
				if err != nil {
					t.Fatalf("%v: %v\n%s", args, err, out)
				}
				return out
			}

			pools := "  build:\n    sources: [127.0.0.0/8]\n    allow: [github.com]\n"
			transparent := `[127.0.0.1:3129, "[::1]:3129"]`
			if row.mode == "gateway" {
				pools = "  build:\n    interfaces: [up0]\n    allow: [github.com]\n"
				transparent = "auto"
			}
			d := prepare(t, config{upstream: "127.0.0.1:1", pools: pools, ip: "127.0.0.1", prefix: []string{"ip", "netns", "exec", s.name}})
			d.args = row.args
			d.listen = fmt.Sprintf(`{proxy: %q, dns: ["127.0.0.1:5300", "[::1]:5300"], admin: %q, control: "unix:%s", transparent: %s}`, d.proxy, d.admin, d.path("control.sock"), transparent)
			if row.mode == "gateway" {
				d.listen = strings.Replace(d.listen, `["127.0.0.1:5300", "[::1]:5300"]`, `["93.184.1.2:53", "[2606:2800:1::2]:53"]`, 1)
			}
			d.write("127.0.0.1:1", pools)
			if err := errors.Join(os.Chmod(filepath.Dir(d.dir), 0o755), os.Chown(d.dir, 65532, 65532)); err != nil {
				t.Fatal(err)
			}
			apply := func() {
				t.Helper()
				must(binary, "firewall", "apply", "--mode", row.mode, "-c", d.path("sallyport.yaml"))
			}
			if row.by == "probe" {
				apply()
			}
			job := exec.Command("ip", "netns", "exec", s.name, "setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "--no-new-privs", "sleep", "600")
			if err := job.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = job.Process.Kill(); _ = job.Wait() })
			d.run()

			gauge := func(want string) {
				t.Helper()
				line := fmt.Sprintf("sallyport_enforced{placement=%q} %s\n", row.mode, want)
				eventually(t, line, func() bool {
					out, _ := run("setpriv", "--reuid", "65532", "--clear-groups", "curl", "-s", "-m", "5", "http://"+d.admin+"/metrics")
					return strings.Contains(out, line)
				}, d.dump)
			}
			state := func(what, state string, since time.Time) {
				t.Helper()
				d.wait(what, func(e event) bool {
					details, _ := e["details"].(map[string]any)
					at, _ := time.Parse(time.RFC3339Nano, e.text("time"))
					return e.text("event") == "enforcement" && details["state"] == state && details["by"] == row.by && at.After(since)
				})
			}
			state("the firewall in place", "in-place", time.Time{})
			gauge("1")
			if out, err := run(binary, "firewall", "status", "--mode", row.mode, "-c", d.path("sallyport.yaml")); err != nil {
				t.Errorf("status of what is in place: %v %s", err, out)
			}

			// As a user who may not read the tables: the daemon is asked.
			asked := []string{"setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups", binary, "firewall", "status", "--mode", row.mode, "-c", d.path("sallyport.yaml")}
			if out, err := run(asked...); err != nil || !strings.Contains(out, "measured by the daemon, by "+row.by) {
				t.Errorf("status by the daemon of what is in place: %v %s", err, out)
			}

			spoilt := time.Now()
			must("nft", "flush", "chain", "inet", "sallyport", "take")
			state("the firewall not in place", "not-in-place", spoilt)
			alert := d.wait("the alert", func(e event) bool {
				return e.text("alert") == "policy" && e.text("severity") == "high" && strings.Contains(e.text("summary"), "enforcement is not in place")
			})
			at, _ := time.Parse(time.RFC3339Nano, alert.text("time"))
			if late := at.Sub(spoilt); late > 15*time.Second {
				t.Errorf("the alert came after %v", late)
			}
			gauge("0")
			if out, err := run(binary, "firewall", "status", "--mode", row.mode, "-c", d.path("sallyport.yaml")); err == nil || !strings.Contains(out, "take") {
				t.Errorf("status of what is spoilt: %v %s", err, out)
			}
			if out, err := run(asked...); err == nil || !strings.Contains(out, "not in place") {
				t.Errorf("status by the daemon of what is spoilt: %v %s", err, out)
			}
			back := time.Now()
			apply()
			state("the firewall in place again", "in-place", back)
			gauge("1")
		})
	}
}
