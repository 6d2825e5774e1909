package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoFaultOfTheStateCostsAnAlert puts alerts.state_dir on a small disk of its
// own and does to it what disks and people do, while the daemon runs and
// between two runs. Each alert reaches Slack once or twice, and each fault shows
// in an event and in the metrics.
func TestNoFaultOfTheStateCostsAnAlert(t *testing.T) {
	needRoot(t)
	t.Parallel()
	s := newSlack(t)
	d := prepare(t, config{env: []string{"TEST_SLACK=" + s.url}})
	state := d.path("state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	disk := newSmallDisk(t, state, "256k")
	d.extra = "\nalerts: {state_dir: " + state + ", thresholds: {fold_groups: 1000}, slack: {webhook_url: \"${TEST_SLACK}\"}}\n"
	d.write(newZone(t).addr, alertPools)
	d.run()

	file := filepath.Join(state, "alerts.jsonl")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	refused := func(name string) {
		t.Helper()
		names = append(names, name)
		if r := connect(t, d.proxy, name+":443"); r.code != 403 {
			t.Fatal(r.status)
		}
		eventually(t, "an alert for "+name, func() bool { return s.mentions(name) > 0 }, d.dump)
	}
	seen := 0
	says := func(what, state string) {
		t.Helper()
		d.waitSince(seen, what, func(e event) bool {
			details, _ := e["details"].(map[string]any)
			return e.text("event") == "state-failed" && details["state"] == state
		})
		seen = len(d.events())
	}
	kept := func(value string) {
		t.Helper()
		eventually(t, "sallyport_state_kept "+value, func() bool { return strings.Contains(d.metrics(), "\nsallyport_state_kept "+value+"\n") }, d.dump)
	}
	counted := func(state string) {
		t.Helper()
		if !strings.Contains(d.metrics(), `sallyport_state_faults_total{state="`+state+`"} `) {
			t.Errorf("no metric counts %s", state)
		}
	}
	refused("before.example")
	kept("1")

	disk.fill()
	for i := range 40 { // more than the file's last page has room for
		connect(t, d.proxy, "many"+strings.Repeat("x", i)+".example:443")
	}
	refused("full.example")
	says("that the disk is full", "failing")
	kept("0")
	counted("failing")
	disk.free()
	says("that the disk has room again", "recovered")
	kept("1")

	d.kill() // a file that is open for writing keeps the kernel from it
	disk.readOnly(true)
	d.run()
	refused("readonly.example")
	says("that the disk is read-only", "failing")
	kept("0")
	disk.readOnly(false)
	says("that it can be written again", "recovered")

	must(os.Remove(file))
	refused("deleted.example")
	says("that the file was deleted", "missing")
	counted("missing")
	eventually(t, "the file", func() bool { _, err := os.Stat(file); return err == nil }, d.dump)

	tear := func() {
		t.Helper()
		data, err := os.ReadFile(file)
		must(err)
		copy(data[len(data)/2:], bytes.Repeat([]byte{0}, 512))
		must(os.WriteFile(file, data[:len(data)-100], 0o600))
	}
	tear()
	refused("torn.example")
	says("that the file was damaged", "damaged")
	counted("damaged")

	d.kill()
	tear()
	d.run()
	says("that the file was damaged while nothing ran", "damaged")
	refused("after.example")
	kept("1")

	d.kill() // with the disk full at the start
	disk.fill()
	d.run()
	refused("fullstart.example")
	for _, name := range names {
		if n := s.mentions(name); n > 2 {
			t.Errorf("%s is in %d messages", name, n)
		}
	}
}
