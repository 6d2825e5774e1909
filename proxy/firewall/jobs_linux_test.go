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
	f.link(pid, "cgroup", "cgroup:[4026531835]")
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
	byUser := firewall.Identity{UID: 65532}
	cgroup := firewall.Identity{UID: 65532, Cgroup: firewall.Cgroup{ID: 7, Level: 1, Path: "gate"}}
	for _, row := range []struct {
		says string
		own  firewall.Identity
		lay  func(*fakeProc)
		seen int
		want string // in the one fault; "" for none
	}{
		{"nobody but us", byUser, func(*fakeProc) {}, 0, ""},
		{"a job with the recipe's capabilities", byUser, func(f *fakeProc) { f.add(20, "/job", recipeCaps, "NoNewPrivs:\t1\n") }, 1, ""},
		{"a job that can run a file that is set-user-id our user", byUser, func(f *fakeProc) { f.add(20, "/job", recipeCaps) }, 1, "may run set-user-id files"},
		{"the same, where we are known by our cgroup, which no file changes", cgroup, func(f *fakeProc) { f.add(20, "/job", recipeCaps) }, 1, ""},
		{"a job with Docker's", byUser, func(f *fakeProc) { f.add(20, "/job", dockersCaps) }, 1, "process 20 (job) of the job may use NET_RAW, SETGID, SETUID"},
		{"a job that may change its user", byUser, func(f *fakeProc) { f.add(20, "/job", userCaps) }, 1, "SETUID"},
		{"the same, where we are known by our cgroup", cgroup, func(f *fakeProc) { f.add(20, "/job", userCaps) }, 1, ""},
		{"a privileged job", cgroup, func(f *fakeProc) { f.add(20, "/job", "000001ffffffffff") }, 1, "SYS_ADMIN"},
		{"a job that can gain nothing more", byUser, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps, "CapPrm:\t"+noCaps+"\nNoNewPrivs:\t1\n")
		}, 1, ""},
		{"a status without a word of capabilities", byUser, func(f *fakeProc) {
			f.add(20, "/job", recipeCaps)
			f.write("20/status", "Name:\tjob\nPPid:\t1\nUid:\t0\t0\t0\t0\n")
		}, 1, "NET_ADMIN"},
		{"a health check of our own container", byUser, func(f *fakeProc) { f.add(20, "/gate", dockersCaps) }, 0, ""},
		{"our own child that probes", byUser, func(f *fakeProc) { f.add(11, "/job", dockersCaps) }, 0, ""},
		{"what a job left behind where we are the first process", byUser, func(f *fakeProc) { f.add(20, "/job", dockersCaps, "PPid:\t10\n") }, 1, "NET_RAW"},
		{"a health check of our own container, which has a cgroup namespace", byUser, func(f *fakeProc) {
			f.link(10, "cgroup", "cgroup:[4026532997]")
			f.write("10/cgroup", "0::/\n")
			f.add(20, "/", dockersCaps)
		}, 0, ""},
		{"a job beside a container that has one", byUser, func(f *fakeProc) {
			f.link(10, "cgroup", "cgroup:[4026532997]")
			f.write("10/cgroup", "0::/\n")
			f.add(20, "/../job", dockersCaps)
		}, 1, "NET_RAW"},
		{"one that nobody put into any cgroup, as we are", byUser, func(f *fakeProc) {
			f.write("10/cgroup", "0::/\n")
			f.add(20, "/", dockersCaps)
		}, 1, "NET_RAW"},
		{"one whose rights are hidden", byUser, func(f *fakeProc) {
			f.add(20, "/job", noCaps)
			_ = os.Remove(filepath.Join(f.root, "20/status"))
			f.write("20/status/x", "") // an error other than that it is not there
		}, 0, "cannot be read: mount proc without hidepid"},
		{"one that has ended", byUser, func(f *fakeProc) { f.add(20, "/job", dockersCaps, "State:\tZ (zombie)\n") }, 0, ""},
		{"one whose first thread alone is harmless", byUser, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps, "CapBnd:\t"+noCaps+"\nCapPrm:\t"+noCaps+"\nNoNewPrivs:\t1\n")
			f.write("20/task/20/status", "Name:\tjob\nState:\tS\nUid:\t0\t0\t0\t0\nCapPrm:\t"+noCaps+"\nCapBnd:\t"+noCaps+"\nNoNewPrivs:\t1\n")
			f.write("20/task/21/status", "Name:\tjob\nState:\tS\nUid:\t0\t0\t0\t0\nCapPrm:\t"+dockersCaps+"\nCapBnd:\t"+dockersCaps+"\nNoNewPrivs:\t0\n")
		}, 1, "NET_RAW"},
		{"one whose first thread has ended", byUser, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps, "State:\tZ (zombie)\n")
			f.write("20/task/20/status", "Name:\tjob\nState:\tZ (zombie)\nUid:\t0\t0\t0\t0\nCapPrm:\t"+noCaps+"\nCapBnd:\t"+noCaps+"\nNoNewPrivs:\t1\n")
			f.write("20/task/21/status", "Name:\tjob\nState:\tR\nUid:\t0\t0\t0\t0\nCapPrm:\t"+dockersCaps+"\nCapBnd:\t"+dockersCaps+"\nNoNewPrivs:\t0\n")
		}, 1, "NET_RAW"},
		{"one with a thread in our network, its first elsewhere", byUser, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			f.link(20, "net", "net:[1]")
			f.write("20/task/21/status", "Name:\tjob\nState:\tR\nUid:\t0\t0\t0\t0\nCapPrm:\t"+dockersCaps+"\nCapBnd:\t"+dockersCaps+"\nNoNewPrivs:\t0\n")
		}, 1, "NET_RAW"},
		{"the holder of a pod's namespaces", byUser, func(f *fakeProc) { f.add(1, "/pause", dockersCaps, "Name:\tpause\n") }, 0, ""},
		{"another that says it were that", byUser, func(f *fakeProc) { f.add(20, "/job", dockersCaps, "Name:\tpause\n") }, 1, "NET_RAW"},
		{"one in another network namespace", byUser, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			f.link(20, "net", "net:[1]")
		}, 0, ""},
		{"one that hides its namespaces", byUser, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			_ = os.RemoveAll(filepath.Join(f.root, "20/ns"))
		}, 1, "NET_RAW"},
		{"one in a user namespace of its own", byUser, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			f.write("20/uid_map", "0 100000 65536\n")
		}, 1, ""},
		{"one in a user namespace that maps our user", byUser, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			f.write("20/uid_map", "0 0 1000\n 1000 65000 1000\n")
		}, 1, "may use SETGID, SETUID"},
		{"the same, where we are known by our cgroup", cgroup, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			f.write("20/uid_map", "0 0 65536\n")
		}, 1, ""},
		{"one whose user namespace is hidden", byUser, func(f *fakeProc) {
			f.add(20, "/job", dockersCaps)
			_ = os.Remove(filepath.Join(f.root, "20/uid_map"))
		}, 1, "NET_RAW"},
		{"on a machine, root's services", byUser, func(f *fakeProc) {
			f.link(10, "pid", "pid:[4026531836]")
			f.add(20, "/system", dockersCaps)
		}, 0, ""},
		{"on a machine, a person who may become root", byUser, func(f *fakeProc) {
			f.link(10, "pid", "pid:[4026531836]")
			f.add(20, "/user", dockersCaps, "Uid:\t1000\t1000\t1000\t1000\n")
		}, 1, "NET_RAW"},
		{"on a machine, another daemon like us", byUser, func(f *fakeProc) {
			f.link(10, "pid", "pid:[4026531836]")
			f.add(20, "/system", dockersCaps, "Uid:\t65532\t65532\t65532\t65532\n")
		}, 0, ""},
		{"in a container, a job that is our user", byUser, func(f *fakeProc) {
			f.add(20, "/job", noCaps, "Uid:\t65532\t65532\t65532\t65532\n", "NoNewPrivs:\t1\n")
		}, 1, "process 20 (job) of the job runs as user 65532, whom the firewall lets out"},
		{"one that may go back to our user", byUser, func(f *fakeProc) {
			f.add(20, "/job", noCaps, "Uid:\t1000\t1000\t65532\t1000\n", "NoNewPrivs:\t1\n")
		}, 1, "runs as user 65532"},
		{"our user, where we are known by our cgroup", cgroup, func(f *fakeProc) {
			f.add(20, "/job", noCaps, "Uid:\t65532\t65532\t65532\t65532\n")
		}, 1, ""},
		{"a socket for raw frames of another user", byUser, func(f *fakeProc) { f.write("10/net/packet", framesOf(0)+framesOf(65532)) }, 0, "user 0 has a socket for raw packets"},
		{"one for raw IP", byUser, func(f *fakeProc) { f.write("10/net/raw", rawOf(1000)) }, 0, "user 1000 has a socket for raw packets"},
		{"one for raw IPv6", byUser, func(f *fakeProc) { f.write("10/net/raw6", rawOf(0)) }, 0, "user 0 has a socket for raw packets"},
		{"on a machine, the DHCP client's", byUser, func(f *fakeProc) {
			f.link(10, "pid", "pid:[4026531836]")
			f.write("10/net/packet", framesOf(0))
			f.write("10/net/raw6", rawOf(101))
		}, 0, ""},
		{"on a machine, a person's", byUser, func(f *fakeProc) {
			f.link(10, "pid", "pid:[4026531836]")
			f.write("10/net/packet", framesOf(1000))
		}, 0, "user 1000 has"},
	} {
		t.Run(row.says, func(t *testing.T) {
			f := &fakeProc{t, t.TempDir()}
			f.add(10, "/gate", noCaps)
			row.lay(f)
			jobs := firewall.Jobs{Root: f.root, Self: 10, Child: 11, Own: row.own}
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

// framesOf is a list of /proc/net/packet, rawOf one of /proc/net/raw, with a
// socket of a user.
func framesOf(user int) string {
	return fmt.Sprintf("sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n0000000000000000 3      3    0003   2     1 0      %d      4711\n", user)
}

func rawOf(user int) string {
	return fmt.Sprintf("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"+
		"  58: 00000000:003A 00000000:0000 07 00000000:00000000 00:00000000 00000000  %d        0 4711 2 0000000000000000 0\n", user)
}
