package main

import (
	"fmt"
	"slices"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// refusedCalls are system calls that serving never makes and that an attacker
// inside us would like: other programs, other processes, other namespaces, the
// kernel itself. Each fails with EPERM.
var refusedCalls = []string{
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd",
	"mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
	"open_by_handle_at", "name_to_handle_at", "fanotify_init", "quotactl", "acct", "swapon", "swapoff",
	"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "keyctl", "add_key", "request_key",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "syslog", "personality",
	"modify_ldt", "iopl", "ioperm", "move_pages", "migrate_pages",
	"settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
}

// newNamespaces are the flags of clone that make one (linux/sched.h).
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// callFilter is the program that refuses those calls, and every call that is
// not of this machine's own kind: the library would let i386's calls through,
// by which a 64-bit program, too, may execute another.
func callFilter() ([]bpf.RawInstruction, error) {
	machine, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	known := slices.DeleteFunc(slices.Clone(refusedCalls), func(name string) bool {
		_, here := machine.SyscallNames[name]
		return !here
	})
	policy := seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{
		{Action: seccomp.ActionErrno, Names: known, NamesWithCondtions: []seccomp.NameWithConditions{
			{Name: "clone", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: newNamespaces}}},
		}},
		// Its flags lie in memory, where no filter looks. Who gets this answer
		// takes clone instead, as the C library does.
		{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
	}}
	rest, err := policy.Assemble()
	if err != nil {
		return nil, err
	}
	const archOffset = 4 // struct seccomp_data
	return bpf.Assemble(append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: archOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(machine.ID), SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}, rest...))
}

// restrictCalls refuses those calls on every thread, where the kernel has
// seccomp. It takes no_new_privs.
func (d *daemon) restrictCalls() error {
	if !seccomp.Supported() {
		return nil
	}
	raw, err := callFilter()
	if err != nil {
		return fmt.Errorf("refusing system calls by seccomp: %w", err)
	}
	if err := loadFilter(raw); err != nil {
		return fmt.Errorf("refusing system calls by seccomp: %w", err)
	}
	d.privileges.Seccomp = "filter"
	return nil
}

// loadFilter puts a filter on every thread, or on none. The library's own way
// of doing that takes a thread that was left out for success (seccomp(2)).
func loadFilter(raw []bpf.RawInstruction) error {
	list := make([]unix.SockFilter, len(raw))
	for n, i := range raw {
		list[n] = unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K}
	}
	program := unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	switch {
	case errno != 0:
		return errno
	case thread != 0:
		return fmt.Errorf("thread %d has a filter of its own", thread)
	}
	return nil
}
