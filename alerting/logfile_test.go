package alerting_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/alerting"
)

// logStates are the states of log-degraded that a reader took, in order.
func logStates(k *taker) string {
	var states []string
	for _, e := range k.taken() {
		if e.Event == alerting.SystemLogDegraded {
			states = append(states, fmt.Sprint(e.Details["state"]))
		}
	}
	return strings.Join(states, " ")
}

// exists reports whether there is something at path.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// must ends the test at an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// checkPlaces holds where each event that lies in the file at path ends against
// what is there.
func checkPlaces(t *testing.T, k *taker, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	at, found := 0, 0
	for line := range bytes.Lines(data) {
		at += len(line)
		id := parsed(t, line).ID
		for _, e := range k.taken() {
			if id == "" || e.ID != id {
				continue
			}
			found++
			if e.Pos.Offset != int64(at) {
				t.Errorf("the line of %s ends at %d, not at %d", id, at, e.Pos.Offset)
			}
		}
	}
	if found == 0 {
		t.Error("no event lies in the file")
	}
}

// newTakenLog makes an Alerting that does not run yet, with a log in a file and a
// stand-in for the correlator.
func newTakenLog(t *testing.T) (*gateLog, *taker, string) {
	t.Helper()
	path, k := filepath.Join(t.TempDir(), "events.jsonl"), &taker{}
	g := newLog(t, toFile(path))
	g.SetReader(k.reader())
	return g, k, path
}

// TestARefusalIsInAFileThatHasANameWhateverBecomesOfTheLog deletes and replaces
// the file before each refusal.
func TestARefusalIsInAFileThatHasANameWhateverBecomesOfTheLog(t *testing.T) {
	t.Parallel()
	g, k, path := newTakenLog(t)
	g.run(t)
	for i := range 20 {
		id := "r" + strconv.Itoa(i)
		g.Record(refusal(id))
		if ids(readLog(t, path))[id] != 1 {
			t.Fatalf("refusal %s is not in the file", id)
		}
		if i%3 == 2 {
			must(t, os.WriteFile(path+".other", nil, 0o640))
			must(t, os.Rename(path+".other", path))
			g.Record(allowed("a" + strconv.Itoa(i)))
			continue
		}
		must(t, os.Remove(path))
	}
	last := refusal("last")
	g.Record(last)
	must(t, g.stop())
	if count := ids(k.taken()); len(count) != 27 {
		t.Errorf("taken: %v", count)
	}
	if missing, replaced := g.value("sallyport_log_faults_total", "missing"), g.value("sallyport_log_faults_total", "replaced"); missing != 14 || replaced != 6 {
		t.Errorf("%v deletions and %v replacements counted", missing, replaced)
	}
	if states := strings.Fields(logStates(k)); len(states) != 20 || states[0] != "missing" || states[2] != "replaced" {
		t.Errorf("said: %v", states)
	}
	checkPlaces(t, k, path)
}

// TestALogThatIsDeletedWhileNothingHappensIsMadeAgain within a second or two.
func TestALogThatIsDeletedWhileNothingHappensIsMadeAgain(t *testing.T) {
	t.Parallel()
	g, k, path := newTakenLog(t)
	g.run(t)
	g.Record(refusal("r"))
	must(t, os.Remove(path))
	eventually(t, "the file is there again", func() bool { return exists(path) })
	eventually(t, "somebody says so", func() bool { return logStates(k) == "missing" })
}

// TestANewLogBeginsWithWhatAlertingHasNotKept, so that a crash then costs nothing.
func TestANewLogBeginsWithWhatAlertingHasNotKept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	k := &taker{}
	var mu sync.Mutex
	var kept alerting.Position
	g := newLog(t, toFile(path))
	g.SetReader(k.reader())
	g.SetKept(func() alerting.Position { mu.Lock(); defer mu.Unlock(); return kept })
	g.run(t)
	for _, id := range []string{"a", "b", "c"} {
		g.Record(refusal(id))
	}
	eventually(t, "all are taken", func() bool { return k.has("c") })
	mu.Lock()
	kept = k.taken()[0].Pos
	mu.Unlock()
	must(t, os.Remove(path))
	g.Record(refusal("d"))
	var got []string
	for _, e := range readLog(t, path) {
		if e.Kind == alerting.KindConn {
			got = append(got, e.ID)
		}
	}
	if strings.Join(got, " ") != "b c d" {
		t.Errorf("the new file has %v", got)
	}
	must(t, g.stop())
	resumed := &taker{saved: kept}
	runOnce(t, path, resumed)
	if !resumed.has("b") || !resumed.has("c") || !resumed.has("d") {
		t.Errorf("after a crash: %v", ids(resumed.taken()))
	}
	for _, e := range k.taken() {
		if info, _ := os.Stat(path); e.ID == "d" && e.Pos.Offset > info.Size() {
			t.Errorf("d ends at %d", e.Pos.Offset)
		}
	}
}

// TestALogThatIsDeletedBeforeItWasReadBackCostsNothing: neither its lines for
// this run, nor for the next one.
func TestALogThatIsDeletedBeforeItWasReadBackCostsNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	first := &taker{}
	runOnce(t, path, first, refusal("a"), refusal("b"))
	for what, saved := range map[string]alerting.Position{
		"read in part":         first.taken()[0].Pos,
		"after another's file": {Dev: first.taken()[0].Pos.Dev, Inode: 1, Offset: 1},
	} {
		k := &taker{saved: saved}
		config := toFile(path)
		config.Alerts.StateDir = filepath.Dir(path)
		g := newLog(t, config)
		g.SetReader(k.reader())
		g.SetKept(func() alerting.Position { return saved })
		must(t, g.Open())
		must(t, os.Remove(path))
		g.run(t)
		eventually(t, "what the log had is taken, "+what, func() bool { return k.has("b") })
		g.Record(refusal("c"))
		must(t, g.stop())
		next := &taker{saved: saved}
		runOnce(t, path, next)
		if !next.has("b") || !next.has("c") {
			t.Errorf("%s: the next run takes %v", what, ids(next.taken()))
		}
	}
}

// TestRotationsAreNoFaults renames with SIGHUP, before and after somebody made
// the new file, and copies and truncates.
func TestRotationsAreNoFaults(t *testing.T) {
	t.Parallel()
	g, k, path := newTakenLog(t)
	g.run(t)
	looked := func() { // two refusals, as a look may come behind the first
		g.Look()
		g.Record(refusal("look"))
		g.Look()
		g.Record(refusal("look"))
	}
	g.Record(refusal("a"))
	must(t, os.Rename(path, path+".1"))
	looked()
	g.Record(refusal("b")) // before SIGHUP: still the old one
	g.Reopen()
	eventually(t, "the file is there again", func() bool { return exists(path) })
	g.Record(refusal("c"))

	must(t, os.Rename(path, path+".2"))
	must(t, os.WriteFile(path, nil, 0o640)) // logrotate's "create"
	looked()
	g.Record(refusal("d"))
	g.Reopen()
	eventually(t, "the new file is used", func() bool {
		g.Record(refusal("probe"))
		return ids(readLog(t, path))["probe"] > 0
	})
	g.Record(refusal("e"))
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path+".3", data, 0o640))
	must(t, os.Truncate(path, 0))
	looked()
	g.Record(refusal("f"))
	must(t, g.stop())
	if states := logStates(k); states != "" {
		t.Errorf("said: %s", states)
	}
	for id, file := range map[string]string{"a": ".1", "b": ".1", "c": ".2", "d": ".2", "e": ".3", "f": ""} {
		if ids(readLog(t, path+file))[id] != 1 {
			t.Errorf("%s is not in events.jsonl%s", id, file)
		}
	}
	if info, _ := os.Stat(path); k.taken()[len(k.taken())-1].Pos.Offset != info.Size() {
		t.Error("the last place is not the end of the file")
	}
}

// TestARenameWithoutSIGHUPIsNoticed after a while.
func TestARenameWithoutSIGHUPIsNoticed(t *testing.T) {
	t.Parallel()
	g, k, path := newTakenLog(t)
	g.SetMoveGrace(time.Millisecond)
	g.run(t)
	g.Record(refusal("a"))
	must(t, os.Rename(path, path+".away"))
	g.Record(refusal("b"))
	eventually(t, "the path is used again", func() bool { return exists(path) })
	g.Record(refusal("c"))
	eventually(t, "somebody says so", func() bool { return logStates(k) == "moved" })
	must(t, g.stop())
	if old, now := ids(readLog(t, path+".away")), ids(readLog(t, path)); old["a"] != 1 || old["b"] != 1 || now["c"] != 1 || now["b"] != 0 {
		t.Errorf("the old file has %v, the new one %v", old, now)
	}
	checkPlaces(t, k, path)
}

// TestADeletedLogThatCannotBeMadeAgainWaits: lines stay in the buffer until the
// directory is back.
func TestADeletedLogThatCannotBeMadeAgainWaits(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	must(t, os.Mkdir(dir, 0o750))
	path := filepath.Join(dir, "events.jsonl")
	k := &taker{}
	g := newLog(t, toFile(path))
	g.SetReader(k.reader())
	g.run(t)
	g.Record(refusal("a"))
	must(t, os.RemoveAll(dir))
	for i := range 10 {
		g.Record(refusal("r" + strconv.Itoa(i)))
	}
	eventually(t, "somebody says so", func() bool { return logStates(k) == "failing" })
	if g.value("sallyport_log_stalled", "") != 1 || g.value("sallyport_log_faults_total", "failing") != 1 {
		t.Error("the metrics do not show it")
	}
	must(t, os.Mkdir(dir, 0o750))
	eventually(t, "it is well again", func() bool { return strings.HasSuffix(logStates(k), "recovered") })
	must(t, g.stop())
	count := ids(readLog(t, path))
	for i := range 10 {
		if id := "r" + strconv.Itoa(i); count[id] != 1 {
			t.Errorf("%s is there %d times", id, count[id])
		}
	}
	if states := logStates(k); states != "failing missing recovered" || g.drop() != 0 {
		t.Errorf("said: %s; %v dropped", states, g.drop())
	}
}

// TestAStallShowsThoughNobodyWaits fills a pipe that nobody reads with lines
// that neither a refusal nor the reader waits for.
func TestAStallShowsThoughNobodyWaits(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	must(t, err)
	defer writer.Close()
	k := &taker{}
	g := newLog(t, toStream(writer))
	g.SetReader(k.reader())
	g.run(t)
	if g.value("sallyport_log_stalled", "") != 0 {
		t.Error("stalled from the begin")
	}
	alert := alerting.Event{Time: noon, Kind: alerting.KindAlert, ID: "alert", Summary: strings.Repeat("x", 500)}
	for range 300 {
		g.Record(alert)
	}
	eventually(t, "the metric shows it", func() bool { return g.value("sallyport_log_stalled", "") == 1 })
	eventually(t, "an event says so", func() bool { return logStates(k) == "failing" })
	if g.drop() != 0 {
		t.Errorf("%v lines dropped", g.drop())
	}
	go io.Copy(io.Discard, reader)
	eventually(t, "the metric shows that it is over", func() bool { return g.value("sallyport_log_stalled", "") == 0 })
	must(t, g.stop())
	reader.Close()
}

// TestARotationThatDeletesAtOnceLosesNothing has SIGHUP come when the renamed
// file is compressed and gone already.
func TestARotationThatDeletesAtOnceLosesNothing(t *testing.T) {
	t.Parallel()
	g, k, path := newTakenLog(t)
	var start alerting.Position
	g.SetKept(func() alerting.Position { return start })
	must(t, g.Open())
	info, err := os.Stat(path)
	must(t, err)
	start = alerting.PlaceIn(info)
	g.run(t)
	g.Record(refusal("a"))
	must(t, os.Remove(path))
	g.Reopen()
	eventually(t, "the file is there again", func() bool { return exists(path) })
	g.Record(refusal("b"))
	must(t, g.stop())
	if count := ids(readLog(t, path)); count["a"] != 1 || count["b"] != 1 || logStates(k) != "" {
		t.Errorf("the file has %v; said: %s", count, logStates(k))
	}
	checkPlaces(t, k, path)
}
