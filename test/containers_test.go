package test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// docker runs the Docker client and gives its output.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// A fleet is the containers, networks and images of one test; all go with it.
type fleet struct {
	t     *testing.T
	tag   string
	ca    *testCA
	inner string // network without a way out
	outer string
}

// container names a container of the fleet.
func (f *fleet) container(name string) string { return f.tag + "-" + name }

// run starts a container on a network until the test ends.
func (f *fleet) run(name, network, image string, args ...string) {
	f.t.Helper()
	f.t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", "-v", f.container(name)).Run() })
	options := []string{"run", "-d", "--name", f.container(name), "--network", network}
	var command []string
	for i, a := range args {
		if a == "--" {
			options, command = append(options, args[:i]...), args[i+1:]
			break
		}
	}
	docker(f.t, append(append(options, image), command...)...)
}

// address is a container's address on a network.
func (f *fleet) address(name, network string) string {
	f.t.Helper()
	return docker(f.t, "inspect", "-f", "{{with index .NetworkSettings.Networks \""+network+"\"}}{{.IPAddress}}{{end}}", f.container(name))
}

// exec runs a program inside a container and gives output and error.
func (f *fleet) exec(name string, args ...string) (string, error) {
	out, err := exec.Command("docker", append([]string{"exec", f.container(name)}, args...)...).CombinedOutput()
	return string(out), err
}

// importImage makes an image of the given files (path in the image: path here).
func (f *fleet) importImage(name string, files map[string]string, changes ...string) string {
	f.t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for inside, here := range files {
		data, err := os.ReadFile(here)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(inside, "/"), Mode: 0o755, Size: int64(len(data))}); err != nil {
			f.t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.t.Fatal(err)
	}
	image := f.tag + ":" + name
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	cmd := exec.Command("docker", append(args, "-", image)...)
	cmd.Stdin = &buf
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("docker import: %v\n%s", err, out)
	}
	f.t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", image).Run() })
	return image
}

// newFleet makes two networks: inner, whose members reach each other only, and
// outer.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	needRoot(t)
	needProgram(t, "docker", "busybox", "curl")
	need(t, exec.Command("docker", "info").Run() == nil, "a Docker engine that answers")
	f := &fleet{t: t, tag: fmt.Sprintf("sallyport-test-%d", os.Getpid()), ca: newCA(t)}
	f.inner, f.outer = f.tag+"-inner", f.tag+"-outer"
	for _, args := range [][]string{{"network", "create", "--internal", f.inner}, {"network", "create", f.outer}} {
		docker(t, args...)
	}
	t.Cleanup(func() { _ = exec.Command("docker", "network", "rm", f.inner, f.outer).Run() })
	return f
}

// sallyportImage builds the image by the project's own Dockerfile, on a build
// image made from this machine's toolchain, as tests reach no image registry.
func (f *fleet) sallyportImage() string {
	f.t.Helper()
	mod, err := os.ReadFile("../go.sum")
	if err != nil {
		f.t.Fatal(err)
	}
	sum := sha256.Sum256(append(mod, runtime.Version()...))
	base := "sallyport-build:" + hex.EncodeToString(sum[:6])
	if exec.Command("docker", "image", "inspect", base).Run() != nil {
		if out, err := exec.Command("../.ci/localbase", base).CombinedOutput(); err != nil {
			f.t.Fatalf("making the build image: %v\n%s", err, out)
		}
	}
	image := f.tag + ":sallyport"
	cmd := exec.Command("make", "-C", "..", "image", "IMAGE="+image, "BUILD_IMAGE="+base, "IMAGE_FLAGS=--build-arg GOPROXY=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("make image: %v\n%s", err, out)
	}
	f.t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", image).Run() })
	f.t.Logf("the image has %s bytes", docker(f.t, "image", "inspect", "-f", "{{.Size}}", image))
	return image
}

// standinImage holds the origin and the Slack stand-in, with a certificate for
// both hosts.
func (f *fleet) standinImage() string {
	f.t.Helper()
	dir := f.t.TempDir()
	program := filepath.Join(dir, "standin")
	build := exec.Command("go", "build", "-o", program, "./standin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		f.t.Fatalf("building the stand-in: %v\n%s", err, out)
	}
	cert := f.ca.issue("allowed.example", "evil.example")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		f.t.Fatal(err)
	}
	files := map[string]string{"/standin": program}
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key": {Type: "PRIVATE KEY", Bytes: key}} {
		files["/"+name] = filepath.Join(dir, name)
		if err := os.WriteFile(files["/"+name], pem.EncodeToMemory(block), 0o644); err != nil {
			f.t.Fatal(err)
		}
	}
	return f.importImage("standin", files, `ENTRYPOINT ["/standin"]`)
}

// runnerImage is a small machine for jobs: busybox, and this machine's curl with
// the libraries that it loads.
func (f *fleet) runnerImage() string {
	f.t.Helper()
	find := func(name string) string {
		path, err := exec.LookPath(name)
		if err != nil {
			f.t.Fatal(err)
		}
		return path
	}
	files := map[string]string{"/bin/busybox": find("busybox"), "/bin/curl": find("curl"), "/ca.pem": f.ca.file}
	out, err := exec.Command("ldd", find("curl")).Output()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, path := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
		files[path] = path
	}
	for _, name := range []string{"libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"} { // loaded at run time
		if paths, _ := filepath.Glob("/lib/*/" + name); len(paths) > 0 {
			files[paths[0]] = paths[0]
		}
	}
	return f.importImage("runner", files, `ENTRYPOINT ["/bin/busybox", "sleep", "600"]`)
}

const containerPolicy = `
listen: {proxy: "[::]:3128", dns: "[::]:53"}
dns: {search: []}
pools:
  build:
    sources: [%s]
    allow:
      - {host: allowed.example, resolves_to: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]}
alerts: {slack: {webhook_url: "http://slack.outer:8080/services/T0"}}
`

// TestContainers is a runner on an internal-only network beside the built
// image: it reaches the allowed host through Sallyport, nothing by any other
// way, and the refusal reaches Slack.
func TestContainers(t *testing.T) {
	f := newFleet(t)
	image, standin, runner := f.sallyportImage(), f.standinImage(), f.runnerImage()
	f.run("origin", f.outer, standin, "--network-alias", "allowed.example", "--network-alias", "evil.example", "--", "origin", "/cert", "/key")
	f.run("slack", f.outer, standin, "--network-alias", "slack.outer", "--", "slack")

	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	subnet := docker(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", f.inner)
	if err := os.WriteFile(filepath.Join(dir, "sallyport.yaml"), fmt.Appendf(nil, containerPolicy, subnet), 0o644); err != nil {
		t.Fatal(err)
	}
	hardened := []string{"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}
	f.run("gate", f.outer, image, append(hardened, "-v", dir+":/etc/sallyport:ro", "--")...)
	docker(t, "network", "connect", f.inner, f.container("gate"))
	f.run("bare", f.inner, image, append(hardened, "--")...) // the image's own configuration
	gate, bare := f.address("gate", f.inner), f.address("bare", f.inner)
	f.run("runner", f.inner, runner, "--dns", gate, "--")
	logs := func() string { return docker(t, "logs", f.container("gate")) }
	eventually(t, "the gate to be ready", func() bool {
		_, err := f.exec("gate", "/sallyport", "wait-ready", "--timeout", "1s")
		return err == nil
	}, logs)

	f.checkAllowedAndRefused(gate, logs)
	f.checkNoOtherWay(gate, bare)
	eventually(t, "the container to be healthy", func() bool {
		return docker(t, "inspect", "-f", "{{.State.Health.Status}}", f.container("gate")) == "healthy"
	}, logs)
	if user := docker(t, "image", "inspect", "-f", "{{.Config.User}}", image); user != "65532:65532" {
		t.Errorf("the image runs as %q", user)
	}
	began := time.Now()
	docker(t, "stop", "-t", "10", f.container("gate"))
	if code := docker(t, "inspect", "-f", "{{.State.ExitCode}}", f.container("gate")); code != "0" || time.Since(began) > 9*time.Second {
		t.Errorf("docker stop took %v, exit code %s", time.Since(began), code)
	}
}

// checkAllowedAndRefused makes one request of each kind, and waits for the alert.
func (f *fleet) checkAllowedAndRefused(gate string, logs func() string) {
	t := f.t
	t.Helper()
	proxy := "http://" + gate + ":3128"
	if out, err := f.exec("runner", "/bin/curl", "-sS", "--cacert", "/ca.pem", "-x", proxy, "https://allowed.example/"); err != nil || !strings.Contains(out, "standin saw allowed.example") {
		t.Errorf("the allowed host: %v %s\n%s", err, out, logs())
	}
	refusedAt := time.Now().UTC()
	out, err := f.exec("runner", "/bin/curl", "-sv", "--cacert", "/ca.pem", "-x", proxy, "https://evil.example/")
	refusal := regexp.MustCompile(`403 Sallyport: evil\.example:443 not in pool build \(not-in-allowlist, (\w{12})\)`).FindStringSubmatch(out)
	if err == nil || refusal == nil {
		t.Fatalf("the refused host: %v %s", err, out)
	}
	var message struct {
		Time time.Time
		Body string
	}
	eventually(t, "the message at Slack", func() bool {
		line, _, _ := strings.Cut(docker(t, "logs", f.container("slack")), "\n")
		return json.NewDecoder(strings.NewReader(line)).Decode(&message) == nil
	}, logs)
	if late := message.Time.Sub(refusedAt); late > 2*time.Second {
		t.Errorf("the message came after %v", late)
	}
	checkSlackLimits(t, []byte(message.Body))
	for _, want := range []string{"evil.example", "build", refusal[1]} {
		if !strings.Contains(message.Body, want) {
			t.Errorf("the message lacks %q: %s", want, message.Body)
		}
	}
	checkNoMarkup(t, message.Body, "evil.example")
}

// checkNoMarkup: what a job chose stands only where Slack reads no markup.
func checkNoMarkup(t *testing.T, body, chosen string) {
	t.Helper()
	var walk func(node any)
	walk = func(node any) {
		switch node := node.(type) {
		case map[string]any:
			if text, _ := node["text"].(string); node["type"] == "mrkdwn" && strings.Contains(text, chosen) {
				t.Errorf("a name from the job in mrkdwn: %s", text)
			}
			for _, child := range node {
				walk(child)
			}
		case []any:
			for _, child := range node {
				walk(child)
			}
		}
	}
	var tree any
	if err := json.NewDecoder(strings.NewReader(body)).Decode(&tree); err != nil && err != io.EOF {
		t.Error(err)
	}
	walk(tree)
}

// checkNoOtherWay tries the ways past the gate that a container has, as root.
func (f *fleet) checkNoOtherWay(gate, bare string) {
	t := f.t
	t.Helper()
	origin := f.address("origin", f.outer)
	for what, args := range map[string][]string{
		"direct TCP":               {"/bin/curl", "-sk", "-m", "3", "https://" + origin + "/"},
		"direct TCP by name":       {"/bin/curl", "-sk", "-m", "3", "https://evil.example/"},
		"ICMP":                     {"/bin/busybox", "ping", "-c", "1", "-W", "2", origin},
		"a public address":         {"/bin/busybox", "nc", "-w", "2", "192.0.2.1", "443"},
		"DNS of a refused name":    {"/bin/busybox", "nslookup", "evil.example", gate},
		"DNS by Docker's resolver": {"/bin/busybox", "nslookup", "evil.example", "127.0.0.11"},
		"DNS at a public address":  {"/bin/busybox", "timeout", "3", "/bin/busybox", "nslookup", "allowed.example", "192.0.2.1"},
		"DNS at the origin's":      {"/bin/busybox", "timeout", "3", "/bin/busybox", "nslookup", "allowed.example", origin},
		"admin of the gate":        {"/bin/curl", "-s", "-m", "3", "http://" + gate + ":9180/metrics"},
		"admin through the gate":   {"/bin/curl", "-sf", "-m", "3", "-x", "http://" + gate + ":3128", "http://127.0.0.1:9180/metrics"},
		"the image's own policy":   {"/bin/curl", "-sf", "-m", "3", "-x", "http://" + bare + ":3128", "https://github.com/"},
	} {
		if out, err := f.exec("runner", args...); err == nil {
			t.Errorf("%s works: %s", what, out)
		}
	}
	// The tools themselves work: the allowed name resolves, by both ways.
	for _, server := range []string{gate, "127.0.0.11"} {
		if out, err := f.exec("runner", "/bin/busybox", "nslookup", "-type=a", "allowed.example", server); err != nil || !strings.Contains(out, origin) {
			t.Errorf("the allowed name at %s: %v %s", server, err, out)
		}
	}
	out, _ := f.exec("runner", "/bin/curl", "-sv", "-m", "3", "-x", "http://"+bare+":3128", "https://github.com/")
	if !strings.Contains(out, "no-pool") {
		t.Errorf("the image's own configuration admits a client: %s", out)
	}
}
