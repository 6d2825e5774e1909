//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets this test's program be the servers that a world starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "origin" || os.Args[1] == "relay" || os.Args[1] == "authority") {
		if err := run(os.Args[1:]); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// TestHelpInstallsNothing asks for the list of figures, as docs/performance.md
// says: it is no failure, and installs no peers.
func TestHelpInstallsNothing(t *testing.T) {
	if err := run([]string{"-help"}); err != nil {
		t.Errorf("-help fails: %v", err)
	}
	if _, err := exec.LookPath("make"); err != nil {
		if os.Getenv("SALLYPORT_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip("make is not here")
	}
	for flags, installs := range map[string]bool{"-help": false, "-h": false, "-keep": true} {
		out, err := exec.Command("make", "-n", "-C", "../..", "bench-peers", "BENCH="+flags).CombinedOutput()
		if err != nil || strings.Contains(string(out), ".ci/peers") != installs {
			t.Errorf("BENCH=%s, which installs peers: %t, does: %v\n%s", flags, installs, err, out)
		}
	}
}

// TestItMeasures runs a few figures on the relay and on Sallyport, for real,
// and holds what must be true of any machine's numbers.
func TestItMeasures(t *testing.T) {
	if _, err := exec.LookPath("taskset"); err != nil {
		if os.Getenv("SALLYPORT_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip("taskset is not here")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "sallyport")
	if out, err := exec.Command("go", "build", "-o", binary, "sallyport/cmd/sallyport").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o, err := parse([]string{
		"-small", "-binary", binary, "-tests", "setup,refused,page-setup,ping,bulk1-up,http,idle,cached,uncached,ready,reload-dns",
		"-subjects", "relay,sallyport,sallyport-many,sallyport-page", "-o", dir + "/samples", "-svg", dir + "/plot.svg",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := measure(ctx, o); err != nil {
		t.Fatal(err)
	}
	samples, what, err := readSamples(dir + "/samples")
	if err != nil {
		t.Fatal(err)
	}
	if what.Rounds != 2 || what.Versions["sallyport"] == "" {
		t.Errorf("the samples say of themselves %+v", what)
	}
	want := map[string]int{
		"setup": 2, "refused": 2, "page-setup": 2, "ping": 2, "bulk1-up": 2, "http": 1, "idle": 2, "cached": 1, "uncached": 1, "ready": 3, "reload-dns": 1,
	}
	for _, s := range samples {
		holdSample(t, s)
		if s.Round == 2 {
			want[s.Figure]--
		}
	}
	for figure, missing := range want {
		if missing != 0 {
			t.Errorf("%s: %d samples of round 2 are missing", figure, missing)
		}
	}
	if plot, err := os.ReadFile(dir + "/plot.svg"); err != nil || !bytes.Contains(plot, []byte(">sallyport</text>")) {
		t.Errorf("the plot does not show Sallyport: %v", err)
	}
}

// holdSample checks what a real sample's numbers have to do with each other.
func holdSample(t *testing.T, s Sample) {
	t.Helper()
	if s.Errors > 0 || s.Ops <= 0 {
		t.Errorf("%s of %s: %d errors (%s), %v operations", s.Figure, s.Subject, s.Errors, s.FirstError, s.Ops)
	}
	if r, ok := s.Values[rate]; ok && s.Figure[:4] != "bulk" && (r*s.Seconds < s.Ops*0.999 || r*s.Seconds > s.Ops*1.001) {
		t.Errorf("%s of %s: a rate of %v for %v s does not make %v operations", s.Figure, s.Subject, r, s.Seconds, s.Ops)
	}
	if s.Values[p50] > s.Values[p99] || s.Values[p99] > s.Values[p999] {
		t.Errorf("%s of %s: percentiles fall: %v", s.Figure, s.Subject, s.Values)
	}
	if s.Values[rss] < 1 && s.Values[p50] > 0 {
		t.Errorf("%s of %s: no memory was measured", s.Figure, s.Subject)
	}
	if c, ok := s.Values[cpu]; ok && s.Values[subjectUse] > 0 {
		used := s.Values[subjectUse] * s.Seconds * 1000
		if c*s.Ops/1000 < used-1 || c*s.Ops/1000 > used+1 {
			t.Errorf("%s of %s: %v ms per 1,000 of %v operations is not the %v ms that were used", s.Figure, s.Subject, c, s.Ops, used)
		}
	}
}

// TestCPUTimeCountsThreads burns CPU on two threads that end, of which one at
// most is the first of the process, and finds it all.
func TestCPUTimeCountsThreads(t *testing.T) {
	before := cpuTime(os.Getpid())
	var turns sync.WaitGroup
	first := make(chan struct{})
	burn := func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		for own := ownCPU(); ownCPU()-own < 100*time.Millisecond; {
		}
	}
	held := make(chan struct{})
	turns.Go(func() {
		burn()
		close(first)
		<-held // the other has another thread
	})
	<-first
	turns.Go(func() {
		burn()
		close(held)
	})
	turns.Wait()
	if used := cpuTime(os.Getpid()) - before; used < 180*time.Millisecond {
		t.Errorf("of 200 ms on threads that have ended, %v were counted", used)
	}
	if cpuTime(0) != 0 {
		t.Error("no process took time")
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7 (a) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0":          1750 * time.Millisecond,
		"7 (a b) c) R) S 1 2 3 4 5 6 7 8 9 10 1 0 9 9 9 9": 10 * time.Millisecond,
		"7 (short) S 1 2": 0,
		"":                0,
	} {
		if got := parseStat(text); got != want {
			t.Errorf("%q is %v, not %v", text, got, want)
		}
	}
}

// TestRatioIsPairedWithinRounds: a machine that is three times slower in one
// round does not change a ratio.
func TestRatioIsPairedWithinRounds(t *testing.T) {
	var samples []Sample
	add := func(round int, subject string, v float64) {
		samples = append(samples, Sample{Figure: "f", Subject: subject, Round: round, Values: map[measureName]float64{rate: v}})
	}
	add(1, "a", 200)
	add(1, "b", 100)
	add(2, "b", 300)
	add(2, "a", 600)
	add(3, "a", 50) // b has no round 3
	add(4, "a", 7)
	add(4, "b", 0) // and nothing in round 4
	got, ok := ratio(samples, "f", "a", "b", rate)
	if !ok || got != (spread{2, 2, 2}) {
		t.Errorf("the ratio is %v, %v", got, ok)
	}
	if _, ok := ratio(samples, "f", "a", "c", rate); ok {
		t.Error("there is a ratio to a subject that was not measured")
	}
	if _, ok := ratio(samples, "f", "a", "b", cpu); ok {
		t.Error("there is a ratio of a measure that was not taken")
	}
}

func TestSpreadAndPercentiles(t *testing.T) {
	if got := spreadOf([]float64{9, 1, 4}); got != (spread{1, 4, 9}) {
		t.Errorf("of three: %v", got)
	}
	if got := spreadOf([]float64{4, 1, 9, 2}); got != (spread{1, 3, 9}) {
		t.Errorf("of four: %v", got)
	}
	took := make([]int64, 1000)
	for i := range took {
		took[i] = int64(1000-i) * 1000
	}
	s := newSample()
	s.latencies(took)
	if s.Values[p50] != 500 || s.Values[p99] != 990 || s.Values[p999] != 999 {
		t.Errorf("percentiles of 1 to 1000 us: %v", s.Values)
	}
}

func TestGoals(t *testing.T) {
	for _, g := range goals {
		known := func(name string) bool { return name == "" || recipes[name] != nil }
		list, err := chosen(g.figure)
		if err != nil || !known(g.subject) || !known(g.than) {
			t.Errorf("a goal is of what is never measured: %+v: %v", g, err)
			continue
		}
		for _, name := range []string{g.subject, g.than} {
			if name != "" && !strings.Contains(strings.Join(list[0].subjects, " ")+" ", name+" ") {
				t.Errorf("%s does not measure %s", g.figure, name)
			}
		}
	}
	least, most := goal{atLeast: true, bound: 1}, goal{bound: 1}
	if !least.met(1.5) || least.met(0.5) || most.met(1.5) || !most.met(0.5) {
		t.Error("goals are met the wrong way round")
	}
}

// TestAuthorityAndJudge: the asker takes the authority's answers, and no others.
func TestAuthorityAndJudge(t *testing.T) {
	asked := question("n1.s1.allowed.example")
	packet := make([]byte, 512)
	n := copy(packet, append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, asked...))
	if fault(packet[:n], asked, false, false) == "" {
		t.Error("a question passes for an answer")
	}
	n = answer(packet, n)
	if why := fault(packet[:n], asked, false, false); why != "" {
		t.Error(why)
	}
	if got := packet[n-4 : n]; binary.BigEndian.Uint32(got) != 0x7f000001 {
		t.Errorf("the answer is %v", got)
	}
	if fault(packet[:n], question("n2.s2.allowed.example"), false, false) == "" || fault(packet[:n], asked, true, false) == "" {
		t.Error("the answer to another question, or an answer where a refusal is due, passes")
	}
	packet[3] = 5
	if fault(packet[:n], asked, true, false) != "" || fault(packet[:n], asked, false, false) == "" {
		t.Error("a refusal is not told from an answer")
	}
}

func TestParticipants(t *testing.T) {
	f := figure{subjects: []string{"relay", "sallyport", "squid"}}
	for _, c := range []struct {
		o    options
		want string
	}{
		{options{}, "relay sallyport squid"},
		{options{other: "old"}, "relay sallyport sallyport-other squid"},
		{options{subjects: "squid,relay,unbound"}, "relay squid"},
		{options{other: "old", subjects: "sallyport-other,sallyport"}, "sallyport sallyport-other"},
	} {
		if got := strings.Join(participants(c.o, f), " "); got != c.want {
			t.Errorf("%+v: %s take part, not %s", c.o, got, c.want)
		}
	}
	if len(f.subjects) != 3 {
		t.Error("a figure's subjects were changed")
	}
}

// TestFilesOfRunsAreJoined: what two runs measured is reported as one.
func TestFilesOfRunsAreJoined(t *testing.T) {
	path := t.TempDir() + "/samples"
	text := `{"figure":"setup","subject":"relay","round":1,"values":{"rate":5}}
{"about":{"date":"one","load":"1 1","rounds":5,"versions":{"squid":"5"}}}
{"figure":"ping","subject":"relay","round":1,"values":{"rate":7}}
{"about":{"date":"two","load":"2 2","rounds":5,"versions":{"unbound":"1"}}}
`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	samples, what, err := readSamples(path)
	if err != nil || len(samples) != 2 || what.Date != "one and two" || what.Load != "1 1, 2 2" || len(what.Versions) != 2 {
		t.Errorf("%v, %+v, %v", samples, what, err)
	}
	var out bytes.Buffer
	printAll(&out, samples)
	if !strings.Contains(out.String(), "### setup") || !strings.Contains(out.String(), "### ping") {
		t.Error(out.String())
	}
}
