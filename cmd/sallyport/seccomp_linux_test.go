package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// restrictedVar makes the test binary, run again, restrict itself and say what
// it still may.
const restrictedVar = "SALLYPORT_TEST_RESTRICTED"

// TestRefusedCalls makes the calls for real, in a process of its own.
func TestRefusedCalls(t *testing.T) {
	if os.Getenv(restrictedVar) != "" {
		restrictedChild()
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestRefusedCalls$")
	child.Env = append(os.Environ(), restrictedVar+"=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.HasPrefix(string(out), "SKIP") {
		if os.Getenv("SALLYPORT_CI") == "1" {
			t.Fatal("CI must have seccomp")
		}
		t.Skip("SKIPPED on this machine: needs seccomp")
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		call, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
		said[call] = result
	}
	for _, call := range []string{"execve", "execveat", "ptrace", "mount", "unshare", "setns", "bpf", "io_uring_setup", "setresuid", "clone with a namespace"} {
		if said[call] != "EPERM" {
			t.Errorf("%s: %q", call, said[call])
		}
	}
	if said["clone3"] != "ENOSYS" {
		t.Errorf("clone3: %q", said["clone3"])
	}
	if result := said["a call of i386"]; result != "EPERM" && result != "not here" {
		t.Errorf("a call of i386: %q", result)
	}
	for _, serves := range []string{"new threads", "a connection"} {
		if said[serves] != "ok" {
			t.Errorf("%s: %q", serves, said[serves])
		}
	}
}

// restrictedChild has as many threads as a daemon, gives up the calls, and
// tries them on another thread than the one that did.
func restrictedChild() {
	var d daemon
	threads := busyThreads()
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	if err := d.restrictCalls(); err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	if d.privileges.Seccomp != "filter" {
		fmt.Fprintln(os.Stdout, "SKIP")
		return
	}
	threads(tryCalls)
	threads = busyThreads()
	threads(func() { fmt.Fprintln(os.Stdout, "new threads: ok") })
	fmt.Fprintln(os.Stdout, "a connection:", result(connectToSelf()))
}

// busyThreads makes threads that wait; the last of them does what do is given.
func busyThreads() (do func(func())) {
	const count = 20
	var ready, done sync.WaitGroup
	work := make(chan func(), 1)
	stop := make(chan struct{})
	ready.Add(count)
	done.Add(count)
	for range count {
		go func() {
			defer done.Done()
			runtime.LockOSThread() // and so the thread ends with it
			ready.Done()
			select {
			case f := <-work:
				f()
				close(stop)
			case <-stop:
			}
		}()
	}
	ready.Wait()
	return func(f func()) {
		work <- f
		done.Wait()
	}
}

// tryCalls makes every call that matters, with arguments that would work, or
// that would give another error.
func tryCalls() {
	path, argv := append([]byte("/bin/true"), 0), []uintptr{0}
	try := func(name string, number uintptr, args ...uintptr) {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		fmt.Fprintln(os.Stdout, name+":", unix.ErrnoName(errno))
	}
	text, list := uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(&argv[0]))
	try("execve", unix.SYS_EXECVE, text, list, list)
	try("execveat", unix.SYS_EXECVEAT, ^uintptr(99), text, list, list)
	try("ptrace", unix.SYS_PTRACE, unix.PTRACE_TRACEME)
	try("mount", unix.SYS_MOUNT, 0, text, 0, 0, 0)
	try("unshare", unix.SYS_UNSHARE, unix.CLONE_FS)
	try("setns", unix.SYS_SETNS, ^uintptr(0), 0)
	try("bpf", unix.SYS_BPF, ^uintptr(0), 0, 0)
	try("io_uring_setup", unix.SYS_IO_URING_SETUP, 0, 0)
	try("setresuid", unix.SYS_SETRESUID, uintptr(os.Getuid()), uintptr(os.Getuid()), uintptr(os.Getuid()))
	try("clone with a namespace", unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_THREAD) // which is EINVAL
	try("clone3", unix.SYS_CLONE3, 0, 0)
	if errno, ok := foreignCall(); ok {
		fmt.Fprintln(os.Stdout, "a call of i386:", unix.ErrnoName(errno))
	} else {
		fmt.Fprintln(os.Stdout, "a call of i386: not here")
	}
}

func result(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func connectToSelf() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	conn, err := net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	other, err := l.Accept()
	if err != nil {
		return err
	}
	other.Close()
	_, err = io.Copy(io.Discard, conn)
	return err
}
