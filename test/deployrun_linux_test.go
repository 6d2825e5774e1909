package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// A recipe starts Sallyport the way a file of deploy/ says: two command lines,
// each with a user and the capabilities that it has.
type recipe struct {
	policy string
	apply  deployStep // its line is "" if run applies the firewall
	run    deployStep
	ready  []string // the probe that the jobs wait for
}

type deployStep struct {
	user int
	caps []string // as setpriv(1) names them
	line []string // without the program
}

// command is the step as a command line: its user has exactly its capabilities,
// and never gets more.
func (s deployStep) command() []string {
	set := "-all"
	for _, name := range s.caps {
		set += ",+" + name
	}
	all := []string{"setpriv", "--no-new-privs", "--clear-groups", fmt.Sprintf("--reuid=%d", s.user), fmt.Sprintf("--regid=%d", s.user), "--bounding-set=" + set}
	if s.user != 0 {
		all = append(all, "--inh-caps="+set, "--ambient-caps="+set)
	}
	return append(append(all, binary), s.line...)
}

// podRecipe is how deploy/kubernetes/sidecar.yaml starts Sallyport.
func podRecipe(t *testing.T) recipe {
	t.Helper()
	pod := transparentPods(t)["../deploy/kubernetes/sidecar.yaml"]
	r := recipe{
		apply: deployStep{user: *pod.Init[0].Security.User, line: pod.Init[0].Args},
		run:   deployStep{user: *pod.Init[1].Security.User, line: pod.Init[1].Args},
		ready: pod.Init[1].Startup.Exec.Command[1:],
	}
	for n, step := range []*deployStep{&r.apply, &r.run} {
		for _, name := range pod.Init[n].Security.Capabilities.Add {
			step.caps = append(step.caps, strings.ToLower(name))
		}
	}
	for _, d := range documents(t) {
		if d.path == "../deploy/kubernetes/sidecar.yaml" && d.tree["kind"] == "ConfigMap" {
			r.policy, _ = at(d.tree, "data", "sallyport.yaml").(string)
		}
	}
	return r
}

// unitRecipe is how a unit of deploy/systemd starts Sallyport, with a policy
// of that directory.
func unitRecipe(t *testing.T, name, policy string) recipe {
	t.Helper()
	unit := readText(t, "../deploy/systemd/"+name)
	line := func(key string) []string {
		m := regexp.MustCompile(`(?m)^` + key + `=\+?/usr/local/bin/sallyport (.*)$`).FindStringSubmatch(unit)
		if m == nil {
			return nil
		}
		return strings.Fields(m[1])
	}
	r := recipe{
		policy: readText(t, "../deploy/systemd/"+policy), ready: line("ExecStartPost"),
		apply: deployStep{user: 0, caps: []string{"net_admin"}, line: line("ExecStartPre")},
		run:   deployStep{user: 65532, line: line("ExecStart")},
	}
	m := regexp.MustCompile(`(?m)^AmbientCapabilities=(.*)$`).FindStringSubmatch(unit)
	if m == nil || !strings.Contains(unit, "\nUser=sallyport\n") || !strings.Contains(unit, "\nCapabilityBoundingSet="+m[1]+"\n") {
		t.Fatalf("%s does not run as this test does", name)
	}
	for _, name := range strings.Fields(m[1]) {
		r.run.caps = append(r.run.caps, strings.ToLower(strings.TrimPrefix(name, "CAP_")))
	}
	return r
}

// startRecipe carries a recipe out in a namespace and waits until it is ready.
// It gives the policy's path, and what the daemon says.
func startRecipe(t *testing.T, s *space, r recipe) (policy string, said *lockedBuffer) {
	t.Helper()
	needProgram(t, "setpriv")
	dir, err := os.MkdirTemp("", "sallyport-deploy-") // not t.TempDir, which is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	state := filepath.Join(dir, "state")
	policy = filepath.Join(dir, "sallyport.yaml")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.Chown(state, 65532, 65532),
		os.WriteFile(policy, []byte(strings.ReplaceAll(r.policy, "/var/lib/sallyport", state)), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	here := func(step deployStep) []string {
		command := step.command()
		for i, word := range command {
			command[i] = strings.ReplaceAll(word, "/etc/sallyport/sallyport.yaml", policy)
		}
		return command
	}
	if r.apply.line != nil {
		if out, err := s.run(nil, here(r.apply)...); err != nil {
			t.Fatalf("applying the firewall: %v\n%s", err, out)
		}
	}
	said = s.serve(here(r.run)...)
	eventually(t, "Sallyport to be ready", func() bool {
		_, err := s.run(nil, here(deployStep{user: r.run.user, caps: r.run.caps, line: append(r.ready, "--timeout", "1s")})...)
		return err == nil
	}, said.String)
	return policy, said
}

// jobCurl runs curl in a namespace as the user of a job, without rights.
func jobCurl(s *space, ca *testCA, url string) (string, error) {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "sallyport-deploy-")
	if err != nil {
		s.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	public := filepath.Join(dir, "ca.pem") // where that user can read it
	for _, err := range []error{os.Chmod(dir, 0o755), os.WriteFile(public, []byte(readText(s.t, ca.file)), 0o644)} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return s.run(nil, "setpriv", "--no-new-privs", "--clear-groups", "--reuid=1001", "--regid=1001", "--bounding-set=-all",
		"curl", "-sS", "-m", "10", "--cacert", public, url)
}

// TestDeploySidecarRuns carries out the recipes for a pod and for a machine, as
// users and with capabilities that they say: a job that knows of no proxy
// reaches the allowed host, no other, and none at all when the daemon is gone.
func TestDeploySidecarRuns(t *testing.T) {
	needProgram(t, "curl")
	for name, r := range map[string]recipe{
		"a pod":     podRecipe(t),
		"a machine": unitRecipe(t, "sallyport-sidecar.service", "sidecar.yaml"),
	} {
		t.Run(name, func(t *testing.T) {
			pod, world, ca := newSpace(t, "pod"), newSpace(t, "world"), newCA(t)
			wire(pod, "eth0", world, "eth0")
			pod.address("eth0", "10.244.0.7/24")
			world.address("eth0", "10.244.0.1/24")
			pod.route("default", "10.244.0.1")
			world.address("lo", upstream+"/32", "93.184.216.34/32", "93.184.216.66/32")
			pod.resolver(upstream)
			cert := ca.issue("registry.corp.example", "evil.example")
			var evil *origin
			world.do(func() {
				httpOrigin(t, "93.184.216.34:443", &cert)
				evil = httpOrigin(t, "93.184.216.66:443", &cert)
				newZoneAt(t, upstream+":53", "registry.corp.example. 60 IN A 93.184.216.34", "evil.example. 60 IN A 93.184.216.66")
			})
			policy, said := startRecipe(t, pod, r)
			if out, err := jobCurl(pod, ca, "https://registry.corp.example/"); err != nil {
				t.Errorf("the allowed host: %v %s\n%s", err, out, said)
			}
			refused := func(when string) {
				t.Helper()
				for _, url := range []string{"https://evil.example/", "https://93.184.216.66/"} {
					if out, err := jobCurl(pod, ca, url); err == nil {
						t.Errorf("%s, %s is reached: %s", when, url, out)
					}
				}
				if n, _ := evil.counts(); n > 0 {
					t.Errorf("%s, the other host took %d connections", when, n)
				}
				if out, err := pod.run(nil, binary, "firewall", "status", "--mode", "sidecar", "-c", policy); err != nil {
					t.Errorf("%s, the firewall: %v %s", when, err, out)
				}
			}
			refused("while it runs")
			pod.killProgram(t)
			refused("after kill -9")
			if out, err := jobCurl(pod, ca, "https://registry.corp.example/"); err == nil {
				t.Errorf("the allowed host is reached without the gate: %s", out)
			}
		})
	}
}

// killProgram kills what runs as Sallyport's user in the namespace, and waits
// until it is gone.
func (s *space) killProgram(t *testing.T) {
	t.Helper()
	out, err := s.run(nil, "ip", "netns", "pids", s.name)
	if err != nil {
		t.Fatal(out)
	}
	killed := 0
	for _, pid := range strings.Fields(out) {
		exe, err := os.Readlink("/proc/" + pid + "/exe")
		if err != nil || exe != binary {
			continue
		}
		killed++
		if out, err := s.run(nil, "kill", "-9", pid); err != nil {
			t.Fatal(out)
		}
		eventually(t, "process "+pid+" to be gone", func() bool {
			status, err := os.ReadFile("/proc/" + pid + "/status")
			return err != nil || strings.Contains(string(status), "\nState:\tZ")
		}, func() string { return "" })
	}
	if killed == 0 {
		t.Fatal("nothing to kill")
	}
}

// TestDeployGatewayRuns carries out the unit of the gateway with the policy
// beside it.
func TestDeployGatewayRuns(t *testing.T) {
	needProgram(t, "curl")
	w := newGatewayWorld(t, "build1", "deploy1")
	allowed, other := w.tlsHost(34, "registry.corp.example"), w.tlsHost(35, "other.example")
	w.gateway.resolver(upstream)
	policy, said := startRecipe(t, w.gateway, unitRecipe(t, "sallyport-gateway.service", "gateway.yaml"))
	if out, err := jobCurl(w.runners["build1"].space, w.ca, "https://registry.corp.example/"); err != nil {
		t.Errorf("the allowed host: %v %s\n%s", err, out, said)
	}
	before := allowed.accepted()
	for name, url := range map[string]string{"build1": "https://other.example/", "deploy1": "https://registry.corp.example/"} {
		if out, err := jobCurl(w.runners[name].space, w.ca, url); err == nil {
			t.Errorf("%s reaches %s: %s", name, url, out)
		}
	}
	if out, err := jobCurl(w.runners["build1"].space, w.ca, "https://"+other.ip+"/"); err == nil {
		t.Errorf("an address is reached: %s", out)
	}
	if other.accepted() > 0 || allowed.accepted() > before {
		t.Error("a refused host took a connection")
	}
	if out, err := w.gateway.run(nil, binary, "firewall", "status", "--mode", "gateway", "-c", policy); err != nil {
		t.Errorf("the firewall: %v %s", err, out)
	}
}

// TestDeployCloudInitPolicy: the firewall of the user data's policy can be
// planned without the machine, and lets DHCP in as the drop-in says.
func TestDeployCloudInitPolicy(t *testing.T) {
	s := newSpace(t, "vm")
	s.ip("link", "add", "br-runners", "type", "bridge")
	path := filepath.Join(t.TempDir(), "sallyport.yaml")
	if err := os.WriteFile(path, []byte(fileOf(t, userData(t), "/etc/sallyport/sallyport.yaml")), 0o644); err != nil {
		t.Fatal(err)
	}
	var dropIn string
	for _, line := range commandLines(fileOf(t, userData(t), "/etc/systemd/system/sallyport-gateway.service.d/dhcp.conf")) {
		dropIn = line
	}
	if !strings.Contains(dropIn, "--firewall gateway") || !strings.Contains(dropIn, "--allow-input dhcp") {
		t.Errorf("the drop-in runs %q", dropIn)
	}
	out, err := s.run(nil, binary, "firewall", "apply", "--mode", "gateway", "-c", path, "--allow-input", "dhcp")
	if err != nil {
		t.Fatal(out)
	}
	if out, err := s.run(nil, binary, "firewall", "print", "--mode", "gateway", "-c", path, "--allow-input", "dhcp"); err != nil || !strings.Contains(out, "udp dport 67") {
		t.Errorf("%v %s", err, out)
	}
	var listen struct{ Listen map[string]string }
	if err := yaml.Unmarshal([]byte(readText(t, path)), &listen); err != nil || listen.Listen["transparent"] == "" {
		t.Errorf("the policy listens to %v, %v", listen.Listen, err)
	}
}
