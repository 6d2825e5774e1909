package firewall

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Jobs looks at the processes beside us in a sidecar: whether they could get
// past the tables. It reads proc(5) and needs no privilege.
type Jobs struct {
	Root  string // where proc is mounted
	Self  int    // our own process
	Child int    // our own, that probes; 0 without one
	Own   Identity
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

// The machine's own namespaces: PROC_PID_INIT_INO and PROC_CGROUP_INIT_INO of
// include/linux/proc_ns.h.
const (
	initialPIDs    = "pid:[4026531836]"
	initialCgroups = "cgroup:[4026531835]"
)

// firstPerson is the least uid of people and jobs on a machine, UID_MIN of login.defs(5).
const firstPerson = 1000

// maxJobFaults bounds the list.
const maxJobFaults = 8

// A process is what proc says of one, all its threads together: each has rights
// of its own, and the first may be the most harmless, or have ended.
type process struct {
	pid        int
	name       string
	uids       []uint64 // real, effective, saved, of files
	zombie     bool     // every thread has ended
	held       uint64   // capabilities that some thread has or can gain
	noNewPrivs bool     // no thread can gain any by a program
}

// errHidden is that of a process whose rights nobody lets us see.
var errHidden = errors.New("there are processes whose rights cannot be read: mount proc without hidepid")

// Faults says what the processes of jobs may do that they must not, one
// sentence each, and how many such processes were seen. On a machine of its own
// those of people and services from uid 1000 on count; in a container all that
// are not of our own container.
func (j *Jobs) Faults() (faults []string, seen int, err error) {
	entries, err := os.ReadDir(j.Root)
	if err != nil {
		return nil, 0, fmt.Errorf("looking for the job's processes: %w", err)
	}
	us := j.ourselves()
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == j.Self || pid == j.Child {
			continue
		}
		p, err := j.process(pid)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH), err == nil && p.zombie:
			continue // it has ended
		case err != nil:
			if fault := errHidden.Error(); !slices.Contains(faults, fault) {
				faults = append(faults, fault)
			}
			continue
		case us.excuses(j, &p):
			continue
		}
		seen++
		if fault := j.fault(&p, us.users); fault != "" && len(faults) < maxJobFaults {
			faults = append(faults, fault)
		}
	}
	return append(faults, j.frameSockets(us.machine)...), seen, nil
}

// ourselves is where we stand: what others are compared with.
type ourselves struct {
	machine                 bool // in no container
	cgroups, users, network string
}

func (j *Jobs) ourselves() ourselves {
	return ourselves{
		machine: j.link(j.Self, "pid") == initialPIDs,
		cgroups: j.cgroups(j.Self), users: j.users(j.Self), network: j.link(j.Self, "net"),
	}
}

// excuses reports whether a process is none of a job. Its parent says nothing:
// where we are the first process, whatever a job leaves behind becomes our child.
func (us *ourselves) excuses(j *Jobs, p *process) bool {
	switch {
	case p.pid == 1 && p.name == "pause":
		return true // it holds a pod's namespaces
	case us.machine && (p.uids[0] < firstPerson || p.uids[0] == uint64(j.Own.UID)):
		return true // a service of the machine, or another of us
	case !us.machine && us.cgroups != "" && j.cgroups(p.pid) == us.cgroups:
		return true // of our own container, such as a health check
	default:
		return j.elsewhere(p.pid, us.network)
	}
}

// fault says what one process may do, if that is too much. Capabilities of
// another user namespace reach nothing of ours, but users that it maps.
func (j *Jobs) fault(p *process, ourUsers string) string {
	byUser := j.Own.Cgroup.ID == 0
	theirs := j.users(p.pid)
	nested := theirs != "" && theirs != ourUsers
	if nested && !(byUser && hasUser(theirs, j.Own.UID)) {
		return ""
	}
	var names []string
	if !nested {
		names = p.may(dangerous)
	}
	if byUser {
		names = append(names, p.may(changesUser)...)
	}
	switch {
	case byUser && slices.Contains(p.uids, uint64(j.Own.UID)):
		return fmt.Sprintf("process %d (%s) of the job runs as user %d, whom the firewall lets out: run it as another, or Sallyport with another --uid",
			p.pid, printable(p.name), j.Own.UID)
	case len(names) == 0 && (p.noNewPrivs || !byUser):
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

// may names those capabilities of a table that the process has or can gain.
func (p *process) may(table map[uint]string) (names []string) {
	for bit := range uint(64) {
		if name, known := table[bit]; known && p.held&(1<<bit) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// process reads the status of each thread of a process.
func (j *Jobs) process(pid int) (process, error) {
	p, err := thread(j.path(pid, "status"))
	if err != nil {
		return process{}, err
	}
	p.pid = pid
	tasks, err := os.ReadDir(j.path(pid, "task"))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil // it ends just now
	}
	if err != nil {
		return process{}, err
	}
	for _, task := range tasks {
		t, err := thread(j.path(pid, filepath.Join("task", task.Name(), "status")))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ESRCH), err == nil && t.zombie:
			continue
		case err != nil:
			return process{}, err
		}
		p.uids = append(p.uids, t.uids...)
		p.held |= t.held
		p.noNewPrivs = p.noNewPrivs && t.noNewPrivs
		p.zombie = false
	}
	return p, nil
}

// thread reads one status of proc.
func thread(path string) (process, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return process{}, err
	}
	p := process{uids: []uint64{0}}
	bounding, permitted := ^uint64(0), ^uint64(0) // what is not said may be anything
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			p.name = value
		case "State":
			p.zombie = strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X")
		case "Uid":
			p.uids = numbers(value)
		case "CapPrm":
			permitted = capabilities(value)
		case "CapBnd":
			bounding = capabilities(value)
		case "NoNewPrivs":
			p.noNewPrivs = value == "1"
		}
	}
	if p.held = bounding; p.noNewPrivs {
		p.held = permitted
	}
	return p, nil
}

// numbers reads those of a line; there is one at least.
func numbers(text string) []uint64 {
	list := []uint64{}
	for _, word := range strings.Fields(text) {
		n, _ := strconv.ParseUint(word, 10, 64)
		list = append(list, n)
	}
	if len(list) == 0 {
		return []uint64{0}
	}
	return list
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
// or cannot be read. A container with a cgroup namespace is at its own root.
func (j *Jobs) cgroups(pid int) string {
	text, err := os.ReadFile(j.path(pid, "cgroup"))
	if err != nil {
		return ""
	}
	if space := j.link(j.Self, "cgroup"); space != "" && space != initialCgroups {
		return string(text)
	}
	for line := range strings.Lines(string(text)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 && parts[2] != "/" {
			return string(text)
		}
	}
	return ""
}

// users is the map of a process's user namespace, as we see it: triples of the
// first inside, the first outside, and how many. It is "" if it cannot be read.
func (j *Jobs) users(pid int) string {
	text, _ := os.ReadFile(j.path(pid, "uid_map"))
	return strings.Join(strings.Fields(string(text)), " ")
}

// hasUser reports whether a map has a user of ours outside.
func hasUser(users string, uid uint32) bool {
	list := numbers(users)
	for ; len(list) >= 3; list = list[3:] {
		if outside := list[1]; outside <= uint64(uid) && uint64(uid)-outside < list[2] {
			return true
		}
	}
	return false
}

// elsewhere reports whether a process is known to be in another network
// namespace. One of another user hides it, and counts as here.
func (j *Jobs) elsewhere(pid int, network string) bool {
	tasks, _ := os.ReadDir(j.path(pid, "task"))
	spaces := []string{"ns/net"}
	for _, task := range tasks {
		spaces = append(spaces, filepath.Join("task", task.Name(), "ns/net"))
	}
	for _, space := range spaces {
		theirs, _ := os.Readlink(j.path(pid, space))
		if network == "" || theirs == "" || theirs == network {
			return false
		}
	}
	return true
}

func (j *Jobs) link(pid int, space string) string {
	text, _ := os.Readlink(j.path(pid, filepath.Join("ns", space)))
	return text
}

func (j *Jobs) path(pid int, name string) string {
	return filepath.Join(j.Root, strconv.Itoa(pid), name)
}
