// Package test drives the built binary with real clients over real sockets:
// what users and attackers meet, not what packages promise each other.
package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the daemon under test, built once with the race detector.
var binary string

func TestMain(m *testing.M) { os.Exit(runMain(m)) }

func runMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sallyport-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// The daemon may run as another user, or in a namespace of its own.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(dir, "sallyport")
	build := exec.Command("go", "build", "-race", "-o", binary, "sallyport/cmd/sallyport")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the daemon: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// need skips the test where the machine lacks something, aloud, and fails it
// in CI, where SALLYPORT_CI=1 says that everything is there.
func need(t *testing.T, have bool, what string) {
	t.Helper()
	if have {
		return
	}
	if os.Getenv("SALLYPORT_CI") == "1" {
		t.Fatalf("CI must have it: %s", what)
	}
	t.Skipf("SKIPPED on this machine: needs %s", what)
}

func needRoot(t *testing.T) {
	t.Helper()
	need(t, os.Geteuid() == 0, "root")
}

func needProgram(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := exec.LookPath(name)
		need(t, err == nil, "the program "+name)
	}
}
