// Package test drives the built binary with real clients over real sockets:
// what users and attackers meet, not what packages promise each other.
package test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"sallyport/allowlists"
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
	code := m.Run()
	if missing := unseenReasons(); code == 0 && len(missing) > 0 {
		fmt.Fprintf(os.Stderr, "no test made the daemon say %v\n", missing)
		return 1
	}
	return code
}

// seenReasons are the reasons in the event logs and the refusals of every
// daemon so far.
var seenReasons sync.Map

// elsewhere are the reasons that these tests cannot produce, as they take a
// fault inside the daemon or a start slower than any: the packages' own tests do.
var elsewhere = map[allowlists.Reason]bool{
	allowlists.InternalError: true, allowlists.NotReady: true,
}

// unseenReasons lists the reasons that a whole run, as root, should have seen.
func unseenReasons() []string {
	if os.Geteuid() != 0 || flag.Lookup("test.run").Value.String() != "" {
		return nil
	}
	var missing []string
	for _, r := range allowlists.Reasons() {
		if _, seen := seenReasons.Load(r.String()); !seen && !elsewhere[r] {
			missing = append(missing, r.String())
		}
	}
	return missing
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
