package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log" //nolint:depguard // net/http asks for one to be silenced
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
)

// lastStandIn numbers the addresses of stand-ins.
var lastStandIn atomic.Uint32

// standInAddress is one for a server of a test: in a loopback network that no
// daemon of ours, and no other run, has.
func standInAddress() string {
	return fmt.Sprintf("127.%d.0.%d", 64+os.Getpid()%128, lastStandIn.Add(1))
}

// A gitServer serves repositories in its directory as git.example: HTTPS by
// git's own backend (the smart protocol), SSH by OpenSSH.
type gitServer struct {
	t    *testing.T
	ca   *testCA
	addr string // where it listens, HTTPS and SSH
	root string // has repo.git, and sub.git that it has as a submodule
	ssh  string // the directory of sshFiles
}

// newGitServer makes repositories of some history and serves them.
func newGitServer(t *testing.T) *gitServer {
	t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	needProgram(t, "git", sshd, "ssh", "ssh-keygen")
	g := &gitServer{t: t, ca: newCA(t), addr: standInAddress(), root: t.TempDir()}
	g.ssh = sshFiles(t, "git.example", g.addr)
	g.makeRepository("sub", 3, "")
	g.makeRepository("repo", 40, "../sub.git") // by the way that repo.git comes

	cert := g.ca.issue("git.example")
	backend := &cgi.Handler{
		Path: filepath.Join(g.exec("git", "--exec-path"), "git-http-backend"), Root: "/", Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + g.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	l, err := tls.Listen("tcp", net.JoinHostPort(g.addr, "443"), &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: backend, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(l) }()
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(sshd, "-D", "-e", "-f", filepath.Join(g.ssh, "sshd_config"))
	said := &lockedBuffer{}
	daemon.Stderr = said
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); _ = daemon.Process.Kill(); _ = daemon.Wait() })
	eventually(t, "sshd", func() bool {
		conn, err := net.Dial("tcp", net.JoinHostPort(g.addr, "22"))
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, said.String)
	return g
}

// exec runs a program that must succeed, and gives what it says.
func (g *gitServer) exec(args ...string) string {
	g.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		g.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// makeRepository makes root/name.git with commits, and a submodule where its
// URL is given.
func (g *gitServer) makeRepository(name string, commits int, submodule string) {
	g.t.Helper()
	dir := filepath.Join(g.root, name+".git")
	work := filepath.Join(g.t.TempDir(), name)
	git := func(args ...string) {
		g.exec(append([]string{"git", "-C", work, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "safe.directory=*"}, args...)...)
	}
	g.exec("git", "init", "-q", "-b", "main", work)
	for i := range commits {
		text := strings.Repeat(fmt.Sprintf("line of commit %d\n", i), 500)
		if err := os.WriteFile(filepath.Join(work, fmt.Sprintf("file%d", i)), []byte(text), 0o644); err != nil {
			g.t.Fatal(err)
		}
		git("add", ".")
		git("commit", "-q", "-m", fmt.Sprintf("commit %d", i))
	}
	if submodule != "" {
		modules := fmt.Sprintf("[submodule \"sub\"]\n\tpath = sub\n\turl = %s\n", submodule)
		if err := os.WriteFile(filepath.Join(work, ".gitmodules"), []byte(modules), 0o644); err != nil {
			g.t.Fatal(err)
		}
		head := g.exec("git", "-C", filepath.Join(g.root, "sub.git"), "rev-parse", "main")
		git("add", ".gitmodules")
		git("update-index", "--add", "--cacheinfo", "160000,"+head+",sub")
		git("commit", "-q", "-m", "a submodule")
	}
	g.exec("git", "clone", "-q", "--bare", work, dir)
}

// installed are packages that a job installs, with all they depend on; git and
// what it needs for both ways of cloning are among them.
var installed = strings.Fields(`git openssh-client netcat-openbsd ca-certificates hello tree sl cowsay figlet bc dc
	time moreutils pv rename jq lsb-release dos2unix unzip zip whois xxd`)

// TestRealInstallsAreSilent has a job make a whole Debian out of packages,
// install twenty more into it, clone with git by HTTPS and by SSH, and build a
// container image whose steps do the like, each with Sallyport as the one way
// out: no alert above info comes of it.
func TestRealInstallsAreSilent(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "debootstrap", "apt-get", "docker")
	need(t, exec.Command("docker", "info").Run() == nil, "a Docker engine that answers")
	g := newGitServer(t)
	rules, suites := packageSources(t)
	rules += fmt.Sprintf("      - {host: git.example, ports: [22, 443], resolves_to: [%s/32]}\n", g.addr)
	upstream := newZone(t, append(packageAddresses(t), "git.example. 300 IN A "+g.addr)...)

	j, told := newJobSpace(t), newSlack(t)
	d := j.startAt("  build:\n    sources: ["+j.client+"/32]\n    allow:\n"+rules, fmt.Sprintf("%q", upstream.addr), told)
	root := j.makeDebian(suites)
	j.installPackages(root, suites)
	d.carried("", 80, 20, "http")
	clones := j.clone(g, root)
	d.carried("git.example", 443, clones["https"], "connect")
	d.carried("git.example", 22, clones["ssh"], "connect")
	checkSilence(t, d, told, func(host string) { _, _ = j.run(nil, "curl", "-sS", "https://"+host+"/") })

	packages := d.wait("a connection for packages", func(e event) bool { return e.text("phase") == "close" && e.number("port") == 80 })
	buildContainer(t, g, root, rules, upstream.addr, packages.text("ip"))
}

// packageAddresses are records for the hosts of apt's sources.
func packageAddresses(t *testing.T) (records []string) {
	t.Helper()
	for _, host := range packageHosts(t) {
		records = append(records, host.records()...)
	}
	return records
}

// makeDebian has debootstrap make a base system of the suite of the first
// source, in a directory that it gives. It lies in memory, as dpkg waits for
// the disk at every file.
func (j *jobSpace) makeDebian(suites string) (root string) {
	j.t.Helper()
	root = j.t.TempDir()
	newSmallDisk(j.t, root, "2g")
	source := strings.Fields(strings.SplitN(suites, "\n", 2)[0]) // deb [trusted=yes] URL SUITE COMPONENT
	if out, err := j.run(nil, "debootstrap", "--variant=minbase", "--no-check-gpg", source[3], root, source[2]); err != nil {
		j.t.Fatalf("%v\n%s", err, out)
	}
	own, err := os.Hostname()
	if err != nil {
		j.t.Fatal(err)
	}
	for file, text := range map[string]string{
		"etc/hosts":            "127.0.0.1 localhost " + own + "\n", // as every installed system has it
		"etc/apt/sources.list": suites, "etc/resolv.conf": "nameserver " + j.gateway + "\n", "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
	} {
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o755); err != nil {
			j.t.Fatal(err)
		}
	}
	return root
}

// installPackages installs and configures packages in a base system.
func (j *jobSpace) installPackages(root, suites string) {
	j.t.Helper()
	script := "apt-get -q update && apt-get -qy install --no-install-recommends " + strings.Join(installed, " ")
	if out, err := j.run([]string{"DEBIAN_FRONTEND=noninteractive"}, "chroot", root, "sh", "-c", script); err != nil {
		j.t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range installed {
		out, err := exec.Command("chroot", root, "dpkg-query", "-W", "-f", "${Status}", name).Output()
		if err != nil || string(out) != "install ok installed" {
			j.t.Errorf("%s is not installed: %s %v", name, out, err)
		}
	}
}

// clone clones in all the usual ways, with the git that was installed, and
// gives how many connections that takes at least, by scheme.
func (j *jobSpace) clone(g *gitServer, root string) (connections map[string]int) {
	j.t.Helper()
	inside := filepath.Join(root, "keys")
	g.exec("cp", "-r", g.ssh, inside)
	g.exec("cp", g.ca.file, filepath.Join(root, "ca.pem"))
	through := fmt.Sprintf("ProxyCommand=nc -X connect -x %s %%h %%p", net.JoinHostPort(j.gateway, "3128"))
	env := []string{"GIT_SSL_CAINFO=/ca.pem", "GIT_SSH_COMMAND=" + sshCommand("/keys", through)}
	connections = make(map[string]int)
	for scheme, url := range map[string]string{"https": "https://git.example/repo.git", "ssh": "ssh://root@git.example" + g.root + "/repo.git"} {
		for i, c := range []struct {
			args    []string
			want    string // a file of the clone
			commits string
		}{
			{nil, "file39", "41"},
			{[]string{"--depth", "1"}, "file39", "1"},
			{[]string{"--recurse-submodules"}, "sub/file2", "41"},
		} {
			into := fmt.Sprintf("/clone-%s%d", scheme, i)
			args := append(append([]string{"chroot", root, "git", "clone", "-q"}, c.args...), url, into)
			if out, err := j.run(env, args...); err != nil {
				j.t.Errorf("%v: %v\n%s", args, err, out)
				continue
			}
			connections[scheme] += 1 + strings.Count(c.want, "sub/")
			if _, err := os.Stat(filepath.Join(root, into, c.want)); err != nil {
				j.t.Errorf("%v: %v", args, err)
			}
			if n := g.exec("chroot", root, "git", "-C", into, "rev-list", "--count", "HEAD"); n != c.commits {
				j.t.Errorf("%v: %s commits, not %s", args, n, c.commits)
			}
		}
	}
	return connections
}

// carried waits until n connections by a way, to a host (any: "") and port,
// brought something under an allow line, and are closed.
func (d *daemon) carried(host string, port float64, n int, via string) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%d connections to %s:%v", n, host, port), func() bool {
		closed := 0
		for _, e := range d.events() {
			if e.text("phase") == "close" && e.text("reason") == "allowed" && e.text("via") == via && e.number("port") == port &&
				(host == "" || e.text("host") == host) && e.number("received") > 0 {
				closed++
			}
		}
		return closed >= n
	}, d.dump)
}

// checkSilence holds that nothing was refused and no alert above info raised.
// First ask has a job ask for a host that nobody allowed, whose alert must come
// and reach Slack: silence is not deafness. Then it stops the daemon, which
// tells the log of what still gathers.
func checkSilence(t *testing.T, d *daemon, told *slack, ask func(host string)) {
	t.Helper()
	ask("last.example")
	d.wait("the alert of the last request", func(e event) bool { return e.text("alert") != "" && e.text("host") == "last.example" })
	eventually(t, "the message of the last request", func() bool { return told.mentions("last.example") > 0 }, d.dump)
	d.stop()
	for _, e := range d.events() {
		switch {
		case e.text("host") == "last.example", e.text("name") == "last.example":
		case e.text("alert") != "" && e.text("severity") != "info":
			t.Errorf("a build is no cause for %v", e)
		case e.text("verdict") == "deny", e.text("kind") == "conn" && e.text("reason") != "allowed":
			t.Errorf("a build was refused what it needs: %v", e)
		}
	}
	if n := len(told.received()); n != told.mentions("last.example") {
		t.Errorf("Slack got %d messages: %v", n, told.received())
	}
}

// buildFile installs, clones, and runs what came of it. Sallyport answers, and
// what it stands before does not.
const buildFile = `ARG BASE
FROM $BASE
ARG GATE
ARG MIRROR
COPY ca.pem /ca.pem
RUN apt-get -q update && apt-get -qy install --no-install-recommends toilet ncal
RUN GIT_SSL_CAINFO=/ca.pem git clone -q --recurse-submodules https://git.example/repo.git /src
RUN test -f /src/sub/file2 && toilet built && nc -z -w 5 $GATE && ! nc -z -w 2 $MIRROR
`

// buildContainer builds an image from root on an internal network, where
// Sallyport is on the engine's side of the bridge; mirror, the address that
// packages come from, is out of reach but through it.
func buildContainer(t *testing.T, g *gitServer, root, rules, upstream, mirror string) {
	t.Helper()
	tag := newTag(t, "build")
	inner := tag + "-inner"
	t.Cleanup(func() { removeAll(t, inner, tag+":") })
	docker(t, "network", "create", "--internal", inner)
	gateway := inspect(t, inner, "{{(index .IPAM.Config 0).Gateway}}")
	subnet := inspect(t, inner, "{{(index .IPAM.Config 0).Subnet}}")
	d, told := prepare(t, config{ip: gateway}), newSlack(t)
	d.deliverTo(told)
	d.write(upstream, "  build:\n    sources: ["+subnet+"]\n    allow:\n"+rules)
	d.run()

	pipe := exec.Command("sh", "-c", `tar -C "$1" --exclude=./keys --exclude='./clone*' -c . | docker import - "$2"`, "sh", root, tag+":base")
	if out, err := pipe.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := t.TempDir()
	g.exec("cp", g.ca.file, filepath.Join(dir, "ca.pem"))
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(buildFile), 0o644); err != nil {
		t.Fatal(err)
	}
	proxy := "http://" + d.proxy
	build := exec.Command("docker", "build", "--force-rm", "--no-cache", "--network", inner, "-t", tag+":built", "--build-arg", "BASE="+tag+":base",
		"--build-arg", "GATE="+gateway+" 3128", "--build-arg", "MIRROR="+mirror+" 80",
		"--build-arg", "HTTP_PROXY="+proxy, "--build-arg", "HTTPS_PROXY="+proxy, "--build-arg", "http_proxy="+proxy, "--build-arg", "https_proxy="+proxy, dir)
	build.Env = append(os.Environ(), "DOCKER_BUILDKIT=0") // the other builder comes from a registry
	if out, err := build.CombinedOutput(); err != nil {
		if layers := regexp.MustCompile(`(?m)^ ---> ([0-9a-f]{12})$`).FindAllSubmatch(out, -1); len(layers) > 0 {
			_ = exec.Command("docker", "rmi", string(layers[len(layers)-1][1])).Run() // what was built so far has no name
		}
		t.Fatalf("%v\n%s\n%s", err, out, d.dump())
	}
	d.carried("", 80, 3, "http")
	d.carried("git.example", 443, 2, "connect")
	checkSilence(t, d, told, func(host string) { connect(t, d.proxy, host+":443") })
}
