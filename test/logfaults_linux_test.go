package test

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// diskRun lays out a daemon whose directory, log and state included, is a
// disk of a size, and runs it.
func diskRun(t *testing.T, size string) (*faultRun, *smallDisk) {
	t.Helper()
	needRoot(t)
	s := newSlack(t)
	d := prepare(t, config{env: []string{"TEST_SLACK=" + s.url}})
	disk := newSmallDisk(t, d.dir, size)
	t.Cleanup(d.checkEvents)
	d.torn = true
	d.extra = "\nalerts: {state_dir: " + d.path("state") + ", thresholds: {fold_groups: 1000, scan_destinations: 1000}, slack: {webhook_url: \"${TEST_SLACK}\"}}\n"
	d.write(newZone(t).addr, alertPools)
	d.run()
	return newFaultRun(t, d, s), disk
}

// TestLogAndStateOnOneFullDiskCostNoAlert fills the disk that has both, kills
// the daemon there, starts it, and frees the disk, once by deleting the log.
func TestLogAndStateOnOneFullDiskCostNoAlert(t *testing.T) {
	t.Parallel()
	f, disk := diskRun(t, "512k")
	f.ask("before.example")
	f.told()
	f.shows("sallyport_log_stalled 0")
	f.shows("sallyport_state_kept 1")

	disk.fill()
	many := func(what string) {
		t.Helper()
		for i := range 40 { // more than the last pages have room for
			f.ask(fmt.Sprintf("%s%d.example", what, i))
		}
	}
	degraded := func() {
		t.Helper()
		f.shows("sallyport_log_stalled 1")
		f.shows("sallyport_state_kept 0")
		f.shows(`sallyport_log_faults_total{state="failing"} 1`)
	}
	many("full")
	f.told() // with nothing written anywhere
	degraded()

	f.kill()
	if raw, err := os.ReadFile(f.path("events.jsonl")); err != nil || strings.HasSuffix(string(raw), "\n") {
		t.Logf("the log was not cut within a line (%v); the start below proves less", err)
	}
	f.run()
	many("again")
	f.told()
	degraded()
	f.seen = len(f.events())
	disk.free()
	f.says("log-degraded", "recovered")
	f.says("state-failed", "recovered")
	f.says("book-failed", "recovered")
	f.shows("sallyport_log_stalled 0")
	f.shows("sallyport_state_kept 1")
	logged := map[string]int{}
	for _, e := range f.events() {
		if e.text("phase") == "refused" {
			logged[e.text("host")]++
		}
	}
	for _, name := range f.names {
		if strings.HasPrefix(name, "again") && logged[name] != 1 {
			t.Errorf("%s has %d lines", name, logged[name])
		}
	}

	disk.fill()
	many("culprit")
	f.shows("sallyport_log_stalled 1")
	if err := os.Remove(f.path("events.jsonl")); err != nil { // as people do who need room
		t.Fatal(err)
	}
	eventually(t, "a new log in the room of the old one", func() bool {
		info, err := os.Stat(f.path("events.jsonl"))
		return err == nil && info.Size() > 0
	}, f.dump)
	disk.free() // as others may have taken that room, too
	f.seen = 0
	f.says("log-degraded", "missing")
	f.says("log-degraded", "recovered")
	f.shows("sallyport_log_stalled 0")
	f.shows(`sallyport_log_faults_total{state="missing"} 1`)
	f.told()
	f.killed()
	f.ask("after.example")
	f.told()
	f.atMostTwice()
}

// TestALogThatIsDeletedCostsNoAlert deletes the log under the daemon and kills
// it at once, ten times; renames it with SIGHUP, which is no fault; and replaces it.
func TestALogThatIsDeletedCostsNoAlert(t *testing.T) {
	t.Parallel()
	f, _ := diskRun(t, "8m")
	log := f.path("events.jsonl")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		f.ask(fmt.Sprintf("before%d.example", i))
		must(os.Remove(log))
		f.ask(fmt.Sprintf("after%d.example", i))
		f.killed()
	}
	f.told()
	must(os.Remove(log))
	f.says("log-degraded", "missing")

	for i := range 3 {
		f.ask(fmt.Sprintf("rotated%d.example", i))
		must(os.Rename(log, fmt.Sprintf("%s.%d", log, i)))
		f.ask(fmt.Sprintf("renamed%d.example", i))
		f.hangup()
		eventually(t, "the new file", func() bool { _, err := os.Stat(log); return err == nil }, f.dump)
		must(os.Remove(fmt.Sprintf("%s.%d", log, i))) // as compression does
	}
	f.told()
	for state, count := range map[string]int{"missing": 1, "replaced": 0, "moved": 0} {
		f.shows(fmt.Sprintf(`sallyport_log_faults_total{state="%s"} %d`, state, count))
	}

	must(os.RemoveAll(f.path("state")))
	f.ask("stateless.example")
	f.says("state-failed", "missing")
	f.says("book-failed", "missing")
	f.shows(`sallyport_book_faults_total{state="missing"} 1`)
	must(os.WriteFile(log+".other", nil, 0o640))
	must(os.Rename(log+".other", log))
	f.ask("replaced.example")
	f.seen = 0
	f.says("log-degraded", "replaced")
	f.shows(`sallyport_log_faults_total{state="replaced"} 1`)
	f.told()
	f.killed()
	f.ask("last.example")
	f.told()
	f.atMostTwice()
}
