package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The webhook's path is a secret: it shows in no log.
const containerPolicy = `
listen: {proxy: "[::]:3128", dns: "[::]:53"}
limits: {drain_timeout: 3s}
dns: {search: []}
pools:
  build:
    sources: [%s]
    allow:
      - {host: allowed.example, resolves_to: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]}
alerts: {slack: {webhook_url: "http://slack.outer:8080/services/T0/secret"}}
`

// hardened are the options of a Sallyport container, those of
// deploy/compose/compose.yaml.
var hardened = []string{"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--sysctl", "net.ipv4.ip_forward=0"}

// TestContainers builds the image, and runs it beside a runner.
func TestContainers(t *testing.T) {
	f := newFleet(t)
	image, runner := f.sallyportImage(), f.runnerImage()
	t.Run("by docker run", func(t *testing.T) { f.with(t).checkSidecar(image, runner) })
	t.Run("by compose", func(t *testing.T) { f.with(t).checkCompose(image, runner) })
}

// checkSidecar: a runner on an internal-only network reaches the allowed host
// through Sallyport, nothing by any other way, and the refusal reaches Slack.
func (f *fleet) checkSidecar(image, runner string) {
	t, standin := f.t, f.standinImage()
	t.Helper()
	f.run("world", f.outer, standin, "--", "world", "/cert", "/key")
	f.run("slack", f.outer, standin, "--network-alias", "slack.outer", "--", "slack", "evil.example")
	world := f.address("world", f.outer)

	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	subnet := inspect(t, f.inner, "{{(index .IPAM.Config 0).Subnet}}")
	if err := os.WriteFile(filepath.Join(dir, "sallyport.yaml"), fmt.Appendf(nil, containerPolicy, subnet), 0o644); err != nil {
		t.Fatal(err)
	}
	f.run("gate", f.outer, image, append(hardened, "--dns", world, "-v", dir+":/etc/sallyport:ro")...)
	f.run("bare", f.inner, image, hardened...) // the image's own configuration
	docker(t, "network", "connect", f.inner, f.container("gate"))
	gate := f.address("gate", f.inner)
	f.run("runner", f.inner, runner, "--dns", gate)
	f.run("router", f.inner, runner, "--dns", gate, "--cap-add", "NET_ADMIN")
	f.run("free", f.outer, runner, "--dns", world)
	for _, name := range []string{"gate", "bare"} {
		eventually(t, name+" to be ready", func() bool {
			_, err := f.exec(name, "/sallyport", "wait-ready", "--timeout", "1s")
			return err == nil
		}, func() string { return f.logs(name) })
	}

	f.checkAllowed(gate)
	f.checkRefused(gate)
	f.checkNoOtherWay(gate, world)
	f.checkOwnConfiguration()
	f.checkContained(image)
	f.checkStop(gate, world)
}

// curl runs curl in the runner, through a proxy.
func (f *fleet) curl(proxy string, args ...string) (string, error) {
	return f.exec("runner", append([]string{"curl", "--cacert", "/ca.pem", "-m", "15", "-x", "http://" + proxy + ":3128"}, args...)...)
}

func (f *fleet) checkAllowed(gate string) {
	f.t.Helper()
	if out, err := f.curl(gate, "-sS", "https://allowed.example/"); err != nil || !strings.Contains(out, "standin saw allowed.example") {
		f.t.Errorf("the allowed host: %v %s\n%s", err, out, f.logs("gate"))
	}
}

// checkRefused makes a refused request, whose reason and id curl shows, and
// waits for the message at Slack.
func (f *fleet) checkRefused(gate string) {
	t := f.t
	t.Helper()
	refusedAt := time.Now()
	out, err := f.curl(gate, "-sSv", "https://evil.example/")
	refusal := regexp.MustCompile(`403 Sallyport: evil\.example:443 not in pool build \(not-in-allowlist, (\w{12})\)`).FindStringSubmatch(out)
	if err == nil || refusal == nil {
		t.Fatalf("the refused host: %v %s", err, out)
	}
	var message struct {
		Time     time.Time
		Path     string
		Body     string
		Problems []string
	}
	eventually(t, "the message at Slack", func() bool {
		line, _, _ := strings.Cut(f.logs("slack"), "\n")
		return json.Unmarshal([]byte(line), &message) == nil
	}, func() string { return f.logs("gate") })
	if late := message.Time.Sub(refusedAt); late > 2*time.Second {
		t.Errorf("the message came after %v", late)
	}
	if len(message.Problems) > 0 || message.Path != "/services/T0/secret" {
		t.Errorf("Slack refuses the message at %s: %q\n%s", message.Path, message.Problems, message.Body)
	}
	for _, want := range []string{"evil.example", "build", refusal[1]} {
		if !strings.Contains(message.Body, want) {
			t.Errorf("the message lacks %q: %s", want, message.Body)
		}
	}
}

// checkOwnConfiguration: the image as it is admits nobody, by HTTP or DNS.
func (f *fleet) checkOwnConfiguration() {
	f.t.Helper()
	bare := f.address("bare", f.inner)
	if out, err := f.curl(bare, "-sv", "https://github.com/"); err == nil || !strings.Contains(out, "no-pool") {
		f.t.Errorf("the image's own configuration admits a client: %v %s", err, out)
	}
	if out, err := f.exec("runner", "busybox", "nslookup", "github.com", bare); err == nil || !strings.Contains(out, "REFUSED") {
		f.t.Errorf("the image's own configuration answers: %v %s", err, out)
	}
}

// checkContained: the container is healthy, small, not root, and wrote nothing.
func (f *fleet) checkContained(image string) {
	t := f.t
	t.Helper()
	for _, name := range []string{"gate", "bare"} {
		eventually(t, name+" to be healthy", func() bool {
			return inspect(t, f.container(name), "{{.State.Health.Status}}") == "healthy"
		}, func() string { return inspect(t, f.container(name), "{{json .State.Health}}") })
	}
	if top := docker(t, "top", f.container("gate"), "-eo", "pid,uid,gid,comm"); !regexp.MustCompile(`65532\s+65532\s+sallyport`).MatchString(top) {
		t.Errorf("the daemon runs as\n%s", top)
	}
	if changed := docker(t, "diff", f.container("gate")); changed != "" {
		t.Errorf("the container wrote\n%s", changed)
	}
	size, err := strconv.Atoi(inspect(t, image, "{{.Size}}"))
	if err != nil || size > 25<<20 {
		t.Errorf("the image has %d bytes, %v", size, err)
	}
	t.Logf("the image has %.1f MB", float64(size)/1e6)
}

// checkStop: docker stop waits for the tunnel that ends in time, cuts the one
// that does not, and never comes to SIGKILL.
func (f *fleet) checkStop(gate, world string) {
	t := f.t
	t.Helper()
	ended := map[string]chan string{"/finish": make(chan string, 1), "/hold": make(chan string, 1)}
	for _, path := range []string{"/finish", "/hold"} {
		go func() {
			out, err := f.curl(gate, "-sS", "https://allowed.example"+path)
			ended[path] <- fmt.Sprint(out, err)
		}()
		eventually(t, "the request of "+path, func() bool { return strings.Contains(f.logs("world"), path) }, func() string { return f.logs("gate") })
	}
	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- exec.Command("docker", "stop", "-t", "10", f.container("gate")).Run() }()
	eventually(t, "the stop to begin", func() bool { return strings.Contains(f.logs("gate"), `"event":"stopping"`) }, func() string { return f.logs("gate") })
	if out, err := f.exec("free", "curl", "-sfk", "https://"+world+"/release"); err != nil {
		t.Error(out)
	}
	if got := <-ended["/finish"]; !strings.Contains(got, "finished") || !strings.HasSuffix(got, "<nil>") {
		t.Errorf("the tunnel that ends in time: %s", got)
	}
	err := <-stopped
	if code := inspect(t, f.container("gate"), "{{.State.ExitCode}}"); err != nil || code != "0" || time.Since(began) > 9*time.Second {
		t.Errorf("docker stop took %v, exit code %s, %v", time.Since(began), code, err)
	}
	if got := <-ended["/hold"]; strings.HasSuffix(got, "<nil>") {
		t.Errorf("the tunnel that does not end: %s", got)
	}
}
