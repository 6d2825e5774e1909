package alerting_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"sallyport/alerting"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A gateLog is an Alerting that runs, and the way to stop it.
type gateLog struct {
	*alerting.Alerting
	stop func() error
	drop func() float64 // sallyport_events_dropped_total
	// value is that of a metric without labels, or with this one; -1: none.
	value func(name, label string) float64
}

// newLog makes an Alerting that does not run yet.
func newLog(t testing.TB, config alerting.Config) *gateLog {
	t.Helper()
	registry := prometheus.NewRegistry()
	config.Registerer, config.Log = registry, zerolog.Nop()
	a, err := alerting.New(config)
	if err != nil {
		t.Fatal(err)
	}
	value := func(name, label string) float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				if family.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
		return -1
	}
	return &gateLog{Alerting: a, value: value, drop: func() float64 { return value("sallyport_events_dropped_total", "") }}
}

// run starts it. stop ends it, once, and returns what Run returned.
func (g *gateLog) run(t testing.TB) *gateLog {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	g.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { g.stop() })
	return g
}

func toFile(path string) alerting.Config {
	return alerting.Config{Events: allowlists.Log{Events: path}}
}

func toStream(w io.Writer) alerting.Config {
	return alerting.Config{Events: allowlists.Log{Events: "stdout"}, Stdout: w}
}

func refusal(id string) alerting.Event {
	return alerting.Event{Time: noon, Kind: alerting.KindConn, ID: id, Via: "connect", Host: "evil.example", Reason: allowlists.NotInAllowlist, Phase: alerting.PhaseRefused}
}

func allowed(id string) alerting.Event {
	e := aConn()
	e.ID = id
	return e
}

// eventually waits until ok, for ten seconds at most.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// readLog reads the events of log files; any line that is none is a failure.
func readLog(t testing.TB, paths ...string) []alerting.Event {
	t.Helper()
	var events []alerting.Event
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 0 && data[len(data)-1] != '\n' {
			t.Errorf("%s ends within a line", path)
		}
		for line := range bytes.Lines(data) {
			events = append(events, parsed(t, line))
		}
	}
	return events
}

func ids(events []alerting.Event) map[string]int {
	count := make(map[string]int)
	for _, e := range events {
		if e.Kind != alerting.KindSystem {
			count[e.ID]++
		}
	}
	return count
}

func TestARefusalIsInTheFileWhenRecordReturns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	g := newLog(t, toFile(path)).run(t)
	for i := range 50 {
		id := "r" + strconv.Itoa(i)
		g.Record(refusal(id))
		if ids(readLog(t, path))[id] != 1 {
			t.Fatalf("refusal %s is not in the file", id)
		}
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode is %v", info.Mode())
	}
}

func TestRefusalsTogetherAreInTheFileWhenObserveRefusedReturns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	g := newLog(t, toFile(path)).run(t)
	for i := range 20 {
		var all []dnsfilter.QueryRecord
		for j := range i + 1 {
			all = append(all, dnsfilter.QueryRecord{ID: fmt.Sprintf("r%dx%d", i, j), Subject: aSubject(), By: dnsfilter.ByClient})
		}
		g.ObserveRefused(all)
		written := ids(readLog(t, path))
		for _, r := range all {
			if written[r.ID] != 1 {
				t.Fatalf("refusal %s is %d times in the file", r.ID, written[r.ID])
			}
		}
	}
}

func TestAllowedLinesAreOutWithin100ms(t *testing.T) {
	reader, writer := io.Pipe()
	g := newLog(t, toStream(writer)).run(t)
	lines := bufio.NewReader(reader)
	for range 5 {
		start := time.Now()
		g.Record(allowed("a"))
		if took := time.Since(start); took > 20*time.Millisecond {
			t.Errorf("recording took %v", took)
		}
		if _, err := lines.ReadSlice('\n'); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("the line came after %v", took)
		}
	}
	go io.Copy(io.Discard, lines)
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	writer.Close()
}

func TestWritersNeverTearALineAndNothingIsLostOverRotations(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	g := newLog(t, toFile(path)).run(t)
	var writers sync.WaitGroup
	for w := range 32 {
		writers.Go(func() {
			for i := range 100 {
				id := fmt.Sprintf("w%di%d", w, i)
				if i%4 == 0 {
					g.Record(refusal(id))
				} else {
					g.Record(allowed(id))
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	paths := []string{path}
	exists := func() bool { _, err := os.Stat(path); return err == nil }
	eventually(t, "the file is there", exists)
	for n := 1; ; n++ {
		select {
		case <-done:
		default:
			old := path + "." + strconv.Itoa(n)
			if err := os.Rename(path, old); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, old)
			g.Reopen()
			eventually(t, "the file is there again", exists)
			continue
		}
		break
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	count := ids(readLog(t, paths...))
	for w := range 32 {
		for i := range 100 {
			if id := fmt.Sprintf("w%di%d", w, i); count[id] != 1 {
				t.Errorf("%s is there %d times", id, count[id])
			}
		}
	}
	if len(paths) < 3 {
		t.Errorf("only %d rotations", len(paths)-1)
	}
}

func TestAFileThatEndsWithinALineGetsItsNewline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	os.WriteFile(path, []byte(`{"v":1,"time":"2026-`), 0o640)
	g := newLog(t, toFile(path)).run(t)
	g.Record(refusal("r"))
	data, _ := os.ReadFile(path)
	lines := strings.Split(string(data), "\n")
	if len(lines) != 3 || parsed(t, []byte(lines[1])).ID != "r" {
		t.Errorf("the file is %q", data)
	}
}

// A faultyWriter fails with err, after it took a part of what it is given,
// while broken.
type faultyWriter struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	broken error
	tries  atomic.Int64
}

func (f *faultyWriter) Write(p []byte) (int, error) {
	f.tries.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == nil {
		return f.buf.Write(p)
	}
	n, _ := f.buf.Write(p[:min(7, len(p)/2)])
	return n, f.broken
}

func (f *faultyWriter) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
}

func (f *faultyWriter) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.buf.String()
}

func TestShortWritesAreCompleted(t *testing.T) {
	w := &faultyWriter{broken: syscall.ENOSPC}
	g := newLog(t, toStream(w)).run(t)
	start := time.Now()
	for i := range 20 {
		g.Record(refusal(strconv.Itoa(i)))
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("refusals waited %v for a log that fails", took)
	}
	eventually(t, "three tries", func() bool { return w.tries.Load() >= 3 })
	w.set(nil)
	eventually(t, "all is written", func() bool { return strings.Contains(w.text(), `"recovered"`) && g.Waiting() == 0 })
	var states []string
	for line := range strings.Lines(w.text()) {
		if e := parsed(t, []byte(line)); e.Event == alerting.SystemLogDegraded {
			states = append(states, fmt.Sprint(e.Details["state"], " ", e.Details["cause"], " ", e.Details["lost"]))
		}
	}
	want := "failing no space left on device 0, recovered no space left on device 0"
	if got := strings.Join(states, ", "); got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	if g.drop() != 0 {
		t.Errorf("%v lines lost", g.drop())
	}
}

func TestAStalledPipeHoldsUpNobodyForLong(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	g := newLog(t, toStream(writer))
	g.SetBuffer(256 << 10)
	g.run(t)
	// Nobody reads: the pipe takes 64 KiB, then the writer hangs.
	for i := range 300 {
		g.Record(allowed("a" + strconv.Itoa(i)))
	}
	start := time.Now()
	var waiters sync.WaitGroup
	for i := range 32 {
		waiters.Go(func() { g.Record(refusal("r" + strconv.Itoa(i))) })
	}
	waiters.Wait()
	if took := time.Since(start); took < 500*time.Millisecond || took > 1500*time.Millisecond {
		t.Errorf("32 refusals waited %v", took)
	}
	start = time.Now()
	for i := range 200 {
		g.Record(refusal("s" + strconv.Itoa(i)))
	}
	if took := time.Since(start); took > 500*time.Millisecond || g.drop() != 0 {
		t.Errorf("200 more refusals took %v although the stall is known; %v dropped", took, g.drop())
	}
	for i := range 1000 {
		g.Record(allowed("b" + strconv.Itoa(i)))
	}
	total := 300 + 32 + 200 + 1000
	written := make(map[string]int)
	lost := int64(-1)
	lines := bufio.NewScanner(reader)
	for lost < 0 && lines.Scan() {
		e := parsed(t, lines.Bytes())
		if e.Kind == alerting.KindConn {
			written[e.ID]++
		}
		if e.Event == alerting.SystemLogDegraded && e.Details["state"] == "recovered" {
			lost = int64(e.Details["lost"].(float64))
		}
	}
	// The lines of two alerts, of the refusals and of the log, may be among the lost.
	if sum := int(lost) + len(written); sum < total || sum > total+2 || lost == 0 || float64(lost) != g.drop() {
		t.Errorf("%d written, %d said to be lost, %v counted; want %d together", len(written), lost, g.drop(), total)
	}
	go io.Copy(io.Discard, reader)
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	reader.Close()
}

// TestRefusalsThatDidNotWaitAreCounted sends refusals together, as DNS does,
// before and while the stall is known: the end of the trouble says how many went
// before their lines.
func TestRefusalsThatDidNotWaitAreCounted(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	g := newLog(t, toStream(writer)).run(t)
	together := func(name string, n int) {
		var all []dnsfilter.QueryRecord
		for i := range n {
			all = append(all, dnsfilter.QueryRecord{ID: name + strconv.Itoa(i), Subject: aSubject(), By: dnsfilter.ByClient})
		}
		g.ObserveRefused(all)
	}
	lines := bufio.NewScanner(reader)
	told := make(chan any, 1)
	written := make(map[string]int)
	read := func() {
		for lines.Scan() {
			e := parsed(t, lines.Bytes())
			written[e.ID]++
			if e.Event == alerting.SystemLogDegraded && e.Details["state"] == "recovered" {
				told <- e.Details["unwaited"]
				break
			}
		}
		_, _ = io.Copy(io.Discard, reader)
	}
	for i := range 300 { // nobody reads: the pipe takes 64 KiB, then the writer hangs
		g.Record(allowed("a" + strconv.Itoa(i)))
	}
	together("late", 5)
	together("known", 3)
	done := make(chan struct{})
	go func() {
		defer close(done)
		read()
	}()
	if n := <-told; n != 8.0 {
		t.Errorf("%v refusals are said to have been sent before their lines, want 8", n)
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	writer.Close()
	<-done
	for _, id := range []string{"late0", "late4", "known0", "known2"} {
		if written[id] != 1 {
			t.Errorf("refusal %s is %d times in the log", id, written[id])
		}
	}
}

func TestAlertsGoOnWhileThePipeIsStalled(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	k := &taker{}
	g := newLog(t, toStream(writer))
	g.SetReader(k.reader())
	g.run(t)
	start := time.Now()
	for i := range 1000 {
		g.Record(allowed(strconv.Itoa(i)))
	}
	eventually(t, "all are taken", func() bool { return len(ids(k.taken())) == 1000 })
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the last event was taken after %v", took)
	}
	go io.Copy(io.Discard, reader)
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	reader.Close()
}

func TestAReaderThatWentAwayIsNoEnd(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer writer.Close()
	g := newLog(t, toStream(writer))
	g.SetFlushTime(100 * time.Millisecond)
	g.run(t)
	start := time.Now()
	g.Record(refusal("r"))
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("the refusal waited %v", took)
	}
	if g.Gate() != allowlists.Allowed {
		t.Error("the gate closed although the buffer has room")
	}
	if err := g.stop(); err == nil {
		t.Error("lines are lost, and nobody says so")
	}
}

func TestTheFullDeviceIsSurvived(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Log("no /dev/full here; TestShortWritesAreCompleted covers ENOSPC")
		return
	}
	config := toFile("/dev/full")
	config.Events.OnError = "deny"
	var policies atomic.Int64
	g := newLog(t, config)
	g.SetBuffer(64 << 10)
	g.SetReader(alerting.FakeReader{Take: func(e *alerting.Event) {
		if e.Event == alerting.SystemLogDegraded {
			policies.Add(1)
		}
	}})
	g.SetFlushTime(100 * time.Millisecond)
	g.run(t)
	g.Record(refusal("r"))
	if g.Gate() != allowlists.Allowed {
		t.Error("the gate closed before the buffer was full")
	}
	for i := range 1000 {
		g.Record(refusal(strconv.Itoa(i)))
	}
	if g.Gate() != allowlists.LogDegraded {
		t.Error("the gate is open although the buffer is full")
	}
	eventually(t, "the reader hears of it", func() bool { return policies.Load() == 2 })
	if g.drop() < 500 {
		t.Errorf("%v lines counted as lost", g.drop())
	}
	if err := g.stop(); err == nil {
		t.Error("lines are lost, and nobody says so")
	}
}

func TestTheGateOpensAgain(t *testing.T) {
	w := &faultyWriter{broken: errors.New("no")}
	config := toStream(w)
	config.Events.OnError = "deny"
	g := newLog(t, config)
	g.SetBuffer(32 << 10)
	g.run(t)
	for i := range 200 {
		g.Record(allowed(strconv.Itoa(i)))
	}
	eventually(t, "the gate closes", func() bool { return g.Gate() == allowlists.LogDegraded })
	w.set(nil)
	eventually(t, "the gate opens", func() bool { return g.Gate() == allowlists.Allowed })
}

func TestWhatIsRecordedBeforeRunIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	g := newLog(t, toFile(path))
	g.Record(allowed("early"))
	g.run(t)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	if ids(readLog(t, path))["early"] != 1 {
		t.Error("the line is not there")
	}
	g.Record(allowed("late"))
	if g.drop() != 1 {
		t.Errorf("%v lines counted after the end", g.drop())
	}
}

func TestAPathThatCannotBeOpenedIsAnErrorOfOpen(t *testing.T) {
	g := newLog(t, toFile(filepath.Join(t.TempDir(), "none", "events.jsonl")))
	if err := g.Open(); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("error is %v", err)
	}
	if err := g.Run(context.Background()); err == nil {
		t.Error("Run runs")
	}
}

func TestARotationThatFailsKeepsTheOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	os.Mkdir(dir, 0o750)
	path := filepath.Join(dir, "events.jsonl")
	g := newLog(t, toFile(path)).run(t)
	g.Record(refusal("a"))
	moved := dir + ".old"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	g.Reopen()
	eventually(t, "the failure is told", func() bool {
		g.Record(refusal("b"))
		data, _ := os.ReadFile(filepath.Join(moved, "events.jsonl"))
		return bytes.Contains(data, []byte("opening the file again: no such file"))
	})
}

func BenchmarkObserveAllowed(b *testing.B) {
	g := newLog(b, toStream(io.Discard))
	g.run(b)
	e := aConn()
	b.ReportAllocs()
	for b.Loop() {
		g.Record(e)
	}
}
