package alerting_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sallyport/alerting"
)

// needProgram finds a program; a machine without it skips the test, CI fails.
func needProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		cannot(t, name)
	}
	return path
}

// cannot skips a test for want of something, which CI must have.
func cannot(t *testing.T, want string) {
	t.Helper()
	if os.Getenv("SALLYPORT_CI") == "1" {
		t.Fatalf("CI must have %s", want)
	}
	t.Skipf("SKIPPED on this machine: needs %s", want)
}

// freeAddress is a loopback address whose port nobody uses now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs a program until the test ends or the returned func is called.
func start(t *testing.T, name string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	stop = func() {
		if done.CompareAndSwap(false, true) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			log.Close()
		}
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("%s said: %s", name, said)
		}
	})
	return stop
}

// A real correlator runs outside of any bubble, with sinks that use the network.
type real struct {
	alerting.Correlator
	said safeBuffer // our own messages
}

func runOutside(t *testing.T, setup alerting.CorrelatorSetup) *real {
	t.Helper()
	r := &real{}
	setup.Log = zerolog.New(&r.said)
	r.Correlator = newCorrelator(t, setup)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// inTime waits for something that other programs do.
func inTime(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestARealAlertmanager tells one of alerts, repeats, ends and its own restart,
// on a clock of the test's.
func TestARealAlertmanager(t *testing.T) {
	t.Parallel()
	program := needProgram(t, "prometheus-alertmanager")
	address, dir := freeAddress(t), t.TempDir()
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte("route: {receiver: none}\nreceivers: [{name: none}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func() func() {
		return start(t, program, "--config.file="+file, "--storage.path="+t.TempDir(), "--web.listen-address="+address, "--cluster.listen-address=")
	}
	// active are the alerts that Alertmanager has, by their labels and how often
	// it says that they happened.
	active := func() string {
		response, err := http.Get("http://" + address + "/api/v2/alerts")
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		var all []posting
		if err := json.Unmarshal(body, &all); err != nil {
			return string(body)
		}
		var lines []string
		for _, a := range all {
			lines = append(lines, fmt.Sprint(a.Labels["alertname"], " ", a.Labels["host"], " ", a.Annotations["count"]))
		}
		slices.Sort(lines)
		return strings.Join(lines, ", ")
	}
	waitFor := func(want string) {
		t.Helper()
		last := ""
		inTime(t, want, func() bool {
			if got := active(); got != last {
				last = got
				t.Logf("Alertmanager has %q", got)
			}
			return last == want
		})
	}

	var ahead atomic.Int64
	alerts := toAlertmanager("http://" + address)
	r := runOutside(t, alerting.CorrelatorSetup{Alerts: alerts, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	stop := run()
	r.Take(now(connect("evil.example", 443)))
	waitFor("denied-egress evil.example 1")
	for range 41 {
		r.Take(now(connect("evil.example", 443)))
	}
	ahead.Add(int64(time.Minute))
	r.Take(now(connect("203.0.113.7", 443, client("10.20.0.8"))))
	waitFor("denied-egress evil.example 42, direct-ip 203.0.113.7 1")

	stop()
	r.Take(now(connect("198.51.100.3", 443, client("10.20.0.9"))))
	inTime(t, "a try that does not work", func() bool { return strings.Contains(r.said.text(), "comes again") })
	run()
	waitFor("direct-ip 198.51.100.3 1") // and Alertmanager forgot the others
	ahead.Add(int64(time.Minute))
	r.Take(now(connect("198.51.100.3", 443, client("10.20.0.9"))))
	waitFor("denied-egress evil.example 42, direct-ip 198.51.100.3 2, direct-ip 203.0.113.7 1")

	ahead.Add(int64(40 * time.Minute))
	r.Tick(time.Now().Add(time.Duration(ahead.Load())))
	waitFor("")
}
