package firewall

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Jobs looks at the processes beside us in a sidecar: whether they could get
// past the tables. It reads proc(5) and needs no privilege.
type Jobs struct {
	Root string // where proc is mounted
	Self int    // our own process
	Own  Identity
}

// dangerous are the capabilities (linux/capability.h) with which a process gets
// round the tables, or takes them away; those of a user change only where we
// are known by our user.
var (
	dangerous = map[uint]string{
		unix.CAP_NET_ADMIN: "NET_ADMIN", unix.CAP_NET_RAW: "NET_RAW", unix.CAP_SYS_ADMIN: "SYS_ADMIN",
		unix.CAP_SYS_PTRACE: "SYS_PTRACE", unix.CAP_SYS_MODULE: "SYS_MODULE", unix.CAP_BPF: "BPF",
	}
	changesUser = map[uint]string{unix.CAP_SETUID: "SETUID", unix.CAP_SETGID: "SETGID"}
)

// initialPIDs is the inode of the machine's own PID namespace, PROC_PID_INIT_INO
// of include/linux/proc_ns.h.
const initialPIDs = "pid:[4026531836]"

// firstPerson is the least uid of people and jobs on a machine, UID_MIN of login.defs(5).
const firstPerson = 1000

// maxJobFaults bounds the list.
const maxJobFaults = 8

// A process is what proc says of one.
type process struct {
	pid, parent int
	name        string
	uid         uint64
	zombie      bool
	bounding    uint64
	permitted   uint64
	noNewPrivs  bool
}

// Faults says what the processes of jobs may do that they must not, one
// sentence each, and how many such processes were seen. On a machine of its own
// those of people and services from uid 1000 on count; in a container all that
// are not of our own container.
func (j *Jobs) Faults() (faults []string, seen int, err error) {
	entries, err := os.ReadDir(j.Root)
	if err != nil {
		return nil, 0, fmt.Errorf("looking for the job's processes: %w", err)
	}
	machine := j.link(j.Self, "pid") == initialPIDs
	mine, users := j.cgroups(j.Self), j.users(j.Self)
	network := j.link(j.Self, "net")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == j.Self {
			continue
		}
		p, err := j.process(pid)
		switch {
		case err != nil, p.zombie, p.parent == j.Self, pid == 1 && p.name == "pause":
			continue // it has ended, is ours, or holds a pod's namespaces
		case machine && (p.uid < firstPerson || p.uid == uint64(j.Own.UID)):
			continue // a service of the machine, or another of us
		case !machine && mine != "" && j.cgroups(pid) == mine:
			continue // of our own container, such as a health check
		case j.elsewhere(pid, network):
			continue
		}
		seen++
		if users != "" && j.users(pid) != users {
			continue // capabilities of another user namespace do not reach ours
		}
		if fault := j.fault(p); fault != "" && len(faults) < maxJobFaults {
			faults = append(faults, fault)
		}
	}
	return append(faults, j.frameSockets()...), seen, nil
}

// fault says what one process may do.
func (j *Jobs) fault(p process) string {
	held := p.bounding
	if p.noNewPrivs {
		held = p.permitted
	}
	var names []string
	collect := func(table map[uint]string) {
		for bit := range uint(64) {
			if name, known := table[bit]; known && held&(1<<bit) != 0 {
				names = append(names, name)
			}
		}
	}
	collect(dangerous)
	if j.Own.Cgroup.ID == 0 {
		collect(changesUser)
	}
	switch {
	case len(names) == 0 && (p.noNewPrivs || j.Own.Cgroup.ID != 0):
		return ""
	case len(names) == 0:
		// Root of a container can give any file to our user and set the bit, with
		// CHOWN and FSETID alone; an image may bring one.
		return fmt.Sprintf("process %d (%s) of the job may run set-user-id files, one of our user among them: start it with no-new-privileges, or allowPrivilegeEscalation: false",
			p.pid, printable(p.name))
	}
	return fmt.Sprintf("process %d (%s) of the job may use %s: start it without, by --cap-drop or securityContext.capabilities.drop",
		p.pid, printable(p.name), strings.Join(names, ", "))
}

// process reads /proc/PID/status.
func (j *Jobs) process(pid int) (process, error) {
	text, err := os.ReadFile(j.path(pid, "status"))
	if err != nil {
		return process{}, err
	}
	p := process{pid: pid, bounding: ^uint64(0), permitted: ^uint64(0)} // what is not said may be anything
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		first, _, _ := strings.Cut(value, "\t")
		switch key {
		case "Name":
			p.name = value
		case "State":
			p.zombie = strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X")
		case "PPid":
			p.parent, _ = strconv.Atoi(value)
		case "Uid":
			p.uid, _ = strconv.ParseUint(first, 10, 32)
		case "CapPrm":
			p.permitted = capabilities(value)
		case "CapBnd":
			p.bounding = capabilities(value)
		case "NoNewPrivs":
			p.noNewPrivs = value == "1"
		}
	}
	return p, nil
}

// capabilities reads a capability set; one that cannot be read is everything.
func capabilities(text string) uint64 {
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return ^uint64(0)
	}
	return n
}

// cgroups is where a process is accounted, "" if it is the root of everything
// or cannot be read.
func (j *Jobs) cgroups(pid int) string {
	text, err := os.ReadFile(j.path(pid, "cgroup"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 && parts[2] != "/" {
			return string(text)
		}
	}
	return ""
}

// users is the map of a process's user namespace.
func (j *Jobs) users(pid int) string {
	text, _ := os.ReadFile(j.path(pid, "uid_map"))
	return strings.Join(strings.Fields(string(text)), " ")
}

// elsewhere reports whether a process is known to be in another network
// namespace. One of another user hides it, and counts as here.
func (j *Jobs) elsewhere(pid int, network string) bool {
	theirs := j.link(pid, "net")
	return network != "" && theirs != "" && theirs != network
}

func (j *Jobs) link(pid int, space string) string {
	text, _ := os.Readlink(j.path(pid, filepath.Join("ns", space)))
	return text
}

func (j *Jobs) path(pid int, name string) string {
	return filepath.Join(j.Root, strconv.Itoa(pid), name)
}

// frameSockets tells of sockets for raw frames in our network namespace that
// are not ours: whoever has one can use what no table of ours sees whole.
func (j *Jobs) frameSockets() []string {
	file, err := os.Open(j.path(j.Self, "net/packet"))
	if err != nil {
		return nil
	}
	defer file.Close()
	var faults []string
	lines := bufio.NewScanner(file)
	for lines.Scan() && len(faults) < maxJobFaults {
		// sk RefCnt Type Proto Iface R Rmem User Inode
		fields := strings.Fields(lines.Text())
		if len(fields) < 9 || fields[0] == "sk" || fields[7] == strconv.FormatUint(uint64(j.Own.UID), 10) {
			continue
		}
		faults = append(faults, fmt.Sprintf("user %s has a socket for raw frames here: drop NET_RAW from whatever it runs", fields[7]))
	}
	return faults
}
