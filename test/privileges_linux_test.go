package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPrivilegesAreGivenUp starts as root with --uid: every thread is that user
// afterwards, holds nothing, can gain nothing, and still does all that a daemon
// does later: reload, reopen its log, write its state, answer on its socket.
func TestPrivilegesAreGivenUp(t *testing.T) {
	needRoot(t)
	const uid = 65432
	d := prepare(t, config{upstream: "127.0.0.1:1", pools: "  build:\n    sources: [127.0.0.0/8]\n"})
	d.args = []string{"--uid", fmt.Sprint(uid)}
	// What was made by hand before the first start is root's.
	if err := os.Mkdir(d.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(filepath.Dir(d.dir), 0o755), os.Chown(d.dir, uid, uid)); err != nil {
		t.Fatal(err)
	}
	d.run()
	statuses, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.cmd.Process.Pid))
	if err != nil || len(statuses) < 2 {
		t.Fatalf("%d threads, %v", len(statuses), err)
	}
	want := map[string]string{
		"Uid": strings.Repeat("65432 ", 4), "Gid": strings.Repeat("65432 ", 4), "Groups": "", "NoNewPrivs": "1", "Seccomp": "2",
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapAmb": "0000000000000000",
		"CapBnd": "0000000000001000", // NET_ADMIN alone, which no exec can reach
	}
	for _, path := range statuses {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			if w, known := want[key]; known && strings.Join(strings.Fields(value), " ") != strings.TrimSpace(w) {
				t.Errorf("%s: %s is %q, want %q", path, key, strings.TrimSpace(value), w)
			}
		}
	}
	started := d.wait("the start", func(e event) bool { return e.text("event") == "started" })
	details, _ := started["details"].(map[string]any)
	if details["user"] != float64(uid) || details["seccomp"] != "filter" || fmt.Sprint(details["capabilities"]) != "[]" {
		t.Errorf("the start says %v", details)
	}

	if err := os.Rename(d.path("events.jsonl"), d.path("events.old")); err != nil {
		t.Fatal(err)
	}
	d.write("127.0.0.1:1", "  other:\n    sources: [127.0.0.0/8]\n    allow: [github.com]\n")
	d.hangup()
	d.wait("the reload, in a log that was reopened", func(e event) bool { return e.text("event") == "reloaded" })
	for _, path := range []string{"events.jsonl", "state/alerts.db", "control.sock"} {
		info, err := os.Stat(d.path(path))
		if err != nil {
			t.Error(err)
		} else if owner := info.Sys().(*syscall.Stat_t).Uid; owner != uid {
			t.Errorf("%s belongs to %d", path, owner)
		}
	}
}
