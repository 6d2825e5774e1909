package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// soon is how fast the truth must be told, alert included.
const soon = 15 * time.Second

// A measured is a daemon behind a firewall, in a network namespace, a PID
// namespace and a cgroup of its own, so that nothing else of this machine is
// taken for a job.
type measured struct {
	*daemon
	space    *space
	mode, by string
	since    time.Time // of the last change
}

// newMeasured lays the daemon out without running it; args are those of run.
func newMeasured(t *testing.T, mode, by string, args ...string) *measured {
	t.Helper()
	needProgram(t, "nft", "curl", "setpriv", "nsenter")
	s, peer := newSpace(t, "e"), newSpace(t, "p")
	wire(s, "up0", peer, "down0")
	s.address("up0", "93.184.1.2/24", "2606:2800:1::2/64")
	peer.address("down0", "93.184.1.1/24", "2606:2800:1::1/64")
	s.route("default", "93.184.1.1", "default", "2606:2800:1::1")

	pools, transparent, dns := "  build:\n    sources: [127.0.0.0/8]\n    allow: [github.com]\n", `[127.0.0.1:3129, "[::1]:3129"]`, `["127.0.0.1:5300", "[::1]:5300"]`
	if mode == "gateway" {
		pools, transparent, dns = "  build:\n    interfaces: [up0]\n    allow: [github.com]\n", "auto", `["93.184.1.2:53", "[2606:2800:1::2]:53"]`
	}
	// As in a container; ip(8) makes a mount namespace, where sysfs is another.
	prefix := []string{"sh", "-c", fmt.Sprintf(`echo 0 >%s/cgroup.procs && exec "$0" "$@"`, newCgroup(t, s.name)),
		"ip", "netns", "exec", s.name, "sh", "-c", `mount -t proc proc /proc && exec "$0" "$@"`}
	d := prepare(t, config{upstream: "127.0.0.1:1", pools: pools, ip: "127.0.0.1", prefix: prefix})
	d.args, d.attr = args, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	d.listen = fmt.Sprintf(`{proxy: %q, dns: %s, admin: %q, control: "unix:%s", transparent: %s}`, d.proxy, dns, d.admin, d.path("control.sock"), transparent)
	d.write("127.0.0.1:1", pools)
	if err := errors.Join(os.Chmod(filepath.Dir(d.dir), 0o755), os.Chown(d.dir, 65532, 65532)); err != nil {
		t.Fatal(err)
	}
	return &measured{daemon: d, space: s, mode: mode, by: by}
}

// newCgroup makes a cgroup v2, until the test ends: what is in the daemon's is
// taken for its own.
func newCgroup(t *testing.T, name string) (dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			dir = filepath.Join(fields[1], name)
		}
	}
	need(t, dir != "" && os.Mkdir(dir, 0o755) == nil, "a cgroup v2 hierarchy to write to")
	t.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

// do runs a program in the network namespace.
func (m *measured) do(args ...string) (string, error) {
	out, err := exec.Command("ip", append([]string{"netns", "exec", m.space.name}, args...)...).CombinedOutput()
	return string(out), err
}

func (m *measured) must(args ...string) string {
	m.t.Helper()
	out, err := m.do(args...)
	if err != nil {
		m.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

func (m *measured) apply() {
	m.t.Helper()
	m.must(binary, "firewall", "apply", "--mode", m.mode, "-c", m.path("sallyport.yaml"))
}

// job starts a process beside the daemon, by setpriv with these options; the
// func that it returns ends it.
func (m *measured) job(options string, command ...string) (end func()) {
	m.t.Helper()
	args := append([]string{"-t", strconv.Itoa(m.cmd.Process.Pid), "-n", "-p", "-m", "setpriv"}, strings.Fields(options)...)
	cmd := exec.Command("nsenter", append(args, command...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	end = func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() }
	m.t.Cleanup(end)
	return end
}

// ordinary are the options of a job that cannot get past the firewall.
const ordinary = "--reuid 1000 --regid 1000 --clear-groups --no-new-privs"

// state waits until an event tells of a state since the last change, with a
// fault that has this text.
func (m *measured) state(state, by, fault string) {
	m.t.Helper()
	m.wait("enforcement "+state+" by "+by+" "+fault, func(e event) bool {
		details, _ := e["details"].(map[string]any)
		at, _ := time.Parse(time.RFC3339Nano, e.text("time"))
		return e.text("event") == "enforcement" && details["state"] == state && details["by"] == by &&
			strings.Contains(fmt.Sprint(details["faults"]), fault) && at.After(m.since)
	})
}

// alert waits for a policy alert that came soon after the last change.
func (m *measured) alert(summary string) {
	m.t.Helper()
	alert := m.wait("the alert that "+summary, func(e event) bool {
		return e.text("alert") == "policy" && e.text("severity") == "high" && strings.Contains(e.text("summary"), summary)
	})
	at, _ := time.Parse(time.RFC3339Nano, alert.text("time"))
	if late := at.Sub(m.since); late > soon {
		m.t.Errorf("the alert came after %v", late)
	}
}

// gauge waits for the value of sallyport_enforced.
func (m *measured) gauge(want string) {
	m.t.Helper()
	line := fmt.Sprintf("sallyport_enforced{placement=%q} %s\n", m.mode, want)
	eventually(m.t, line, func() bool {
		out, _ := m.do("setpriv", "--reuid", "65532", "--clear-groups", "curl", "-s", "-m", "5", "http://"+m.admin+"/metrics")
		return strings.Contains(out, line)
	}, m.dump)
}

// status runs firewall status as root, and as our user, who may not read the
// tables and asks the daemon.
func (m *measured) status(root, user string) {
	m.t.Helper()
	command := []string{binary, "firewall", "status", "--mode", m.mode, "-c", m.path("sallyport.yaml")}
	asked := append([]string{"setpriv", "--reuid", "65532", "--regid", "65532", "--clear-groups"}, command...)
	inPlace := strings.HasPrefix(root, "in place")
	if out, err := m.do(command...); !strings.Contains(out, root) || (err == nil) != inPlace {
		m.t.Errorf("status: %v %s; want %s", err, out, root)
	}
	if out, err := m.do(asked...); !strings.Contains(out, user) || (err == nil) != inPlace {
		m.t.Errorf("status by the daemon: %v %s; want %s", err, out, user)
	}
}

// deleteRule takes one rule away by hand.
func (m *measured) deleteRule(text string) {
	m.t.Helper()
	var chain string
	for line := range strings.Lines(m.must("nft", "-a", "list", "table", "inet", "sallyport")) {
		words := strings.Fields(line)
		if len(words) > 1 && words[0] == "chain" {
			chain = words[1]
		}
		if rule, handle, ok := strings.Cut(line, " # handle "); ok && strings.Contains(rule, text) {
			m.since = time.Now()
			m.must("nft", "delete", "rule", "inet", "sallyport", chain, "handle", strings.TrimSpace(handle))
			return
		}
	}
	m.t.Fatalf("no rule has %q", text)
}

// TestEnforcementIsMeasured takes a rule away by hand: the gauge, the status and
// an alert tell the truth within 15 s, by the kernel's tables where they may be
// read and by effect where not; and so when it is back.
func TestEnforcementIsMeasured(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		says, mode, by, rule string
		args                 []string // of run
	}{
		{"a sidecar that may read the tables", "sidecar", "table", "meta nfproto ipv4 meta l4proto tcp redirect", []string{"--firewall", "sidecar"}},
		{"a sidecar that may not", "sidecar", "probe", "meta nfproto ipv6 udp dport 53 redirect", []string{"--uid", "65532"}},
		{"a gateway", "gateway", "table", "redirect to :53", []string{"--firewall", "gateway"}},
	} {
		t.Run(row.says, func(t *testing.T) {
			m := newMeasured(t, row.mode, row.by, row.args...)
			if row.by == "probe" {
				m.apply()
			}
			m.run()
			if row.mode == "sidecar" {
				m.state("unknown", row.by, "no process of a job can be seen")
				m.job(ordinary, "sleep", "600")
			}
			m.state("in-place", row.by, "")
			m.gauge("1")
			m.status("in place", "measured by the daemon, by "+row.by)

			m.deleteRule(row.rule)
			m.state("not-in-place", row.by, map[string]string{"table": "is missing", "probe": "7 of 8 questions"}[row.by])
			m.alert("enforcement is not in place")
			m.gauge("0")
			m.status("1 difference", "not in place")

			m.since = time.Now()
			m.apply()
			m.state("in-place", row.by, "")
			m.gauge("1")
			for _, e := range m.events() {
				if kind := e.text("kind"); kind == "dns" || kind == "conn" {
					t.Errorf("a probe of ours has an event: %v", e)
				}
			}
		})
	}
}

// TestJobsAreMeasured runs processes that could get past the tables, one after
// the other, beside one that could not.
func TestJobsAreMeasured(t *testing.T) {
	t.Parallel()
	m := newMeasured(t, "sidecar", "table", "--firewall", "sidecar")
	m.run()
	m.job(ordinary, "sleep", "600")
	m.state("in-place", "table", "")
	for _, row := range []struct {
		options, fault string
		command        []string
	}{
		{"--bounding-set -all,+net_raw", "(sleep) of the job may use NET_RAW", nil},
		{"--reuid 65532 --clear-groups --no-new-privs --bounding-set -all", "(sleep) of the job runs as user 65532", nil},
		// The daemon is the first process here: it becomes its parent.
		{"--bounding-set -all,+net_raw", "(sleep) of the job may use NET_RAW", []string{"sh", "-c", "sleep 601 & exit 0"}},
	} {
		m.since = time.Now()
		command := row.command
		if command == nil {
			command = []string{"sleep", "601"}
		}
		end := m.job(row.options, command...)
		m.state("not-in-place", "table", row.fault)
		m.gauge("0")
		m.since = time.Now()
		end()
		m.state("in-place", "table", "")
	}
}

// TestProbeIsWatched holds up the probe, or ends it, as a job could that is
// allowed to send it signals.
func TestProbeIsWatched(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		says                      string
		signal                    syscall.Signal
		state, by, fault, summary string
	}{
		{"held up", syscall.SIGSTOP, "not-in-place", "probe", "does not answer", "does not answer"},
		{"ended", syscall.SIGKILL, "unknown", "none", "has ended", "enforcement can no longer be measured"},
	} {
		t.Run(row.says, func(t *testing.T) {
			m := newMeasured(t, "sidecar", "probe", "--uid", "65532")
			m.apply()
			m.run()
			m.job(ordinary, "sleep", "600")
			m.state("in-place", "probe", "")
			probe := m.child()
			m.since = time.Now()
			if err := syscall.Kill(probe, row.signal); err != nil {
				t.Fatal(err)
			}
			m.state(row.state, row.by, row.fault)
			m.alert(row.summary)
			m.gauge("0")
			if row.signal == syscall.SIGSTOP {
				m.since = time.Now()
				if err := syscall.Kill(probe, syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				m.state("in-place", "probe", "")
				m.gauge("1")
			}
		})
	}
}

// child is the daemon's one child, as this test sees it.
func (m *measured) child() int {
	m.t.Helper()
	parent := fmt.Sprintf("\nPPid:\t%d\n", m.cmd.Process.Pid)
	files, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), parent) && strings.Contains(string(text), "\nUid:\t65533\t") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return pid
		}
	}
	m.t.Fatal("the daemon has no child")
	return 0
}
