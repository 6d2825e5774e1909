package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// newEngine starts a Docker engine in a network namespace of its own, until the
// test ends, and makes it the one that docker speaks to: its firewall rules and
// bridges are nobody else's, and nothing in there has a way out.
func newEngine(t *testing.T) *space {
	t.Helper()
	needProgram(t, "dockerd", "nsenter", "iptables")
	s := newSpace(t, "engine")
	dir, err := os.MkdirTemp("", "sallyport-engine-") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, config := "unix://"+dir+"/socket", filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	said := &lockedBuffer{}
	cmd := exec.Command("nsenter", "--net=/run/netns/"+s.name, "dockerd", "--config-file", config, "--data-root", dir+"/data", "--exec-root", dir+"/exec",
		"--pidfile", dir+"/pid", "--host", socket, "--storage-driver", "vfs")
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // stops its containerd as well
		_ = cmd.Wait()
	})
	eventually(t, "the engine", func() bool { return exec.Command("docker", "--host", socket, "info").Run() == nil }, said.String)
	t.Setenv("DOCKER_HOST", socket)
	return s
}

// A stack is a recipe of deploy/compose that is up, with a world on the network
// that leads out.
type stack struct {
	*fleet
	dir, project string
	world        string // its address
	runner, gate string // the containers
}

// startStack brings a recipe up as it stands, but for the images and the
// allowed host. That and evil.example are the world, on the network out. On the
// default bridge, which has no aliases, the world is the host's resolver, too.
func (f *fleet) startStack(name, image, out string) *stack {
	t := f.t
	t.Helper()
	s := &stack{fleet: f, dir: t.TempDir(), project: f.tag + "-" + name}
	command := composeCommand()
	need(t, command != nil, "Docker Compose")
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	resolver := ""
	if out == "bridge" {
		f.run("world-"+name, out, f.standinImage(), "--", "world", "/cert", "/key")
		s.world = f.address("world-"+name, out)
		resolver = "    dns: [" + s.world + "]\n"
	}
	for _, file := range []string{"compose.yaml", "sallyport.yaml"} {
		text := readText(t, "../deploy/compose/"+name+"/"+file)
		text = strings.Replace(text, "    restart: unless-stopped\n", "    restart: unless-stopped\n"+resolver, 1)
		text = strings.Replace(text, "- registry.corp.example", "- {host: allowed.example, resolves_to: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]}", 1)
		if err := os.WriteFile(filepath.Join(s.dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	runner := f.runnerImage(map[string]string{"/bin/sh": busybox, "/bin/ip": busybox, "/bin/sleep": busybox})
	compose := func(args ...string) (string, error) {
		cmd := exec.Command(command[0], append(append(command[1:len(command):len(command)], "-p", s.project), args...)...)
		cmd.Dir, cmd.Env = s.dir, append(os.Environ(), "SALLYPORT_IMAGE="+image, "RUNNER_IMAGE="+runner, "ROUTE_IMAGE="+runner)
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	t.Cleanup(func() {
		docker(t, "rm", "-f", f.container("world-"+name))
		if text, err := compose("down", "-v", "-t", "1"); err != nil {
			t.Error(text)
		}
	})
	if text, err := compose("up", "-d"); err != nil {
		logs, _ := compose("logs")
		t.Fatalf("compose up: %v\n%s%s", err, text, logs)
	}
	id := func(service string) string {
		return docker(t, "ps", "-q", "--filter", "label=com.docker.compose.project="+s.project, "--filter", "label=com.docker.compose.service="+service)
	}
	s.runner, s.gate = id("runner"), id("sallyport")
	if resolver == "" {
		f.run("world-"+name, s.project+"_"+out, f.standinImage(), "--network-alias", "allowed.example", "--network-alias", "evil.example", "--", "world", "/cert", "/key")
		s.world = f.address("world-"+name, s.project+"_"+out)
	}
	eventually(t, "the world", func() bool {
		_, err := s.job("curl", "--cacert", "/ca.pem", "-sS", "-m", "5", "https://allowed.example/up")
		return err == nil
	},
		func() string { return docker(t, "logs", s.gate) })
	return s
}

// job runs a program in the runner.
func (s *stack) job(args ...string) (string, error) {
	out, err := exec.Command("docker", append([]string{"exec", s.runner}, args...)...).CombinedOutput()
	return string(out), err
}

// check: with no proxy variables the allowed host is reached, and nothing else
// of the world by any way.
func (s *stack) check(name, mode string) {
	t := s.t
	t.Helper()
	if env, err := s.job("busybox", "env"); err != nil || strings.Contains(strings.ToLower(env), "proxy") {
		t.Errorf("the runner's environment: %v %s", err, env)
	}
	if out, err := s.job("curl", "--cacert", "/ca.pem", "-sS", "-m", "10", "https://allowed.example/"); err != nil || !strings.Contains(out, "standin saw allowed.example") {
		t.Errorf("the allowed host: %v %s", err, out)
	}
	for what, args := range map[string][]string{
		"a refused host":               {"curl", "-sk", "-m", "10", "https://evil.example/evil"},
		"a refused host by address":    {"curl", "-sk", "-m", "10", "--resolve", "evil.example:443:" + s.world, "https://evil.example/evil"},
		"an address":                   {"curl", "-sk", "-m", "10", "https://" + s.world + "/evil"},
		"UDP":                          {"standin", "udp", s.world + ":4433"},
		"a refused name, asked abroad": {"busybox", "nslookup", "-type=a", "evil.example", s.world},
		"Sallyport's admin listener":   {"curl", "-s", "-m", "5", "http://127.0.0.1:9180/metrics"},
	} {
		if out, err := s.job(args...); err == nil {
			t.Errorf("%s is reached: %s", what, out)
		}
	}
	if seen := s.logs("world-" + name); strings.Contains(seen, "/evil") || strings.Contains(seen, "evil.example") {
		t.Errorf("the world saw\n%s", seen)
	}
	if out, err := exec.Command("docker", "exec", s.gate, "/sallyport", "firewall", "status", "--mode", mode, "-c", "/etc/sallyport/sallyport.yaml").CombinedOutput(); err != nil {
		t.Errorf("the firewall: %v %s", err, out)
	}
	if top := docker(t, "top", s.gate, "-eo", "pid,uid,comm"); !regexp.MustCompile(`\s65532\s+sallyport`).MatchString(top) || regexp.MustCompile(`\s0\s+sallyport`).MatchString(top) {
		t.Errorf("the daemon runs as\n%s", top)
	}
}

// TestDeployComposeRuns brings up the recipes in which a runner needs no proxy, with
// the image that the project's Dockerfile makes.
func TestDeployComposeRuns(t *testing.T) {
	outside := newFleet(t)
	image := outside.sallyportImage()
	saved, err := exec.Command("docker", "save", image).Output()
	if err != nil {
		t.Fatal(err)
	}
	engine := newEngine(t)
	load := exec.Command("docker", "load")
	load.Stdin = bytes.NewReader(saved)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("docker load: %v\n%s", err, out)
	}
	f := newFleet(t)
	t.Run("transparent", func(t *testing.T) {
		f.with(t).startStack("transparent", image, "bridge").check("transparent", "sidecar")
	})
	t.Run("router", func(t *testing.T) {
		// What docs/deploy.md says for hosts where bridged frames pass iptables.
		engine.command("ip", "netns", "exec", engine.name, "iptables", "-I", "DOCKER-USER", "-i", "br-jobs", "-o", "br-jobs", "-j", "ACCEPT")
		f.with(t).startStack("router", image, "out").check("router", "gateway")
	})
}
