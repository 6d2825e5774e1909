package alerting_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/alerting"
)

// A taker stands in for the correlator and its store.
type taker struct {
	mu     sync.Mutex
	saved  alerting.Position
	begun  []alerting.Position
	events []alerting.Event
	hold   chan struct{} // take waits for it, if not nil
}

func (k *taker) reader() alerting.FakeReader {
	return alerting.FakeReader{
		Resume: func() (alerting.Position, bool) { return k.saved, !k.saved.IsZero() },
		Begin: func(p alerting.Position) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.begun = append(k.begun, p)
		},
		Take: func(e *alerting.Event) {
			if k.hold != nil {
				<-k.hold
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			k.events = append(k.events, *e)
		},
	}
}

func (k *taker) taken() []alerting.Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.events[:len(k.events):len(k.events)]
}

func (k *taker) has(id string) bool { return ids(k.taken())[id] > 0 }

// runOnce runs over path with k from the saved place, records events, stops,
// and returns the system events that k took.
func runOnce(t *testing.T, path string, k *taker, events ...alerting.Event) {
	t.Helper()
	config := toFile(path)
	config.Alerts.StateDir = filepath.Dir(path)
	g := newLog(t, config)
	g.SetReader(k.reader())
	g.run(t)
	for _, e := range events {
		g.Record(e)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
}

// resumedDetails are those of the only resumed event.
func resumedDetails(t *testing.T, k *taker) map[string]any {
	t.Helper()
	for _, e := range k.taken() {
		if e.Event == alerting.SystemResumed {
			return e.Details
		}
	}
	t.Fatal("nobody says that the log was resumed")
	return nil
}

func TestEveryEventCarriesThePlaceWhereItsLineEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	os.WriteFile(path, []byte("{}\n"), 0o640)
	k := &taker{}
	g := newLog(t, toFile(path))
	reader := k.reader()
	take := reader.Take
	reader.Take = func(e *alerting.Event) {
		if info, err := os.Stat(path); err != nil || info.Size() < e.Pos.Offset || e.Pos.IsZero() {
			t.Errorf("%s was taken before its line was written: %v", e.ID, e.Pos)
		}
		take(e)
	}
	g.SetReader(reader)
	g.run(t)
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 100 {
				g.Record(allowed(fmt.Sprintf("w%di%d", w, i)))
			}
			g.Record(refusal(fmt.Sprintf("w%d", w)))
		})
	}
	writers.Wait()
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(path)
	if len(k.events) != 808 || len(k.begun) != 1 || k.begun[0].Offset != 3 {
		t.Fatalf("%d events, begun at %v", len(k.events), k.begun)
	}
	last := k.begun[0]
	for _, e := range k.events {
		line := data[last.Offset:e.Pos.Offset]
		if parsed(t, line).ID != e.ID || !e.Pos.SameFile(last) {
			t.Fatalf("%s ends at %d, behind %q", e.ID, e.Pos.Offset, line)
		}
		last = e.Pos
	}
}

func TestPlacesAreRightAfterTheFileWasTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	k := &taker{}
	g := newLog(t, toFile(path))
	g.SetReader(k.reader())
	g.run(t)
	g.Record(refusal("a"))
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	g.Record(refusal("b"))
	g.stop()
	if info, _ := os.Stat(path); len(k.events) != 2 || k.events[1].Pos.Offset != info.Size() {
		t.Errorf("the last of %d lines ends at %v in a file of %d", len(k.events), k.events[1].Pos, info.Size())
	}
}

func TestAPlaceWithinALineBeginsWithTheNext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	first, second := &taker{}, &taker{}
	runOnce(t, path, first, refusal("a"), refusal("b"), refusal("c"))
	second.saved = first.events[0].Pos
	second.saved.Offset += 5
	runOnce(t, path, second)
	if d := resumedDetails(t, second); second.has("b") || !second.has("c") || fmt.Sprint(d["skipped"]) != "0" || second.events[0].Pos != first.events[2].Pos {
		t.Errorf("taken: %v, details %v", ids(second.taken()), d)
	}
}

func TestWhatWasLoggedAfterTheKeptPlaceIsTakenAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	first := &taker{}
	runOnce(t, path, first, refusal("a"), refusal("b"), alerting.Event{Time: noon, Kind: alerting.KindAlert, ID: "alert"}, allowed("c"), refusal("d"))
	// A crash left a torn line, and something else wrote there too.
	file, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	fmt.Fprintf(file, "{\"level\":\"info\"}\n%s\n{\"v\":1,\"kind\":\"co", strings.Repeat("x", 100_000))
	file.Close()

	second := &taker{saved: first.events[1].Pos}
	runOnce(t, path, second, refusal("e"))
	var got []string
	for _, e := range second.taken() {
		if e.Kind == alerting.KindConn {
			got = append(got, e.ID)
			if e.Pos.Offset <= second.saved.Offset {
				t.Errorf("%s lies at %d", e.ID, e.Pos.Offset)
			}
		}
	}
	if strings.Join(got, " ") != "c d e" {
		t.Errorf("taken: %v", got)
	}
	if d := resumedDetails(t, second); fmt.Sprint(d["events"], d["skipped"], d["whole_file"]) != "2 3 <nil>" {
		t.Errorf("details are %v", d)
	}
}

func TestLiveAndReadBackEventsAreTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	live, back := &taker{}, &taker{}
	runOnce(t, path, live, aConn(), refusal("r"))
	back.saved = live.events[0].Pos
	back.saved.Offset = 0
	back.saved.Inode++ // another file: all of this one
	runOnce(t, path, back)
	if len(back.events) < 2 {
		t.Fatalf("taken: %v", back.events)
	}
	for i, e := range live.events {
		a, _ := json.Marshal(e)
		b, _ := json.Marshal(back.events[i])
		if !bytes.Equal(a, b) || e.Pos != back.events[i].Pos {
			t.Errorf("live %s at %v\nback %s at %v", a, e.Pos, b, back.events[i].Pos)
		}
	}
}

func TestARotatedOrShortenedFileIsReadWhole(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(t *testing.T, path string)
		want   string
	}{
		{"rotated away and compressed", func(t *testing.T, path string) {
			data, _ := os.ReadFile(path)
			os.Rename(path, filepath.Join(t.TempDir(), "events.jsonl.1"))
			os.WriteFile(path, data[len(data)/2:], 0o640)
		}, "another file"},
		{"cut short", func(t *testing.T, path string) {
			data, _ := os.ReadFile(path)
			os.WriteFile(path, data[:len(data)/2], 0o640)
		}, "shorter than what was read of it: it was cut, or it is a new file with the number"},
	} {
		path := filepath.Join(t.TempDir(), "events.jsonl")
		first, second := &taker{}, &taker{}
		runOnce(t, path, first, refusal("a"), refusal("b"))
		c.change(t, path)
		second.saved = first.events[1].Pos
		runOnce(t, path, second)
		if d := resumedDetails(t, second); !strings.Contains(fmt.Sprint(d["whole_file"]), c.want) || fmt.Sprint(d["events"]) != "1" {
			t.Errorf("%s: details are %v", c.what, d)
		}
	}
}

// TestAFileWithTheNumberOfADeletedOneIsAnother: file systems give the number of
// a deleted file to the next that is made, which may be longer already.
func TestAFileWithTheNumberOfADeletedOneIsAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	first, second, third := &taker{}, &taker{}, &taker{}
	runOnce(t, path, first, refusal("a"), refusal("b"))
	if first.events[0].Pos.Born == 0 {
		cannot(t, "a file system that says when a file was made")
	}
	second.saved = first.events[1].Pos
	second.saved.Born-- // as if the place had been kept for the file before
	runOnce(t, path, second)
	if d := resumedDetails(t, second); !strings.Contains(fmt.Sprint(d["whole_file"]), "another file") || fmt.Sprint(d["events"]) != "2" {
		t.Errorf("details are %v", d)
	}

	number := func() uint64 {
		info, err := os.Stat(path)
		must(t, err)
		return info.Sys().(*syscall.Stat_t).Ino
	}
	before, wanted := first.events[len(first.events)-1].Pos, number()
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.Remove(path))
	for try := 0; ; try++ {
		must(t, os.WriteFile(path, append([]byte("a longer one\n"), data...), 0o640))
		if number() == wanted {
			break
		} else if try == 100 {
			cannot(t, "a file system that gives a number again")
		}
		must(t, os.Rename(path, fmt.Sprint(path, ".", try)))
	}
	third.saved = before
	runOnce(t, path, third)
	if d := resumedDetails(t, third); !strings.Contains(fmt.Sprint(d["whole_file"]), "another file") || fmt.Sprint(d["events"]) != "2" {
		t.Errorf("the number again: details are %v", d)
	}
}

func TestWithoutAKeptPlaceHistoryIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	runOnce(t, path, &taker{}, refusal("old"))
	k := &taker{}
	runOnce(t, path, k, refusal("new"))
	if k.has("old") || !k.has("new") {
		t.Errorf("taken: %v", ids(k.taken()))
	}
}

func TestAFullQueueIsMadeGoodFromTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	k := &taker{hold: make(chan struct{})}
	g := newLog(t, toFile(path))
	g.SetReader(k.reader())
	g.SetQueue(10)
	g.run(t)
	for i := range 500 {
		g.Record(allowed(strconv.Itoa(i)))
	}
	close(k.hold)
	for i := range 500 {
		g.Record(allowed(strconv.Itoa(500 + i)))
	}
	eventually(t, "all are taken", func() bool { return len(k.taken()) >= 1000 })
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	for i, e := range k.events {
		if e.ID != strconv.Itoa(i) {
			t.Fatalf("event %d is %s %v", i, e.ID, e.Details)
		}
	}
	if g.drop() != 0 {
		t.Errorf("%v counted as lost", g.drop())
	}
}

// TestAFullQueueLosesAndDoublesNothing lets many record at once, more than a
// reader that stops now and then can take, and holds what it took against the
// log: the same events, in the same order, each once.
func TestAFullQueueLosesAndDoublesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	const writers, each = 8, 400
	k := &taker{hold: make(chan struct{})}
	g := newLog(t, toFile(path))
	g.SetReader(k.reader())
	g.SetQueue(16)
	g.run(t)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				e := allowed(strconv.Itoa(w*each + i))
				switch {
				case i%50 == 0:
					e = refusal(e.ID)
				case i%20 == 0:
					g.System(alerting.SystemReloadFailed, map[string]any{"error": e.ID})
					continue
				}
				g.Record(e)
				if i%3 == 0 {
					select {
					case k.hold <- struct{}{}: // the reader takes one more
					case <-time.After(time.Millisecond):
					}
				}
			}
		})
	}
	writing.Wait()
	close(k.hold)
	eventually(t, "all are taken", func() bool { return len(k.taken()) >= writers*each })
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	name := func(e alerting.Event) string {
		if e.Kind == alerting.KindSystem {
			return fmt.Sprint("system ", e.Details["error"])
		}
		return e.ID
	}
	logged := readLog(t, path)
	if len(logged) != writers*each || len(k.events) != len(logged) {
		t.Fatalf("%d events, %d lines, %d taken", writers*each, len(logged), len(k.events))
	}
	for i, e := range k.events {
		if name(e) != name(logged[i]) {
			t.Fatalf("event %d is %s, in the log %s", i, name(e), name(logged[i]))
		}
	}
}

func TestAFullQueueWithoutAFileIsSaid(t *testing.T) {
	k := &taker{hold: make(chan struct{})}
	w := &faultyWriter{}
	g := newLog(t, toStream(w))
	g.SetReader(k.reader())
	g.SetQueue(10)
	g.run(t)
	for i := range 500 {
		g.Record(allowed(strconv.Itoa(i)))
	}
	close(k.hold)
	var missed int
	eventually(t, "it is said", func() bool {
		for _, e := range k.taken() {
			if e.Event == alerting.SystemEventsMissed {
				missed = int(e.Details["missed"].(int64))
			}
		}
		return missed > 0
	})
	if taken := len(ids(k.taken())); taken+missed != 500 || float64(missed) != g.drop() {
		t.Errorf("%d taken, %d missed, %v counted", taken, missed, g.drop())
	}
}

func TestDecisionsAreFoundByTheirID(t *testing.T) {
	g := newLog(t, toStream(&faultyWriter{})).run(t)
	open, progress, closed := aConn(), aConn(), aConn()
	progress.Phase, closed.Phase, closed.Sent = alerting.PhaseProgress, alerting.PhaseClose, 17
	for _, e := range []alerting.Event{open, progress, progress, closed} {
		g.Record(e)
	}
	events, ok := g.Decision(open.ID)
	if !ok || len(events) != 2 || events[0].Phase != alerting.PhaseOpen || events[1].Phase != alerting.PhaseClose || events[1].Sent != 17 {
		t.Errorf("got %+v", events)
	}
	if _, ok := g.Decision("none"); ok {
		t.Error("an unknown id is found")
	}
	for i := range 10_000 {
		g.Record(allowed(strconv.Itoa(i)))
	}
	if _, ok := g.Decision(open.ID); ok {
		t.Error("the oldest of 10,001 decisions is still there")
	}
	if _, ok := g.Decision("0"); !ok {
		t.Error("the 10,000th last decision is gone")
	}
}

func TestStartSaysWhetherAlertsSurvive(t *testing.T) {
	for _, c := range []struct {
		stateDir, events string
		want             bool
	}{
		{"/state", "events.jsonl", true}, {"", "events.jsonl", false}, {"/state", "stdout", false},
	} {
		config := toStream(&faultyWriter{})
		config.Alerts.StateDir = c.stateDir
		if c.events != "stdout" {
			config.Events.Events = filepath.Join(t.TempDir(), c.events)
		}
		k := &taker{}
		g := newLog(t, config)
		g.SetReader(k.reader())
		g.run(t)
		g.System(alerting.SystemStarted, map[string]any{"version": "1"})
		g.stop()
		if d := k.events[0].Details; d["alerts_survive_restart"] != c.want || d["version"] != "1" {
			t.Errorf("%+v: details are %v", c, d)
		}
	}
}
