package test

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// lastJobNet numbers the networks of job namespaces.
var lastJobNet atomic.Uint32

// A jobSpace is a network namespace with one neighbour: the machine, at
// gateway. It has no route to anywhere else.
type jobSpace struct {
	t       *testing.T
	name    string
	gateway string
	client  string
}

// newJobSpace makes a namespace whose only way out is what listens at gateway.
func newJobSpace(t *testing.T) *jobSpace {
	t.Helper()
	needRoot(t)
	needProgram(t, "ip")
	n := lastJobNet.Add(1)
	tag := fmt.Sprintf("sp%d-%d", os.Getpid()%10000, n)
	j := &jobSpace{t: t, name: tag, gateway: fmt.Sprintf("10.213.%d.1", n), client: fmt.Sprintf("10.213.%d.2", n)}
	sh := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	sh("netns", "add", j.name)
	t.Cleanup(func() {
		_ = exec.Command("ip", "netns", "del", j.name).Run()
		_ = os.RemoveAll(filepath.Join("/etc/netns", j.name))
	})
	sh("link", "add", tag+"h", "type", "veth", "peer", "name", tag+"j", "netns", j.name)
	sh("addr", "add", j.gateway+"/24", "dev", tag+"h")
	sh("link", "set", tag+"h", "up")
	sh("-n", j.name, "addr", "add", j.client+"/24", "dev", tag+"j")
	sh("-n", j.name, "link", "set", tag+"j", "up")
	sh("-n", j.name, "link", "set", "lo", "up")
	etc := filepath.Join("/etc/netns", j.name) // ip netns exec mounts its files over /etc
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte("nameserver "+j.gateway+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return j
}

// run executes a program inside the namespace with the proxy variables set, and
// nothing else of the environment but PATH and env.
func (j *jobSpace) run(env []string, args ...string) (string, error) {
	j.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", j.name}, args...)...)
	proxy := "http://" + j.gateway + ":3128"
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + j.t.TempDir(), "LANG=C",
		"HTTP_PROXY=" + proxy, "HTTPS_PROXY=" + proxy, "http_proxy=" + proxy, "https_proxy=" + proxy,
	}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// startAt runs a daemon at the namespace's gateway, its DNS on port 53 there,
// which delivers to Slack (none: nil).
func (j *jobSpace) startAt(pools, upstream string, told *slack) *daemon {
	j.t.Helper()
	d := prepare(j.t, config{ip: j.gateway, rest: "\ndns: {upstreams: [" + upstream + "]}\n"})
	d.dns = net.JoinHostPort(j.gateway, "53")
	if told != nil {
		d.deliverTo(told)
	}
	d.write("", pools)
	d.run()
	return d
}

// realHost is a host of this machine's own configuration, and where it lies.
type realHost struct {
	name  string
	addrs []netip.Addr
	nets  []string // resolves_to that a machine behind a mirror needs
}

// newRealHost resolves a host by the machine's resolver, as the policy for this
// machine has to say so where a mirror lies in a special range.
func newRealHost(t *testing.T, rawURL string) realHost {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil || u.Hostname() == "" {
		t.Fatalf("%q is no URL: %v", rawURL, err)
	}
	h := realHost{name: u.Hostname()}
	ips, err := net.LookupHost(h.name)
	if err != nil {
		need(t, false, "a network where "+u.Hostname()+" resolves")
	}
	for _, text := range ips {
		ip := netip.MustParseAddr(text)
		h.addrs = append(h.addrs, ip)
		h.nets = append(h.nets, fmt.Sprintf("%q", netip.PrefixFrom(ip, ip.BitLen()).String()))
	}
	return h
}

func (h realHost) rule(port string) string {
	return fmt.Sprintf("      - {host: %q, ports: [%s], resolves_to: [%s]}\n", h.name, port, strings.Join(h.nets, ", "))
}

// records are those of the host, for a zone.
func (h realHost) records() (records []string) {
	for _, addr := range h.addrs {
		kind := "A"
		if addr.Is6() {
			kind = "AAAA"
		}
		if record := fmt.Sprintf("%s. 60 IN %s %s", h.name, kind, addr); !slices.Contains(records, record) {
			records = append(records, record)
		}
	}
	return records
}

// fetchModule downloads a module into a fresh cache, and gives what go says.
func (j *jobSpace) fetchModule(goproxy string) (string, error) {
	j.t.Helper()
	dir, cache := j.t.TempDir(), j.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module job\n\ngo 1.21\n\nrequire github.com/google/uuid v1.6.0\n"), 0o644); err != nil {
		j.t.Fatal(err)
	}
	text, err := j.run(moduleEnv(goproxy, cache), "sh", "-c", "cd "+dir+" && exec go mod download -x")
	if err == nil {
		if _, statErr := os.Stat(filepath.Join(cache, "github.com/google/uuid@v1.6.0/uuid.go")); statErr != nil {
			j.t.Errorf("nothing was downloaded: %v", statErr)
		}
	}
	return text, err
}

// TestGoModDownload fetches a real module through Sallyport and only through
// it; with the host off the list, go's own error shows reason and id.
func TestGoModDownload(t *testing.T) {
	needProgram(t, "go")
	j := newJobSpace(t)
	goproxy, host := moduleSource(t)
	pool := "  build:\n    sources: [" + j.client + "/32]\n"
	d := j.startAt(pool+"    allow:\n"+host.rule("443"), "system", nil)

	if text, err := j.fetchModule(goproxy); err != nil {
		t.Fatalf("%v\n%s\n%s", err, text, d.dump())
	}
	d.wait("the tunnel's close with its bytes", func(e event) bool {
		return e.text("phase") == "close" && e.text("host") == host.name && e.number("received") > 10_000
	})
	d.write("", pool+"    allow: [other.example]\n")
	d.hangup()
	d.wait("the reload", func(e event) bool { return e.text("event") == "reloaded" })
	text, err := j.fetchModule(goproxy)
	refused := d.wait("the refusal", func(e event) bool { return e.text("phase") == "refused" && e.text("host") == host.name })
	if err == nil || !strings.Contains(text, "not-in-allowlist") || !strings.Contains(text, refused.text("id")) {
		t.Errorf("go's own error does not show reason and id %s: %v\n%s", refused.text("id"), err, text)
	}
}

// TestAptGetUpdate reads a real package index through the HTTP proxy.
func TestAptGetUpdate(t *testing.T) {
	needProgram(t, "apt-get")
	j := newJobSpace(t)
	rules, suites := packageSources(t)
	pool := "  build:\n    sources: [" + j.client + "/32]\n"
	d := j.startAt(pool+"    allow:\n"+rules, "system", nil)

	update := func() (string, error) {
		dir := t.TempDir()
		for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
			if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		list := filepath.Join(dir, "sources.list")
		if err := os.WriteFile(list, []byte(suites), 0o644); err != nil {
			t.Fatal(err)
		}
		return j.run(nil, "apt-get", "update", "-o", "APT::Sandbox::User=root", "-o", "Dir::State="+dir+"/state", "-o", "Dir::Cache="+dir+"/cache",
			"-o", "Dir::Etc::SourceList="+list, "-o", "Dir::Etc::SourceParts=/nonexistent", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=0")
	}
	if text, err := update(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, text, d.dump())
	}
	d.wait("a request by HTTP with its bytes", func(e event) bool {
		return e.text("via") == "http" && e.text("phase") == "close" && e.number("received") > 10_000
	})
	d.write("", pool+"    allow: [other.example]\n")
	d.hangup()
	d.wait("the reload", func(e event) bool { return e.text("event") == "reloaded" })
	text, err := update()
	refused := d.wait("the refusal", func(e event) bool { return e.text("phase") == "refused" && e.text("via") == "http" })
	if err == nil || !strings.Contains(text, "not-in-allowlist") {
		t.Errorf("apt's own error does not show the reason (id %s): %v\n%s", refused.text("id"), err, text)
	}
}

// aptSuite is a one-line source for the site, with a suite that the machine uses.
func aptSuite(t *testing.T, site string) string {
	t.Helper()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(SITE) $(REPO_URI) $(RELEASE) $(COMPONENT)").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == site {
			return fmt.Sprintf("deb [trusted=yes] %s %s %s\n", f[1], f[2], f[3])
		}
	}
	t.Fatalf("no suite of %s", site)
	return ""
}

// TestTheNamespaceHasNoOtherWay makes sure that the two tests above prove
// something: without Sallyport nothing leaves the namespace.
func TestTheNamespaceHasNoOtherWay(t *testing.T) {
	j := newJobSpace(t)
	o := echoOrigin(t, "127.0.0.1:0")
	for _, target := range []string{o.addr.String(), "192.0.2.1:443", "198.51.100.1:53"} {
		host, port, _ := net.SplitHostPort(target)
		if out, err := j.run(nil, "bash", "-c", "exec 3<>/dev/tcp/"+host+"/"+port); err == nil {
			t.Errorf("the namespace reaches %s: %s", target, out)
		}
	}
}
