package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const baselinePools = `
  build:
    sources: [127.0.0.0/8]
    allow:
      - {host: echo.example, ports: [%ECHO%], resolves_to: [127.0.0.0/8]}
      - {host: srv.example, ports: [%ECHO%], resolves_to: [127.0.0.0/8]}
`

// baselineOf runs `sallyport baseline` against a daemon.
func baselineOf(t *testing.T, d *daemon, args ...string) string {
	t.Helper()
	args = append([]string{"baseline", args[0], "--control", "unix:" + d.path("control.sock")}, args[1:]...)
	out, err := exec.Command(binary, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// visit carries a byte to a host there and back, and ends.
func (w *reasonWorld) visit(host string) {
	w.t.Helper()
	seen := len(w.events())
	r := connect(w.t, w.proxy, host+":"+w.echo.port)
	if err := writeAndRead(r.conn, "x"); err != nil {
		w.t.Fatal(err)
	}
	r.conn.Close()
	w.waitSince(seen, "the close", func(e event) bool { return e.text("phase") == "close" && e.text("host") == host })
}

// firstSeen tells the alert that a host is new. Where there must be none, a host
// that is new for sure, visited afterwards, bounds the wait.
func (w *reasonWorld) firstSeen(host string) func(event) bool {
	return func(e event) bool { return e.text("alert") == "first-seen" && e.text("host") == host }
}

// TestARunnerBeginsWithWhatAnotherLearnt: one daemon learns and exports, a
// fresh one begins with the file and is silent about what is in it, until that
// is removed; a kill -9 forgets neither.
func TestARunnerBeginsWithWhatAnotherLearnt(t *testing.T) {
	t.Parallel()
	teacher := newReasonWorld(t, baselinePools, fmt.Sprintf("alerts: {state_dir: %s, thresholds: {first_seen_repeats: 1}}", t.TempDir()))
	teacher.visit("echo.example")
	destination := "echo.example:" + teacher.echo.port
	eventually(t, "the destination in the list", func() bool { return strings.Contains(baselineOf(t, teacher.daemon, "list"), destination) }, teacher.dump)
	if said := baselineOf(t, teacher.daemon, "list", "--pool", "biuld"); !strings.HasPrefix(said, "the daemon has seen no destination of a pool biuld\n") {
		t.Errorf("of a pool that is not there it says %q", said)
	}
	file := filepath.Join(t.TempDir(), "baseline.jsonl")
	baselineOf(t, teacher.daemon, "export", "-o", file)
	data, err := os.ReadFile(file)
	if err != nil || strings.Count(string(data), "\n") != 1 || !strings.Contains(string(data), `"by":"127.0.0.1"`) {
		t.Fatalf("the file is %q, %v", data, err)
	}

	rest := fmt.Sprintf("alerts: {state_dir: %s, baseline: {file: %s}}", t.TempDir(), file)
	pupil := newReasonWorld(t, baselinePools, rest)
	// The file names a port that is the teacher's.
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(data), destination, "echo.example:"+pupil.echo.port)), 0o600); err != nil {
		t.Fatal(err)
	}
	pupil.kill()
	pupil.run()
	pupil.visit("echo.example")
	pupil.visit("srv.example")
	pupil.wait("first-seen of what is new", pupil.firstSeen("srv.example"))
	for _, e := range pupil.events() {
		if pupil.firstSeen("echo.example")(e) {
			t.Errorf("what the file names was new: %v", e)
		}
	}

	if said := baselineOf(t, pupil.daemon, "export"); !strings.HasPrefix(said, "1 of 2 destinations are in the baseline and were written; the others have not entered it yet\n") {
		t.Errorf("the export says %q", said)
	}
	baselineOf(t, pupil.daemon, "remove", "--pool", "build", "echo.example:"+pupil.echo.port)
	pupil.kill()
	pupil.run()
	pupil.visit("echo.example")
	pupil.wait("first-seen of what was removed", pupil.firstSeen("echo.example"))
	if out, err := exec.Command(binary, "baseline", "remove", "--control", "unix:"+pupil.path("control.sock"), "--pool", "build", "no.example:1").CombinedOutput(); err == nil || !strings.Contains(string(out), "not in the baseline") {
		t.Errorf("removing what is not there: %v\n%s", err, out)
	}
}
