package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// startProbe starts our own program as another user, with nothing but two
// pipes. It ends when the first is closed, as it is when we end.
func startProbe(uid uint32) (in io.Writer, out io.Reader, pid int, err error) {
	cmd := exec.Command("/proc/self/exe", "probe")
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return nil, nil, 0, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, 0, err
	}
	return in, out, cmd.Process.Pid, nil
}

// giveUpEverything leaves the child no way to more than it has, and others of
// its user no way into it: what it says is what we report.
func giveUpEverything() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := cap.NewSet().SetProc(); err != nil {
		return err
	}
	_, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	return err
}
