//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// The names that jobs ask for. All resolve to 127.0.0.1, by the authority.
const (
	jobHost     = "job.allowed.example"
	webHost     = "web.allowed.example"
	wildZone    = "wild.example" // everything below it is allowed
	blockedHost = "job.blocked.example"
)

// usualRules is the number of rules of a subject, unless its name says another.
const usualRules = 1000

// askedNames is how many names cached questions go round.
const askedNames = 500

// ruleName is the i-th allowed name.
func ruleName(i int) string { return fmt.Sprintf("n%d.s%d.allowed.example", i, i%97) }

// ruleNames are the first n allowed names.
func ruleNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = ruleName(i)
	}
	return names
}

// blockedNames are n names that are not allowed.
func blockedNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.s%d.blocked.example", i, i%97)
	}
	return names
}

// A world is what the subjects stand in: the origins, the authority, a
// directory for configurations and logs, and the options.
type world struct {
	options
	dir       string
	job       string // address of the origin's commands
	web       string // address of the origin's web server
	authority string
	servers   []*process
	port      int // the last one handed out
	modules   *modules
}

// newWorld starts the origins and the authority; close ends them.
func newWorld(o options) (*world, error) {
	dir, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return nil, err
	}
	w := &world{options: o, dir: dir, port: 20000 + rand.IntN(8000), modules: &modules{failed: map[string]error{}}}
	if err := os.Chmod(dir, 0o755); err != nil { // Squid becomes another user
		return w, err
	}
	if w.binary, err = filepath.Abs(o.binary); err != nil {
		return w, err
	}
	if w.other != "" {
		if w.other, err = filepath.Abs(o.other); err != nil {
			return w, err
		}
	}
	w.job, w.web, w.authority = w.addr(), w.addr(), w.addr()
	self, err := os.Executable()
	if err != nil {
		return w, err
	}
	for _, args := range [][]string{
		{"origin", "-commands", w.job, "-http", w.web}, {"authority", "-listen", w.authority},
	} {
		p, err := startProcess(filepath.Join(dir, args[0]+".log"), append([]string{self}, args...)...)
		if err != nil {
			return w, err
		}
		w.servers = append(w.servers, p)
	}
	origin := &subject{name: "the origin", direct: true, addr: w.job, target: w.job, dns: w.authority}
	return w, errors.Join(origin.awaitTunnel(w.servers[0]), origin.awaitAnswer(w.servers[1]))
}

// close ends the servers and removes the directory, unless it is to be kept.
func (w *world) close() {
	for _, p := range w.servers {
		p.stop()
	}
	if w.keep {
		fmt.Fprintln(os.Stderr, "kept:", w.dir)
		return
	}
	_ = os.RemoveAll(w.dir)
}

// addr is a loopback address with a port that nobody has, over TCP and UDP. It
// is below those that the kernel gives to outgoing connections.
func (w *world) addr() string {
	for {
		w.port++
		addr := fmt.Sprintf("127.0.0.1:%d", w.port)
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", addr)
		_ = tcp.Close()
		if err == nil {
			_ = udp.Close()
			return addr
		}
	}
}

// place is a fresh directory for a subject, that any user may write to.
func (w *world) place(name string) (string, error) {
	dir, err := os.MkdirTemp(w.dir, name+"-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o777)
}

// port is the port of an address.
func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// write puts lines into a file.
func write(path string, lines ...string) error {
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// formatted is each name in a pattern with one verb.
func formatted(pattern string, names []string) []string {
	lines := make([]string, len(names))
	for i, name := range names {
		lines[i] = fmt.Sprintf(pattern, name)
	}
	return lines
}
