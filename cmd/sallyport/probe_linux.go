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
func startProbe(uid uint32) (in io.Writer, out io.Reader, err error) {
	cmd := exec.Command("/proc/self/exe", "probe")
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return nil, nil, err
	}
	cmd.Stderr = os.Stderr
	return in, out, cmd.Start()
}

// giveUpEverything leaves the child no way to more than it has.
func giveUpEverything() error {
	if err := cap.NewSet().SetProc(); err != nil {
		return err
	}
	_, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	return err
}
