package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/alerting/eventtest"
)

// patience bounds every wait of these tests; nothing passes by waiting it out.
const patience = 20 * time.Second

// lastNet numbers the loopback networks 127.x.N.0/24 handed out, one per daemon,
// so that daemons of parallel tests never meet; x comes from the process id, so
// that two runs do not either.
var lastNet atomic.Uint32

// A daemon is one running Sallyport on a loopback address of its own.
type daemon struct {
	t      *testing.T
	ip     string
	dir    string // holds sallyport.yaml, events.jsonl and state/
	proxy  string // host:port
	dns    string
	admin  string
	extra  string
	listen string   // the listen key's value, if it is not made of the addresses above
	prefix []string // command that the daemon is started through, such as ip netns exec
	args   []string // of run, behind the configuration
	env    []string
	attr   *syscall.SysProcAttr // of the process; nil is usual
	cmd    *exec.Cmd
	stderr *lockedBuffer
	exited chan struct{}
	torn   bool // lines of the event log that a full disk cut are passed by
}

// config is what a test says of its daemon. Listeners, event log and state
// directory are added.
type config struct {
	upstream string   // address of the upstream resolver
	pools    string   // the pools key's value, indented by two
	rest     string   // further top-level YAML
	ip       string   // listen address; a loopback one of its own by default
	prefix   []string // command to start the daemon through
	env      []string
}

// start runs a daemon until the test ends, and waits until it is ready. When
// the test ends, every line of the event log is held against the schema.
func start(t *testing.T, c config) *daemon {
	t.Helper()
	d := prepare(t, c)
	d.run()
	return d
}

// prepare lays out a daemon's directory without running it.
func prepare(t *testing.T, c config) *daemon {
	t.Helper()
	if c.ip == "" {
		c.ip = fmt.Sprintf("127.%d.%d.1", 64+os.Getpid()%128, lastNet.Add(1)%250+1)
	}
	d := &daemon{
		t: t, ip: c.ip, dir: t.TempDir(), prefix: c.prefix, env: c.env,
		proxy: net.JoinHostPort(c.ip, "3128"), dns: net.JoinHostPort(c.ip, "5300"), admin: net.JoinHostPort(c.ip, "9180"),
	}
	if err := os.Chmod(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d.extra = c.rest
	d.write(c.upstream, c.pools)
	t.Cleanup(func() { d.checkEvents() })
	return d
}

// write puts the configuration in place, whole at once, as an editor does.
func (d *daemon) write(upstream, pools string) {
	d.t.Helper()
	rest := d.extra
	if !strings.Contains(rest, "log:") {
		rest += fmt.Sprintf("\nlog: {events: %s}\n", d.path("events.jsonl"))
	}
	if !strings.Contains(rest, "dns:") {
		rest += fmt.Sprintf("\ndns: {upstreams: [%q], search: []}\n", upstream)
	}
	if !strings.Contains(rest, "alerts:") {
		rest += fmt.Sprintf("\nalerts: {state_dir: %s}\n", d.path("state"))
	}
	listen := d.listen
	if listen == "" {
		listen = fmt.Sprintf("{proxy: %q, dns: %q, admin: %q, control: \"unix:%s\"}", d.proxy, d.dns, d.admin, d.path("control.sock"))
	}
	text := fmt.Sprintf("listen: %s\n%s\npools:\n%s\n", listen, rest, pools)
	d.put(text)
}

// put replaces the configuration file: whoever reads it finds all of the old text
// or all of the new one.
func (d *daemon) put(text string) {
	d.t.Helper()
	temporary := d.path(".sallyport.yaml.new")
	if err := os.WriteFile(temporary, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(temporary, d.path("sallyport.yaml")); err != nil {
		d.t.Fatal(err)
	}
}

// neighbour is another address of the daemon's loopback network.
func (d *daemon) neighbour(last int) string {
	return fmt.Sprintf("%s.%d", d.ip[:strings.LastIndexByte(d.ip, '.')], last)
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// run starts the process and waits for /readyz.
func (d *daemon) run() {
	d.t.Helper()
	if err := os.MkdirAll(d.path("state"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	args := append(append([]string{}, d.prefix...), binary, "run", "-c", d.path("sallyport.yaml"))
	args = append(args, d.args...)
	d.cmd = exec.Command(args[0], args[1:]...)
	d.stderr = &lockedBuffer{}
	d.cmd.Stdout, d.cmd.Stderr = io.Discard, d.stderr
	d.cmd.Env, d.cmd.SysProcAttr = append(os.Environ(), d.env...), d.attr
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.exited = make(chan struct{})
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	d.t.Cleanup(d.stop)
	wait := append(append([]string{}, d.prefix...), binary, "wait-ready", "--admin", d.admin, "--timeout", "20s")
	if out, err := exec.Command(wait[0], wait[1:]...).CombinedOutput(); err != nil {
		d.t.Fatalf("the daemon is not ready: %v\n%s\n%s", err, out, d.stderr)
	}
}

// stop ends the daemon as an operator does, and fails the test if it does not
// go, or if the race detector spoke.
func (d *daemon) stop() {
	select {
	case <-d.exited:
		return
	default:
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.exited
		d.t.Errorf("the daemon did not stop\n%s", d.stderr)
	}
	if text := d.stderr.String(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		d.t.Errorf("the daemon's own messages:\n%s", text)
	}
}

// kill ends the daemon with SIGKILL.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// hangup asks for a reload.
func (d *daemon) hangup() { _ = d.cmd.Process.Signal(syscall.SIGHUP) }

// An event is one decoded line of the event log.
type event map[string]any

func (e event) text(key string) string {
	s, _ := e[key].(string)
	return s
}

func (e event) number(key string) float64 {
	n, _ := e[key].(float64)
	return n
}

// events reads every whole line of the event log.
func (d *daemon) events() []event {
	d.t.Helper()
	raw, err := os.ReadFile(d.path("events.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	var all []event
	for line := range bytes.Lines(raw) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // still being written
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil && d.torn {
			continue
		} else if err != nil {
			d.t.Fatalf("%v in %q", err, line)
		}
		all = append(all, e)
	}
	return all
}

// wait blocks until an event fits, and gives it.
func (d *daemon) wait(what string, fits func(event) bool) event {
	d.t.Helper()
	return d.waitSince(0, what, fits)
}

// waitSince is wait among the events behind the first ones, as many as seen.
func (d *daemon) waitSince(seen int, what string, fits func(event) bool) event {
	d.t.Helper()
	var found event
	eventually(d.t, what, func() bool {
		for _, e := range d.events()[seen:] {
			if fits(e) {
				found = e
				return true
			}
		}
		return false
	}, func() string { return d.dump() })
	return found
}

// dump gives the last events and messages, for a failed test.
func (d *daemon) dump() string {
	all := d.events()
	var b strings.Builder
	for _, e := range all[max(0, len(all)-8):] {
		line, _ := json.Marshal(e)
		fmt.Fprintf(&b, "%s\n", line)
	}
	return b.String() + d.stderr.String()
}

// checkEvents holds every line of the event log against the JSON Schema.
func (d *daemon) checkEvents() {
	raw, err := os.ReadFile(d.path("events.jsonl"))
	if err != nil {
		return
	}
	var whole []byte
	for line := range bytes.Lines(raw) {
		if !d.torn || json.Valid(line) {
			whole = append(whole, line...)
		}
	}
	for _, e := range eventtest.ValidateLines(d.t, bytes.NewReader(whole)) {
		seenReasons.Store(e.Reason.String(), true)
		seenReasons.Store(e.Would.String(), true)
	}
}

// eventually tries until done says yes, for as long as patience lasts.
func eventually(t *testing.T, what string, done func() bool, dump func() string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s\n%s", what, dump())
		}
	}
}

// metrics reads the admin listener's metrics page.
func (d *daemon) metrics() string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.admin+"/metrics", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(body)
}

// lockedBuffer collects output of a process that still runs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
