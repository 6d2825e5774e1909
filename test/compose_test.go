package test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
)

// composeCommand is Docker Compose, as a plugin or as a program; nil if there is none.
func composeCommand() []string {
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.Command(command[0], append(command[1:], "version")...).Run() == nil {
			return command
		}
	}
	return nil
}

// freeSubnet is one that Docker would choose now, and an address in it for
// Sallyport.
func (f *fleet) freeSubnet() (subnet, address string) {
	f.t.Helper()
	network := f.tag + "-subnet"
	docker(f.t, "network", "create", network)
	subnet = inspect(f.t, network, "{{(index .IPAM.Config 0).Subnet}}")
	docker(f.t, "network", "rm", network)
	prefix, err := netip.ParsePrefix(subnet)
	if err != nil {
		f.t.Fatal(err)
	}
	return subnet, prefix.Addr().Next().Next().String() // the first is the gateway's
}

// checkCompose brings up deploy/compose as it stands, but for the subnet and the
// images.
func (f *fleet) checkCompose(image, runner string) {
	t, command := f.t, composeCommand()
	t.Helper()
	need(t, command != nil, "Docker Compose")
	subnet, address := f.freeSubnet()
	project := f.tag + "-compose"
	env := append(os.Environ(), "SALLYPORT_IMAGE="+image, "RUNNER_IMAGE="+runner, "JOBS_SUBNET="+subnet, "SALLYPORT_ADDRESS="+address)
	compose := func(args ...string) string {
		t.Helper()
		all := append(append(command[1:len(command):len(command)], "-p", project, "-f", "../deploy/compose/compose.yaml"), args...)
		cmd := exec.Command(command[0], all...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("compose %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	compose("up", "-d") // waits until Sallyport is healthy
	id := func(service string) string {
		return docker(t, "ps", "-q", "--filter", "label=com.docker.compose.project="+project, "--filter", "label=com.docker.compose.service="+service)
	}
	gate, job := id("sallyport"), id("runner")
	if status := inspect(t, gate, "{{.State.Health.Status}}"); status != "healthy" {
		t.Errorf("Sallyport is %s", status)
	}
	if got := inspect(t, gate, "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Sysctls}}"); got != "true [ALL] [no-new-privileges] map[net.ipv4.ip_forward:0]" {
		t.Errorf("Sallyport runs with %s", got)
	}
	in := func(args ...string) (string, error) {
		out, err := exec.Command("docker", append([]string{"exec", job}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := in("curl", "-sv", "-m", "15", "https://evil.example/"); err == nil || !strings.Contains(out, "403 Sallyport: evil.example:443 not in pool build (not-in-allowlist, ") {
		t.Errorf("a refused host: %v %s", err, out)
	}
	if out, err := in("busybox", "nslookup", "evil.example"); err == nil || !strings.Contains(out, "NXDOMAIN") {
		t.Errorf("a refused name: %v %s", err, out)
	}
	tcp, _ := listenEverywhere(t)
	prefix := netip.MustParsePrefix(subnet)
	for _, host := range []string{prefix.Addr().Next().String(), f.gateway(f.outer), "192.0.2.1"} {
		if out, err := in("curl", "-s", "--noproxy", "*", "-m", "3", fmt.Sprintf("http://%s:%d/", host, tcp)); err == nil {
			t.Errorf("%s is reached past Sallyport: %s", host, out)
		}
	}
	compose("down", "-v", "-t", "2")
	if left := docker(t, "ps", "-aq", "--filter", "label=com.docker.compose.project="+project); left != "" {
		t.Errorf("containers are left: %s", left)
	}
}
