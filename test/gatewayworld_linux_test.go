package test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A gatewayWorld is what a VM network gateway stands in, in network namespaces,
// for IPv4 and IPv6 alike:
//
//	build1 --+                                  +-- the internet's servers
//	build2 --+ br-build  -- gateway -- internet +
//	deploy1 -- br-deploy --/                    +-- attacker: 93.185.10.0/24, 2606:2801:10::/64
//
// Runners of a pool are isolated ports of one bridge. Nothing translates
// addresses, so that what gets through shows whose it is. Addresses of the
// internet look like public ones; no namespace has a way out of here.
type gatewayWorld struct {
	t                           *testing.T
	gateway, internet, attacker *space
	pools                       []string
	runners                     map[string]*runner
	ca                          *testCA
	zone                        *zone
	sites                       map[string]*site
	reached                     *sniffer            // what comes in to the attacker
	uplink                      *sniffer            // what leaves the gateway
	eyes                        map[string]*sniffer // of others, by name
}

// A runner is one machine of a pool.
type runner struct {
	*space
	pool, bridge string
	ip, ip6      string
	gate, gate6  string // the gateway's addresses on its side
}

// A site is a host of the internet, with a server for each family.
type site struct {
	ip, ip6 string
	origins []*origin
}

// accepted counts the connections that a site took so far.
func (s *site) accepted() (n int) {
	for _, o := range s.origins {
		accepted, _ := o.counts()
		n += accepted
	}
	return n
}

// Addresses of the layout.
const (
	upstream  = "93.184.216.53"
	uplink4   = "93.183.0.2"
	uplink6   = "2606:2800:183::2"
	attacker4 = "93.185.10."
	attacker6 = "2606:2801:10::"
)

// newGatewayWorld lays the world out for runners, each named after its pool and
// a number.
func newGatewayWorld(t *testing.T, runners ...string) *gatewayWorld {
	t.Helper()
	w := &gatewayWorld{t: t, runners: map[string]*runner{}, sites: map[string]*site{}, ca: newCA(t)}
	w.gateway, w.internet, w.attacker = newSpace(t, "gateway"), newSpace(t, "internet"), newSpace(t, "attacker")
	w.gateway.forwards()
	// Redirects to neighbours count among the errors that a client may be told.
	w.gateway.sysctl("net/ipv4/conf/all/send_redirects", "0")
	w.gateway.sysctl("net/ipv4/conf/default/send_redirects", "0")
	w.internet.forwards()
	wire(w.gateway, "uplink", w.internet, "customers")
	w.gateway.address("uplink", uplink4+"/30", uplink6+"/64")
	w.internet.address("customers", "93.183.0.1/30", "2606:2800:183::1/64")
	w.gateway.route("default", "93.183.0.1", "default", "2606:2800:183::1")
	wire(w.internet, "bad", w.attacker, "wan")
	w.internet.address("bad", "93.185.0.1/30", "2606:2801:185::1/64")
	w.attacker.address("wan", "93.185.0.2/30", "2606:2801:185::2/64")
	w.internet.route(attacker4+"0/24", "93.185.0.2", attacker6+"/64", "2606:2801:185::2")
	w.attacker.route("default", "93.185.0.1", "default", "2606:2801:185::1")
	w.attacker.ip("-4", "route", "add", "local", attacker4+"0/24", "dev", "lo")
	w.attacker.ip("-6", "route", "add", "local", attacker6+"/64", "dev", "lo")
	for _, name := range runners {
		w.addRunner(name)
	}
	w.internet.address("lo", upstream+"/32")
	w.internet.do(func() { w.zone = newZoneAt(t, upstream+":53") })
	w.reached, w.uplink = newSniffer(w.attacker, "wan"), newSniffer(w.internet, "customers")
	w.serveAttacker()
	return w
}

// addRunner connects a runner, the first of a pool with the pool's bridge.
func (w *gatewayWorld) addRunner(name string) {
	w.t.Helper()
	pool := strings.TrimRight(name, "0123456789")
	r := &runner{space: newSpace(w.t, name), pool: pool, bridge: "br-" + pool}
	if !slices.Contains(w.pools, pool) {
		w.pools = append(w.pools, pool)
		w.gateway.ip("link", "add", r.bridge, "type", "bridge")
		w.gateway.ip("link", "set", r.bridge, "up")
	}
	net := 10 * (slices.Index(w.pools, pool) + 2)
	host := 2
	for _, other := range w.runners {
		if other.pool == pool {
			host++
		}
	}
	r.gate, r.gate6 = fmt.Sprintf("10.%d.0.1", net), fmt.Sprintf("2001:db8:%d::1", net)
	r.ip, r.ip6 = fmt.Sprintf("10.%d.0.%d", net, host), fmt.Sprintf("2001:db8:%d::%d", net, host)
	if host == 2 {
		w.gateway.address(r.bridge, r.gate+"/24", r.gate6+"/64")
		w.internet.route(fmt.Sprintf("10.%d.0.0/24", net), uplink4, fmt.Sprintf("2001:db8:%d::/64", net), uplink6)
	}
	wire(w.gateway, name, r.space, "eth0")
	w.gateway.ip("link", "set", name, "master", r.bridge)
	w.gateway.command("bridge", "-n", w.gateway.name, "link", "set", "dev", name, "isolated", "on")
	r.address("eth0", r.ip+"/24", r.ip6+"/64")
	r.route("default", r.gate, "default", r.gate6)
	r.resolver(r.gate)
	w.runners[name] = r
}

// serveAttacker answers TCP on the ports that attacks try, with the allowed
// name's own certificate on 443: a gateway that dials it notices nothing.
func (w *gatewayWorld) serveAttacker() {
	cert := w.ca.issue("tls.example")
	w.attacker.do(func() {
		httpOrigin(w.t, "[::]:443", &cert)
		httpOrigin(w.t, "[::]:80", nil)
		for _, port := range []string{"22", "53", "853", "5432", "40000"} {
			echoOrigin(w.t, "[::]:"+port)
		}
	})
}

// host gives names a pair of addresses of the internet, with last in each, and
// makes the site that start serves there.
func (w *gatewayWorld) host(last int, start func(addr string) *origin, ports []string, names ...string) *site {
	w.t.Helper()
	s := &site{ip: fmt.Sprintf("93.184.216.%d", last), ip6: fmt.Sprintf("2606:2800:220:1::%d", last)}
	w.internet.address("lo", s.ip+"/32", s.ip6+"/128")
	for _, name := range names {
		w.zone.add(w.t, name+". 60 IN A "+s.ip)
		w.zone.add(w.t, name+". 60 IN AAAA "+s.ip6)
		w.sites[name] = s
	}
	for _, port := range ports {
		for _, ip := range []string{s.ip, s.ip6} {
			w.internet.do(func() { s.origins = append(s.origins, start(net.JoinHostPort(ip, port))) })
		}
	}
	return s
}

// tlsHost is a host that serves HTTPS.
func (w *gatewayWorld) tlsHost(last int, names ...string) *site {
	w.t.Helper()
	cert := w.ca.issue(names...)
	return w.host(last, func(addr string) *origin { return httpOrigin(w.t, addr, &cert) }, []string{"443"}, names...)
}

// serveEverything starts the servers that jobs of pool build want:
//
//	tls.example     HTTPS
//	web.example     HTTP
//	git.example     HTTPS, with repo.git
//	apt.example     HTTP, with a package index
//	ssh.example     OpenSSH, with the same repository
//	db.example      TCP 5432, echoes
//	other.example   HTTPS, what no pool may reach
//	deploy.example  HTTPS, for pool deploy
func (w *gatewayWorld) serveEverything() *sshServer {
	w.t.Helper()
	w.tlsHost(34, "tls.example")
	w.tlsHost(41, "other.example")
	w.tlsHost(42, "deploy.example")
	w.host(35, func(addr string) *origin { return httpOrigin(w.t, addr, nil) }, []string{"80"}, "web.example")
	w.host(54, func(addr string) *origin { return echoOrigin(w.t, addr) }, []string{"5432"}, "db.example")
	repo := newRepository(w.t)
	for _, o := range w.tlsHost(36, "git.example").origins {
		o.serveFiles(filepath.Join(repo, ".git"))
	}
	w.serveApt()
	return w.serveSSH(repo)
}

// newRepository is a git repository with one commit, "one".
func newRepository(t *testing.T) string {
	t.Helper()
	repo := filepath.Join(t.TempDir(), "repo.git")
	for _, args := range [][]string{
		{"git", "init", "-q", repo},
		{"git", "-C", repo, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "--allow-empty", "-m", "one"},
		{"git", "-C", repo, "update-server-info"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	return repo
}

// serveApt serves a flat apt repository without packages below /debian/.
func (w *gatewayWorld) serveApt() {
	dir := filepath.Join(w.t.TempDir(), "debian")
	packages := "Package: nothing\nVersion: 1\nArchitecture: all\nFilename: nothing.deb\nSize: 1\nSHA256: " + strings.Repeat("0", 64) + "\n\n"
	release := fmt.Sprintf("Origin: test\nDate: %s\nSHA256:\n %x %d Packages\n", time.Now().UTC().Format(time.RFC1123), sha256.Sum256([]byte(packages)), len(packages))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	for name, text := range map[string]string{"Packages": packages, "Release": strings.Replace(release, "UTC\n", "+0000\n", 1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, o := range w.host(80, func(addr string) *origin { return httpOrigin(w.t, addr, nil) }, []string{"80"}, "apt.example").origins {
		o.mu.Lock()
		o.files = http.StripPrefix("/debian/", http.FileServer(http.Dir(dir)))
		o.mu.Unlock()
	}
}

// An sshServer is OpenSSH at ssh.example, and what its client needs.
type sshServer struct {
	url     string // of the repository
	command string // GIT_SSH_COMMAND
}

func (w *gatewayWorld) serveSSH(repo string) *sshServer {
	t := w.t
	t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	needProgram(t, sshd, "ssh", "ssh-keygen", "git")
	s := w.host(22, nil, nil, "ssh.example")
	dir := sshFiles(t, "ssh.example", s.ip, "["+s.ip6+"]")
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	said := w.internet.serve(sshd, "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	for _, ip := range []string{s.ip, s.ip6} {
		eventually(t, "sshd", func() bool {
			conn, err := w.internet.dial("tcp", net.JoinHostPort(ip, "22"), "")
			if err == nil {
				conn.Close()
			}
			return err == nil
		}, said.String)
	}
	return &sshServer{url: "ssh://root@ssh.example" + repo, command: sshCommand(dir)}
}

// sshFiles makes the keys of an OpenSSH server called name and of its client,
// and the files of both: sshd_config, known_hosts. It gives their directory.
func sshFiles(t *testing.T, name string, listen ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	public, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("HostKey %s\nAuthorizedKeysFile %s\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nStrictModes no\nPidFile none\nUsePAM no\nUseDNS no\n",
		filepath.Join(dir, "host"), filepath.Join(dir, "user.pub"))
	for _, addr := range listen {
		config += "ListenAddress " + addr + "\n"
	}
	for file, text := range map[string]string{"known_hosts": name + " " + string(public), "sshd_config": config} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sshCommand is the GIT_SSH_COMMAND for the files of sshFiles.
func sshCommand(dir string, options ...string) string {
	command := fmt.Sprintf("ssh -F none -i %s/user -o UserKnownHostsFile=%s/known_hosts -o StrictHostKeyChecking=yes -o BatchMode=yes", dir, dir)
	for _, option := range options {
		command += " -o '" + option + "'"
	}
	return command
}

// environment is that of a job: certificates and keys, and no proxy variables.
func (w *gatewayWorld) environment(ssh *sshServer) []string {
	env := []string{"SSL_CERT_FILE=" + w.ca.file, "CURL_CA_BUNDLE=" + w.ca.file, "GIT_SSL_CAINFO=" + w.ca.file}
	if ssh != nil {
		env = append(env, "GIT_SSH_COMMAND="+ssh.command)
	}
	return env
}

// settle sends markers from the gateway to the attacker until the sniffers have
// seen them, twice: what left before has arrived, too.
func (w *gatewayWorld) settle() {
	w.t.Helper()
	for range 2 {
		here, there := w.uplink.marked(), w.reached.marked()
		for _, to := range []string{attacker4 + "250", attacker6 + "ffff"} {
			conn, err := w.gateway.dial("udp", net.JoinHostPort(to, fmt.Sprint(markerPort)), "")
			if err != nil {
				w.t.Fatal(err)
			}
			if _, err := io.WriteString(conn, marker); err != nil {
				w.t.Fatal(err)
			}
			conn.Close()
		}
		eventually(w.t, "the markers at the attacker", func() bool {
			return w.uplink.marked() >= here+2 && w.reached.marked() >= there+2
		}, func() string { return "" })
	}
}

// A watch is a moment of the sniffers.
type watch struct {
	w               *gatewayWorld
	reached, uplink int
}

func (w *gatewayWorld) watch() watch {
	w.settle()
	return watch{w, w.reached.count(), w.uplink.count()}
}

// checkNothing fails the test if anything but markers has reached the attacker
// since, or a packet that is not the gateway's own has left it.
func (s watch) checkNothing(t *testing.T, what string) {
	t.Helper()
	s.w.settle()
	for _, p := range s.w.reached.all(s.reached, nil) {
		t.Errorf("%s: reached the attacker: %s", what, p)
	}
	strays := func(p sniffed) bool {
		a := p.src.String()
		return a != uplink4 && a != uplink6 && !p.src.IsLinkLocalUnicast()
	}
	for _, p := range s.w.uplink.all(s.uplink, strays) {
		t.Errorf("%s: passed the gateway: %s", what, p)
	}
}

// clientTLS is what a job's TLS client believes.
func (w *gatewayWorld) clientTLS(name string) *tls.Config {
	return &tls.Config{RootCAs: w.ca.pool, ServerName: name}
}

// buildPools is the policy of these tests.
const buildPools = `  build:
    sources: [10.20.0.0/24, "2001:db8:20::/64"]
    interfaces: [br-build]
    allow:
      - tls.example
      - git.example
      - web.example:80
      - apt.example:80
      - {host: ssh.example, ports: [22], tls: off}
      - db.example:5432
  deploy:
    sources: [10.30.0.0/24, "2001:db8:30::/64"]
    interfaces: [br-deploy]
    allow: [deploy.example]
`

// everyAlert makes the alerts of a test stand alone, and report again at once.
const everyAlert = "group_interval: 1s, thresholds: {fold_groups: 100000, scan_destinations: 1000, denied_then_direct_window: 1ms, address_mismatch_hold: 1ms, first_digest: 1s}"

// start runs the daemon as a gateway, with every listener where a runner could
// reach it but for the firewall.
func (w *gatewayWorld) start(pools, rest string) *daemon {
	w.t.Helper()
	d := w.prepare(pools, rest)
	d.run()
	return d
}

func (w *gatewayWorld) prepare(pools, rest string) *daemon {
	w.t.Helper()
	d := prepare(w.t, config{ip: "10.20.0.1", prefix: w.gateway.through()})
	var proxies, resolvers []string
	for _, name := range w.pools {
		for _, r := range w.runners {
			if r.pool == name {
				proxies = append(proxies, fmt.Sprintf("%q", r.gate+":3128"))
				resolvers = append(resolvers, fmt.Sprintf("%q, %q", r.gate+":53", "["+r.gate6+"]:53"))
				break
			}
		}
	}
	d.listen = fmt.Sprintf("{transparent: auto, proxy: [%s], dns: [%s], admin: %q, control: \"unix:%s\"}",
		strings.Join(proxies, ", "), strings.Join(resolvers, ", "), d.admin, d.path("control.sock"))
	d.args = []string{"--firewall", "gateway"}
	d.extra = rest
	if !strings.Contains(rest, "alerts:") {
		d.extra += fmt.Sprintf("\nalerts: {state_dir: %s, %s}\n", d.path("state"), everyAlert)
	}
	d.write(upstream+":53", pools)
	// The daemon leaves root behind; what it writes belongs to its user.
	if err := os.Chmod(filepath.Dir(d.dir), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(d.path("state"), 0o700); err != nil {
		w.t.Fatal(err)
	}
	for _, path := range []string{d.dir, d.path("state")} {
		if err := os.Chown(path, gatewayUser, gatewayUser); err != nil {
			w.t.Fatal(err)
		}
	}
	return d
}

// gatewayUser is the user that the daemon becomes.
const gatewayUser = 65532

// metrics reads a metrics page in the gateway's namespace.
func (w *gatewayWorld) metrics(d *daemon) string {
	w.t.Helper()
	conn, err := w.gateway.dial("tcp", d.admin, "")
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /metrics HTTP/1.0\r\nHost: %s\r\n\r\n", d.admin)
	page, err := io.ReadAll(conn)
	if err != nil || !bytes.Contains(page, []byte("go_goroutines")) {
		w.t.Fatalf("the metrics: %v\n%s", err, page)
	}
	return string(page)
}

// attackerAt is the nth address of the attacker, of the family of like.
func attackerAt(n int, like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.MustParseAddr(fmt.Sprintf("%s%d", attacker4, n))
	}
	return netip.MustParseAddr(fmt.Sprintf("%s%x", attacker6, n))
}
