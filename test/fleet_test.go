package test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
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

// inspect gives one value of a container, an image or a network.
func inspect(t *testing.T, object, format string) string {
	t.Helper()
	return docker(t, "inspect", "-f", format, object)
}

// A fleet is the containers, networks, volumes and images of one test. Their
// names begin with tag, by which all go when the test ends.
type fleet struct {
	t     *testing.T
	tag   string
	ca    *testCA
	inner string // network of the jobs: without a way out, nor to this machine
	outer string

	standin string // path of the stand-in program
}

// newFleet makes the two networks, with subnets that Docker chooses.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	needRoot(t)
	needProgram(t, "docker", "busybox", "curl")
	need(t, exec.Command("docker", "info").Run() == nil, "a Docker engine that answers")
	f := &fleet{t: t, standin: buildStandin(t), tag: newTag(t, "test"), ca: newCA(t)}
	f.inner, f.outer = f.tag+"-inner", f.tag+"-outer"
	t.Cleanup(func() { removeAll(t, f.tag+"-", f.tag+"_", f.tag+":") })
	docker(t, "network", "create", "--internal", "--opt", "com.docker.network.bridge.inhibit_ipv4=true", f.inner)
	docker(t, "network", "create", f.outer)
	return f
}

// newTag begins the names of what a test of some kind makes in the engine. It
// removes what a killed run left.
func newTag(t *testing.T, kind string) string {
	t.Helper()
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	space = strings.Trim(space, "pid:[]")
	removeDead(t, space)
	return fmt.Sprintf("sallyport-%s-%s-%d", kind, space, os.Getpid())
}

// with is the same fleet for a subtest.
func (f *fleet) with(t *testing.T) *fleet {
	sub := *f
	sub.t = t
	return &sub
}

// removeAll removes every container, network, volume and image whose name
// begins with one of the prefixes.
func removeAll(t *testing.T, prefixes ...string) {
	t.Helper()
	for _, kind := range []struct{ list, remove []string }{
		{[]string{"ps", "-a", "--format", "{{.Names}}"}, []string{"rm", "-f", "-v"}},
		{[]string{"network", "ls", "--format", "{{.Name}}"}, []string{"network", "rm"}},
		{[]string{"volume", "ls", "--format", "{{.Name}}"}, []string{"volume", "rm", "-f"}},
		{[]string{"images", "--format", "{{.Repository}}:{{.Tag}}"}, []string{"rmi", "-f"}},
	} {
		var found []string
		for _, name := range strings.Fields(docker(t, kind.list...)) {
			for _, prefix := range prefixes {
				if strings.HasPrefix(name, prefix) {
					found = append(found, name)
				}
			}
		}
		if len(found) > 0 {
			docker(t, append(kind.remove, found...)...)
		}
	}
}

// removeDead removes what a killed run left: what begins with a tag of a
// process of our process namespace that is no more.
func removeDead(t *testing.T, space string) {
	t.Helper()
	names := docker(t, "ps", "-a", "--format", "{{.Names}}") + "\n" + docker(t, "network", "ls", "--format", "{{.Name}}") +
		"\n" + docker(t, "images", "--format", "{{.Repository}}:{{.Tag}}")
	for _, m := range regexp.MustCompile(`sallyport-(?:test|build)-`+space+`-(\d+)`).FindAllStringSubmatch(names, -1) {
		pid, err := strconv.Atoi(m[1])
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			removeAll(t, m[0]+"-", m[0]+"_", m[0]+":")
		}
	}
}

// container names a container of the fleet.
func (f *fleet) container(name string) string { return f.tag + "-" + name }

// run starts a container on a network until the test ends: the options of
// docker run, and after "--" the command.
func (f *fleet) run(name, network, image string, args ...string) {
	f.t.Helper()
	options, command := args, []string(nil)
	for i, a := range args {
		if a == "--" {
			options, command = args[:i], args[i+1:]
			break
		}
	}
	all := append([]string{"run", "-d", "--name", f.container(name), "--network", network}, options...)
	docker(f.t, append(append(all, image), command...)...)
}

// address is a container's address on a network.
func (f *fleet) address(name, network string) string {
	f.t.Helper()
	return inspect(f.t, f.container(name), "{{with index .NetworkSettings.Networks \""+network+"\"}}{{.IPAddress}}{{end}}")
}

// gateway is the address that this machine has, or would have, on a network.
func (f *fleet) gateway(network string) string {
	f.t.Helper()
	return inspect(f.t, network, "{{(index .IPAM.Config 0).Gateway}}")
}

// exec runs a program inside a container and gives output and error.
func (f *fleet) exec(name string, args ...string) (string, error) {
	out, err := exec.Command("docker", append([]string{"exec", f.container(name)}, args...)...).CombinedOutput()
	return string(out), err
}

// logs is what a container has printed.
func (f *fleet) logs(name string) string { return docker(f.t, "logs", f.container(name)) }
