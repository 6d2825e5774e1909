package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCommandThatWaitsForAPipeCanBeEnded has commands read a named pipe that
// nobody writes to, and ends them as a shell or a CI system does.
func TestCommandThatWaitsForAPipeCanBeEnded(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "good.yaml"), []byte(commandFiles["good.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "events.jsonl")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"suggest", "-c", "good.yaml", pipe}, {"replay", "-c", "good.yaml", pipe}, {"report", pipe},
		{"correlate", "--dns", pipe, "--proxy", pipe}, {"import", "squid", pipe}, {"explain", "--events", pipe, "k3v9x2m4p7qa"},
	} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(binary, args...)
			var said bytes.Buffer
			cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { _ = cmd.Wait(); close(ended) }()
			t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
			eventually(t, "it waits for the pipe", func() bool {
				waits, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", cmd.Process.Pid))
				for _, path := range waits {
					if text, _ := os.ReadFile(path); string(text) == "wait_for_partner" {
						return true
					}
				}
				return false
			}, func() string { return "" })
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it ends", func() bool {
				select {
				case <-ended:
					return true
				default:
					return false
				}
			}, func() string { return "" })
			if cmd.ProcessState.Success() {
				t.Errorf("it ends as if all was well: %s", said.String())
			}
		})
	}
}

// TestLongNameStaysALine suggests from a log with a name as long as a job may
// send.
func TestLongNameStaysALine(t *testing.T) {
	dir := t.TempDir()
	refused := fmt.Sprintf(`{"v":1,"time":"2026-11-24T04:52:09.9Z","kind":"conn","id":"55i82wy3hv6g","pool":"build","client":"127.0.0.1","policy":3,"via":"connect","host":"%s.example",`+
		`"port":443,"client_port":14546,"method":"CONNECT","verdict":"deny","reason":"not-in-allowlist","ms":0.022,"phase":"refused"}`+"\n", strings.Repeat("a", 1000))
	for name, text := range map[string]string{"good.yaml": commandFiles["good.yaml"], "events.jsonl": refused + strings.Replace(refused, strings.Repeat("a", 1000), "a", 1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := command(t, dir, "suggest", "-c", "good.yaml", "events.jsonl")
	if !strings.Contains(r.stderr, "left out: aaaa") {
		t.Fatalf("%+v", r)
	}
	for line := range strings.Lines(r.stdout + r.stderr) {
		if len(line) > 400 {
			t.Errorf("a line of %d characters: %.60s", len(line), line)
		}
	}
}
