package firewall_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/proxy/firewall"
)

// A caps is what /proc/PID/status says of capabilities.
const (
	noCaps      = "0000000000000000"
	dockersCaps = "00000000a80425fb" // CHOWN ... NET_RAW, SETUID, SETGID, what Docker gives
	recipeCaps  = "00000000a800053b" // those without NET_RAW, SETUID and SETGID
	userCaps    = "00000000000000c0" // SETUID and SETGID
)

// A fakeProc is a tree as proc(5) has it.
type fakeProc struct {
	t    *testing.T
	root string
}

// add puts a process into the tree; more are further lines of its status.
func (f *fakeProc) add(pid int, cgroup, bounding string, more ...string) {
	f.t.Helper()
	status := fmt.Sprintf("Name:\tjob\nState:\tS (sleeping)\nPPid:\t1\nUid:\t0\t0\t0\t0\nCapPrm:\t%s\nCapBnd:\t%s\nNoNewPrivs:\t0\n%s", bounding, bounding, strings.Join(more, ""))
	for name, text := range map[string]string{"status": status, "cgroup": "0::" + cgroup + "\n", "uid_map": "         0          0 4294967295\n"} {
		f.write(fmt.Sprintf("%d/%s", pid, name), text)
	}
	if err := os.MkdirAll(filepath.Join(f.root, fmt.Sprint(pid), "ns"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.link(pid, "pid", "pid:[4026532999]")
	f.link(pid, "net", "net:[4026532998]")
}

func (f *fakeProc) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeProc) link(pid int, space, to string) {
	f.t.Helper()
	path := filepath.Join(f.root, fmt.Sprint(pid), "ns", space)
	_ = os.Remove(path)
	if err := os.Symlink(to, path); err != nil {
		f.t.Fatal(err)
	}
}

func TestWhatJobsMayDo(t *testing.T) {
	cgroup := firewall.Identity{UID: 65532, Cgroup: firewall.Cgroup{ID: 7, Level: 1, Path: "gate"}}
	for _, row := range []struct {
		says string
		own  firewall.Identity
		lay  func(*fakeProc)
		seen int
		want string // in the one fault; "" for none
	}{
		{"nobody but us", firewall.Identity{}, func(*fakeProc) {}, 0, ""},
		{"a job with the recipe's capabilities", firewall.Identity{}, func(f *fakeProc) { f.add(20, "/job", recipeCaps, "NoNewPrivs:\t1\n") }, 1, ""},
		{"a job that can run a file that is set-user-id our user", firewall.Identity{}, func(f *fakeProc) { f.add(20, "/job", recipeCaps) }, 1, "may run set-user-id files"},
		{"the same, where we are known by our cgroup, which no file changes", cgroup, func(f *fakeProc) { f.add(20, "/job", recipeCaps) }, 1, ""},
		{"a job with Docker's", firewall.Identity{}, func(f *fakeProc) { f.add(20, "/job", dockersCaps) }, 1, "process 20 (job) of the job may use NET_RAW, SETGID, SETUID"},
		{"a job that may change its user", firewall.Identity{}, func(f *fakeProc) { f.add(20, "/job", userCaps) }, 1, "SETUID"},
		{"the same, where we are known by our cgroup", cgroup, func(f *fakeProc) { f.add(20, "/job", userCaps) }, 1, ""},
		{"a privileged job", cgroup, func(f *fakeProc) { f.add(20, "/job", "000001ffffffffff") }, 1, "SYS_ADMIN"},
		{"a job that can gain nothing more", firewall.Identity{}, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps, "CapPrm:\t"+noCaps+"\nNoNewPrivs:\t1\n")
		}, 1, ""},
		{"a status without a word of capabilities", firewall.Identity{}, func(f *fakeProc) {
			f.add(20, "/job", recipeCaps)
			f.write("20/status", "Name:\tjob\nPPid:\t1\nUid:\t0\t0\t0\t0\n")
		}, 1, "NET_ADMIN"},
		{"a health check of our own container", firewall.Identity{}, func(f *fakeProc) { f.add(20, "/gate", dockersCaps) }, 0, ""},
		{"our own child", firewall.Identity{}, func(f *fakeProc) { f.add(20, "/job", dockersCaps, "PPid:\t10\n") }, 0, ""},
		{"one that has ended", firewall.Identity{}, func(f *fakeProc) { f.add(20, "/job", dockersCaps, "State:\tZ (zombie)\n") }, 0, ""},
		{"the holder of a pod's namespaces", firewall.Identity{}, func(f *fakeProc) { f.add(1, "/pause", dockersCaps, "Name:\tpause\n") }, 0, ""},
		{"another that says it were that", firewall.Identity{}, func(f *fakeProc) { f.add(20, "/job", dockersCaps, "Name:\tpause\n") }, 1, "NET_RAW"},
		{"one in another network namespace", firewall.Identity{}, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			f.link(20, "net", "net:[1]")
		}, 0, ""},
		{"one that hides its namespaces", firewall.Identity{}, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			_ = os.RemoveAll(filepath.Join(f.root, "20/ns"))
		}, 1, "NET_RAW"},
		{"one in a user namespace of its own", firewall.Identity{}, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			f.write("20/uid_map", "0 100000 65536\n")
		}, 1, ""},
		{"on a machine, root's services", firewall.Identity{}, func(f *fakeProc) {
			f.link(10, "pid", "pid:[4026531836]")
			f.add(20, "/system", dockersCaps)
		}, 0, ""},
		{"on a machine, a person who may become root", firewall.Identity{}, func(f *fakeProc) {
			f.link(10, "pid", "pid:[4026531836]")
			f.add(20, "/user", dockersCaps, "Uid:\t1000\t1000\t1000\t1000\n")
		}, 1, "NET_RAW"},
		{"on a machine, another daemon like us", firewall.Identity{UID: 65532}, func(f *fakeProc) {
			f.link(10, "pid", "pid:[4026531836]")
			f.add(20, "/system", dockersCaps, "Uid:\t65532\t65532\t65532\t65532\n")
		}, 0, ""},
		{"in a container, a job that is our user", firewall.Identity{UID: 65532}, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps, "Uid:\t65532\t65532\t65532\t65532\n")
		}, 1, "NET_RAW"},
		{"a socket for raw frames of another user", firewall.Identity{UID: 65532}, func(f *fakeProc) {
			f.write("10/net/packet", "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n0000 3      3    0003   2     1 0      0      4711\n0001 3      3    0003   2     1 0      65532  4712\n")
		}, 0, "user 0 has a socket for raw frames"},
	} {
		t.Run(row.says, func(t *testing.T) {
			f := &fakeProc{t, t.TempDir()}
			f.add(10, "/gate", noCaps)
			row.lay(f)
			jobs := firewall.Jobs{Root: f.root, Self: 10, Own: row.own}
			faults, seen, err := jobs.Faults()
			if err != nil || seen != row.seen {
				t.Errorf("%d seen, want %d; %v", seen, row.seen, err)
			}
			switch {
			case row.want == "" && len(faults) > 0:
				t.Errorf("faults %q", faults)
			case row.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], row.want)):
				t.Errorf("faults %q, want one with %q", faults, row.want)
			}
		})
	}
}
