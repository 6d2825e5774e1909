package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// sidecarPolicy is for a job that shares the gate's network namespace. The
// listeners stand at every address, as nested containers come by a bridge.
const sidecarPolicy = `
listen: {proxy: "127.0.0.1:3128", dns: "0.0.0.0:5300", transparent: "0.0.0.0:3129", admin: "127.0.0.1:9180", control: "127.0.0.1:9181"}
admin: {token_file: /etc/sallyport/token}
limits: {drain_timeout: 1s}
dns: {upstreams: [%q], search: []} # Docker's own resolver would ask in this namespace, as root
default_pool: build
pools:
  build:
    allow:
      - {host: allowed.example, resolves_to: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]}
`

// A sidecar is a gate with a job in its network namespace.
type sidecar struct {
	*fleet
	evil string // address of a host that prints every packet it gets
	from string // address of the namespace
}

// TestSidecarContainers puts a root job into the gate's network namespace. With
// the capabilities of the recipe nothing gets out; with those that Docker gives
// by default something does, and the daemon says so.
func TestSidecarContainers(t *testing.T) {
	f := newFleet(t)
	image, runner := f.sallyportImage(), f.jobImage()
	t.Run("with the capabilities of the recipe", func(t *testing.T) {
		s := f.with(t).sidecar("recipe", image, runner, "--cap-drop", "NET_RAW", "--cap-drop", "SETUID", "--cap-drop", "SETGID", "--security-opt", "no-new-privileges")
		s.checkReached()
		s.checkEnforced("in-place")
		s.checkTricks(map[string]string{
			"raw frames":                         "standin frame eth0 EVIL:4433",
			"raw frames as the gate's user":      "standin as 65532 frame eth0 EVIL:4433",
			"the gate's user":                    "standin as 65532 udp EVIL:4433",
			"a mark":                             "standin mark 1 EVIL:4433",
			"taking the tables away":             "sallyport firewall remove",
			"putting other tables there":         "sallyport firewall apply --mode sidecar -c /etc/sallyport/sallyport.yaml",
			"TCP by address":                     "curl -sk -m 4 https://EVIL/",
			"TCP to another port":                "curl -s -m 4 http://EVIL:4433/",
			"an allowed name at another address": "curl -sk -m 4 --resolve allowed.example:443:EVIL https://allowed.example/refused",
			"UDP":                                "standin udp EVIL:4433",
			"ICMP":                               "busybox ping -c 1 -W 2 EVIL",
			"DNS of a refused name":              "busybox nslookup -type=a leak.evil.example 127.0.0.11",
			"DNS of a refused name, elsewhere":   "busybox nslookup -type=a leak.evil.example EVIL",
			"DNS by the hidden port":             "busybox timeout 4 busybox nslookup -type=a leak.evil.example 127.0.0.11 HIDDEN",
			"the admin listener":                 "curl -s -m 3 http://127.0.0.1:9180/metrics",
			"the admin listener by the address":  "curl -s -m 3 http://SELF:9180/metrics",
			"the control listener":               "curl -s -m 3 http://127.0.0.1:9181/api/v1/status",
			"our transparent port itself":        "curl -sk -m 3 https://127.0.0.1:3129/",
		})
		s.checkSetUserID()
		s.checkNested()
		s.checkQuiet()
	})
	t.Run("with the capabilities that Docker gives", func(t *testing.T) {
		s := f.with(t).sidecar("default", image, runner)
		s.checkEnforced("not-in-place")
		if out, err := s.job("standin as 65532 frame eth0 EVIL:4433"); err != nil {
			t.Errorf("raw frames cannot be sent: %v %s", err, out)
		}
		eventually(t, "the raw frame at the other host: that is what the report warns of", func() bool { return s.received() != "" }, func() string { return s.logs("evil-default") })
	})
}

// jobImage is the runner's image with Sallyport's own program in it.
func (f *fleet) jobImage() string {
	f.t.Helper()
	program := filepath.Join(f.t.TempDir(), "sallyport")
	build := exec.Command("go", "build", "-o", program, "sallyport/cmd/sallyport")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		f.t.Fatalf("building the daemon: %v\n%s", err, out)
	}
	return f.runnerImage(map[string]string{"/bin/sallyport": program})
}

// sidecar starts a world, a host that watches, the gate as compose/transparent
// does, and a job with the given options.
func (f *fleet) sidecar(name, image, runner string, jobOptions ...string) *sidecar {
	t, standin := f.t, f.standinImage()
	t.Helper()
	s := &sidecar{fleet: f}
	f.run("world-"+name, f.outer, standin, "--", "world", "/cert", "/key")
	f.run("evil-"+name, f.outer, standin, "--", "watch")
	world := f.address("world-"+name, f.outer)
	s.evil = f.address("evil-"+name, f.outer)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"sallyport.yaml": fmt.Sprintf(sidecarPolicy, world), "token": "0123456789abcdef0123\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.run("gate", f.outer, image, "--user", "0", "--read-only", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "SETUID", "--cap-add", "SETGID",
		"--security-opt", "no-new-privileges", "--dns", world, "-v", dir+":/etc/sallyport:ro",
		"--", "run", "-c", "/etc/sallyport/sallyport.yaml", "--firewall", "sidecar", "--uid", "65532")
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", f.container("job"), f.container("gate")).Run() })
	eventually(t, "the gate to be ready", func() bool {
		_, err := f.exec("gate", "/sallyport", "wait-ready", "--timeout", "1s")
		return err == nil
	}, func() string { return f.logs("gate") })
	s.from = f.address("gate", f.outer)
	docker(t, append(append([]string{
		"run", "-d", "--name", f.container("job"), "--network", "container:" + f.container("gate"), "--pid", "container:" + f.container("gate"),
		"-v", dir + ":/etc/sallyport:ro",
	}, jobOptions...), runner)...)
	return s
}

// job runs a command line in the job, as root: EVIL, SELF and HIDDEN stand for
// addresses and the port of Docker's own resolver.
func (s *sidecar) job(line string) (string, error) {
	s.t.Helper()
	line = strings.NewReplacer("EVIL", s.evil, "SELF", s.from, "HIDDEN", strconv.Itoa(s.hidden())).Replace(line)
	return s.exec("job", strings.Fields(line)...)
}

// hidden is the UDP port at 127.0.0.11 that Docker's resolver really has.
func (s *sidecar) hidden() int {
	s.t.Helper()
	table, err := s.exec("job", "busybox", "cat", "/proc/net/udp")
	if err != nil {
		s.t.Fatal(table)
	}
	m := regexp.MustCompile(`: 0B00007F:([0-9A-F]{4}) `).FindStringSubmatch(table)
	if m == nil {
		s.t.Fatalf("Docker's resolver is not here:\n%s", table)
	}
	port, err := strconv.ParseUint(m[1], 16, 16)
	if err != nil {
		s.t.Fatal(err)
	}
	return int(port)
}

// checkReached: with no proxy variables the allowed host is reached.
func (s *sidecar) checkReached() {
	s.t.Helper()
	out, err := s.job("curl --cacert /ca.pem -sS -m 15 https://allowed.example/hello")
	if err != nil || !strings.Contains(out, "standin saw allowed.example") {
		s.t.Errorf("the allowed host: %v %s\n%s", err, out, s.logs("gate"))
	}
	if out, err := s.job("busybox nslookup -type=a evil.example"); err == nil || !strings.Contains(out, "NXDOMAIN") {
		s.t.Errorf("a refused name: %v %s", err, out)
	}
}

// checkEnforced waits for what the daemon measures.
func (s *sidecar) checkEnforced(state string) {
	s.t.Helper()
	want := regexp.MustCompile(`"event":"enforcement".*"state":"` + state + `"`)
	eventually(s.t, "enforcement "+state, func() bool { return want.MatchString(s.logs("gate")) }, func() string { return s.logs("gate") })
}

// checkTricks tries each, which must fail.
func (s *sidecar) checkTricks(tricks map[string]string) {
	s.t.Helper()
	for what, line := range tricks {
		out, err := s.job(line)
		if err == nil {
			s.t.Errorf("%s works: %s", what, out)
		}
	}
}

// checkSetUserID makes a file that runs as the gate's user, which takes no
// SETUID but CHOWN and FSETID, and runs it.
func (s *sidecar) checkSetUserID() {
	s.t.Helper()
	const b = "busybox "
	lay := b + "cp /bin/standin /suid && " + b + "chown 65532 /suid && " + b + "chmod 4755 /suid && " + b + "ls -l /suid"
	if out, err := s.exec("job", "busybox", "sh", "-c", lay); err != nil || !strings.Contains(out, "rws") {
		s.t.Fatalf("making a set-user-id file: %v %s", err, out)
	}
	if out, err := s.job("/suid udp EVIL:4433"); err == nil {
		s.t.Errorf("a set-user-id file of the gate's user works: %s", out)
	}
}

// checkNested lays a bridge into the namespace, as an engine in the job would,
// with a namespace behind it.
func (s *sidecar) checkNested() {
	t := s.t
	t.Helper()
	needProgram(t, "ip", "nsenter")
	pid := inspect(t, s.container("gate"), "{{.State.Pid}}")
	inner := fmt.Sprintf("sp%d-nested", os.Getpid()%10000)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", inner).Run() })
	for _, line := range []string{
		"ip netns add " + inner,
		"ip link add spn0 type veth peer name spn1 netns " + inner,
		"ip link set spn0 netns " + pid,
		"nsenter -t " + pid + " -n ip addr add 172.31.255.1/24 dev spn0",
		"nsenter -t " + pid + " -n ip link set spn0 up",
		"nsenter -t " + pid + " -n busybox sh -c true",
		"ip -n " + inner + " addr add 172.31.255.2/24 dev spn1",
		"ip -n " + inner + " link set spn1 up",
		"ip -n " + inner + " route add default via 172.31.255.1",
	} {
		args := strings.Fields(line)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	nested := func(args ...string) (string, error) {
		out, err := exec.Command("ip", append([]string{"netns", "exec", inner}, args...)...).CombinedOutput()
		return string(out), err
	}
	world := s.address("world-recipe", s.outer)
	if out, err := nested("busybox", "nslookup", "-type=a", "allowed.example", "192.0.2.53"); err != nil || !strings.Contains(out, world) {
		t.Errorf("the allowed name from a nested container: %v %s", err, out)
	}
	if out, err := nested("curl", "--cacert", s.ca.file, "-sS", "-m", "15", "--resolve", "allowed.example:443:"+world, "https://allowed.example/nested"); err != nil {
		t.Errorf("the allowed host from a nested container: %v %s\n%s", err, out, s.logs("gate"))
	}
	for _, args := range [][]string{
		{"curl", "-sk", "-m", "4", "https://" + s.evil + "/"},
		{"curl", "-s", "-m", "4", "http://" + s.evil + ":4433/"},
		{s.standin, "udp", s.evil + ":4433"},
		{"busybox", "ping", "-c", "1", "-W", "2", s.evil},
		{"curl", "-s", "-m", "3", "http://172.31.255.1:9180/metrics"},
	} {
		if out, err := nested(args...); err == nil {
			t.Errorf("%v works from a nested container: %s", args, out)
		}
	}
}

// checkQuiet: not one packet of the namespace came to the other host, which
// does print those that come.
func (s *sidecar) checkQuiet() {
	s.t.Helper()
	if got := s.received(); got != "" {
		s.t.Errorf("the other host got\n%s", got)
	}
	world := "world-recipe"
	if out, err := s.exec(world, "/standin", "udp", s.evil+":9"); err == nil {
		s.t.Error(out)
	}
	from := s.address(world, s.outer)
	eventually(s.t, "a packet that the other host prints", func() bool { return strings.Contains(s.logs("evil-recipe"), from) }, func() string { return s.logs("evil-recipe") })
}

// received are the lines of the other host about packets of this namespace, or
// from the sender that raw frames claim.
func (s *sidecar) received() string {
	s.t.Helper()
	var lines []string
	for _, name := range []string{"evil-recipe", "evil-default"} {
		if exec.Command("docker", "inspect", s.container(name)).Run() != nil {
			continue
		}
		for line := range strings.Lines(s.logs(name)) {
			if strings.Contains(line, s.from) || strings.Contains(line, "10.99.99.99") || strings.Contains(line, "172.31.255") {
				lines = append(lines, line)
			}
		}
	}
	return strings.Join(lines, "")
}
