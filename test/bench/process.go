//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A process is one that we started, and that we end.
type process struct {
	command *exec.Cmd
	log     string // file with what it prints
	exited  chan struct{}
}

// startProcess runs a command whose output goes to the file at log.
func startProcess(log string, args ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &process{command: exec.Command(args[0], args[1:]...), log: log, exited: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = file, file
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for us, who stop it
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.command.Wait() // how it ended does not matter
		close(p.exited)
	}()
	return p, nil
}

// stop ends the process, by force if it takes long.
func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(3 * time.Second):
		_ = p.command.Process.Kill()
		<-p.exited
	}
}

// await calls probe until it succeeds, the process ends, or patience does.
func (p *process) await(probe func() error) error {
	for deadline := time.Now().Add(3 * patience); ; {
		err := probe()
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			text, _ := os.ReadFile(p.log)
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			return fmt.Errorf("it ended: %s", strings.Join(lines[max(0, len(lines)-3):], "; "))
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not serve: %w", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// errMissing says that a peer is not on this machine and cannot be had.
var errMissing = errors.New("not here")

// A subject is one thing that is measured: a proxy, a resolver or both.
type subject struct {
	name    string
	version string
	direct  bool   // no subject: the origin itself, or an echo
	addr    string // of the proxy; empty if it is none
	dns     string // of the resolver; empty if it is none
	admin   string // of Sallyport's metrics
	page    string // socket of Sallyport's page; empty if it has none
	target  string // HOST:PORT of the origin's commands
	refused string // HOST:PORT that is not allowed
	web     string // HOST:PORT of the origin's web server
	dir     string
	command []string
	pid     int           // 0 until started
	took    time.Duration // of the last start
	process *process
}

// start runs the subject on its core and waits until it serves.
func (s *subject) start() error {
	args := append([]string{"taskset", "-c", subjectCore()}, s.command...)
	began := time.Now()
	p, err := startProcess(s.dir+"/output", args...)
	if err != nil {
		return err
	}
	s.process, s.pid = p, p.command.Process.Pid
	if err := s.await(); err != nil {
		s.stop()
		return err
	}
	s.took = time.Since(began)
	return nil
}

// await waits until the subject serves.
func (s *subject) await() error {
	if s.addr != "" {
		return s.awaitTunnel(s.process)
	}
	return s.awaitAnswer(s.process)
}

func (s *subject) awaitTunnel(p *process) error {
	c, err := newClient(s)
	if err != nil {
		return err
	}
	buffer := make([]byte, 4096)
	return p.await(func() error { return c.setUp(buffer) })
}

func (s *subject) awaitAnswer(p *process) error {
	q := quiz{next: inTurn(ruleNames(1)), sockets: 1, flying: 1, length: time.Second, most: 1}
	return p.await(func() error {
		one := asker{q: &q, echo: s.direct}
		one.run(s.dns)
		if len(one.took) == 0 {
			return errors.New(one.why)
		}
		return nil
	})
}

func (s *subject) stop() {
	if s.process != nil {
		s.process.stop()
	}
	s.process, s.pid = nil, 0
}
