package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// noRights is what every thread of a daemon without any shows in its status.
var noRights = map[string]string{
	"Groups": "", "NoNewPrivs": "1", "Seccomp": "2",
	"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapAmb": "0000000000000000",
}

// with is a copy of a status with other lines.
func with(status map[string]string, pairs ...string) map[string]string {
	out := make(map[string]string)
	for key, value := range status {
		out[key] = value
	}
	for n := 0; n+1 < len(pairs); n += 2 {
		out[pairs[n]] = pairs[n+1]
	}
	return out
}

// users is a line of the status with one id in all four places.
func users(id int) string { return strings.TrimSpace(strings.Repeat(fmt.Sprint(id, " "), 4)) }

// belongsTo gives the daemon's directory to a user, and lets others to it.
func (d *daemon) belongsTo(uid int) {
	d.t.Helper()
	if err := errors.Join(os.Chmod(filepath.Dir(d.dir), 0o755), os.Chown(d.dir, uid, uid)); err != nil {
		d.t.Fatal(err)
	}
}

// checkThreads holds the status of every thread against want.
func (d *daemon) checkThreads(want map[string]string) {
	d.t.Helper()
	statuses, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.cmd.Process.Pid))
	if err != nil || len(statuses) < 2 {
		d.t.Fatalf("%d threads, %v", len(statuses), err)
	}
	seen := 0
	for _, path := range statuses {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			w, known := want[key]
			if !known {
				continue
			}
			seen++
			if got := strings.Join(strings.Fields(value), " "); got != w {
				d.t.Errorf("%s: %s is %q, want %q", path, key, got, w)
			}
		}
	}
	if seen < 2*len(want) {
		d.t.Errorf("only %d lines of %d threads were looked at", seen, len(statuses))
	}
}

// checkSaid wants the start and the status page to name what is left.
func (d *daemon) checkSaid(uid int, capabilities string) {
	d.t.Helper()
	started := d.wait("the start", func(e event) bool { return e.text("event") == "started" })
	details, _ := started["details"].(map[string]any)
	if details["user"] != float64(uid) || details["seccomp"] != "filter" || fmt.Sprint(details["capabilities"]) != capabilities {
		d.t.Errorf("the start says %v", details)
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.path("control.sock"))
	}}}
	resp, err := client.Get("http://localhost/api/v1/status")
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var status struct {
		Privileges struct {
			UID          int
			Capabilities []string
			Seccomp      string
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		d.t.Fatal(err)
	}
	if p := status.Privileges; p.UID != uid || p.Seccomp != "filter" || fmt.Sprint(p.Capabilities) != capabilities {
		d.t.Errorf("the status says %+v", p)
	}
}

// TestPrivilegesAreGivenUp starts as root with --uid: every thread is that user
// afterwards, holds nothing, can gain nothing, and still does all that a daemon
// does later: reload, reopen its log, write its state, answer on its socket.
func TestPrivilegesAreGivenUp(t *testing.T) {
	needRoot(t)
	const uid = 65432
	d := prepare(t, config{upstream: "127.0.0.1:1", pools: "  build:\n    sources: [127.0.0.0/8]\n"})
	d.args = []string{"--uid", fmt.Sprint(uid)}
	// What was made by hand before the first start is root's.
	if err := os.Mkdir(d.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.belongsTo(uid)
	d.run()
	// NET_ADMIN alone is left in the bounding set, which no exec can reach.
	d.checkThreads(with(noRights, "Uid", users(uid), "Gid", users(uid), "CapBnd", "0000000000001000"))
	d.checkSaid(uid, "[]")
	if text := d.stderr.String(); strings.Contains(text, "our user") {
		t.Errorf("the daemon warns of what works:\n%s", text)
	}

	if err := os.Rename(d.path("events.jsonl"), d.path("events.old")); err != nil {
		t.Fatal(err)
	}
	d.write("127.0.0.1:1", "  other:\n    sources: [127.0.0.0/8]\n    allow: [github.com]\n")
	d.hangup()
	d.wait("the reload, in a log that was reopened", func(e event) bool { return e.text("event") == "reloaded" })
	for _, path := range []string{"events.jsonl", "state/alerts.jsonl", "control.sock"} {
		info, err := os.Stat(d.path(path))
		if err != nil {
			t.Error(err)
		} else if owner := info.Sys().(*syscall.Stat_t).Uid; owner != uid {
			t.Errorf("%s belongs to %d", path, owner)
		}
	}
}

// TestPrivilegesWithFirewall starts as root with --firewall: NET_ADMIN is left,
// in force and not to be handed on, and a reload goes on applying the tables.
func TestPrivilegesWithFirewall(t *testing.T) {
	const uid = 65532
	s := newSpace(t, "rights")
	d := prepare(t, config{upstream: "127.0.0.1:1", pools: "  build:\n    sources: [127.0.0.0/8]\n", ip: "127.0.0.1", prefix: s.through()})
	d.listen = fmt.Sprintf("{transparent: auto, control: \"unix:%s\"}", d.path("control.sock"))
	d.write("127.0.0.1:1", "  build:\n    sources: [127.0.0.0/8]\n")
	d.args = []string{"--firewall", "sidecar", "--uid", fmt.Sprint(uid)}
	d.belongsTo(uid)
	d.run()
	admin := "0000000000001000"
	d.checkThreads(with(noRights, "Uid", users(uid), "Gid", users(uid), "CapPrm", admin, "CapEff", admin, "CapBnd", admin))
	d.checkSaid(uid, "[CAP_NET_ADMIN]")
	d.write("127.0.0.1:1", "  build:\n    mode: audit\n    sources: [127.0.0.0/8]\n")
	d.hangup()
	eventually(t, "tables for a pool in audit", func() bool {
		out, _ := s.run(nil, binary, "firewall", "status", "-c", d.path("sallyport.yaml"))
		return strings.HasPrefix(out, "in place")
	}, func() string { return d.dump() })
}

// TestPrivilegesOfAUser starts as the container image does: as a user with
// nothing, who then cannot gain anything either.
func TestPrivilegesOfAUser(t *testing.T) {
	needRoot(t)
	needProgram(t, "setpriv")
	const uid = 65532
	d := prepare(t, config{
		upstream: "127.0.0.1:1", pools: "  build:\n    sources: [127.0.0.0/8]\n",
		prefix: []string{"setpriv", "--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(uid), "--clear-groups", "--inh-caps=-all", "--"},
	})
	if err := os.Mkdir(d.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(d.path("state"), uid, uid); err != nil {
		t.Fatal(err)
	}
	d.belongsTo(uid)
	d.run()
	d.checkThreads(with(noRights, "Uid", users(uid), "Gid", users(uid)))
	d.checkSaid(uid, "[]")
}

// TestPrivilegesWarn has a log whose file the user may write, but not make
// again, and a configuration that only root may read: the start says what will
// not work.
func TestPrivilegesWarn(t *testing.T) {
	needRoot(t)
	const uid = 65431
	d := prepare(t, config{upstream: "127.0.0.1:1", pools: "  build:\n    sources: [127.0.0.0/8]\n"})
	d.listen = fmt.Sprintf("{proxy: %q, dns: %q, admin: %q}", d.proxy, d.dns, d.admin)
	d.write("127.0.0.1:1", "  build:\n    sources: [127.0.0.0/8]\n")
	d.args = []string{"--uid", fmt.Sprint(uid)}
	if err := errors.Join(os.WriteFile(d.path("events.jsonl"), nil, 0o640), os.Chmod(d.path("sallyport.yaml"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d.belongsTo(0)
	d.run()
	for _, want := range []string{"it cannot be opened again", "no reload will work"} {
		if text := d.stderr.String(); !strings.Contains(text, want) {
			t.Errorf("the daemon does not say %q:\n%s", want, text)
		}
	}
	d.hangup()
	d.wait("the reload to fail", func(e event) bool { return e.text("event") == "reload-failed" })
}
