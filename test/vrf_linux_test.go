package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// twoPools have the same runners' addresses, each by a bridge of its own.
const twoPools = `
listen: {proxy: "0.0.0.0:3128"}
pools:
  red: {sources: [10.77.0.0/24], interfaces: [br-red], allow: [a.example]}
  blue: {sources: [10.77.0.0/24], interfaces: [br-blue], allow: [b.example]}
`

// TestSameSourcesOnAGateway: two pools with one source are refused by check and
// run where the routing cannot tell their bridges apart, and taken where each
// bridge is in a VRF of its own.
func TestSameSourcesOnAGateway(t *testing.T) {
	needRoot(t)
	needProgram(t, "ip")
	dir, name := t.TempDir(), fmt.Sprintf("sp%d-vrf", os.Getpid()%10000)
	if err := os.WriteFile(filepath.Join(dir, "two.yaml"), []byte(twoPools), 0o644); err != nil {
		t.Fatal(err)
	}
	ip := func(args ...string) error {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	inside := func(args ...string) ran {
		return commandIn(t, dir, nil, "ip", append([]string{"netns", "exec", name, binary}, args...)...)
	}
	must(ip("netns", "add", name))
	t.Cleanup(func() { _ = ip("netns", "del", name) })

	if got := inside("check", "--strict", "-c", "two.yaml"); got.code != 1 || !strings.Contains(got.stderr, "there is no interface br-blue") {
		t.Errorf("without the bridges: exit code %d, %s", got.code, got.stderr)
	}
	must(ip("-n", name, "link", "add", "br-red", "type", "bridge"))
	must(ip("-n", name, "link", "add", "br-blue", "type", "bridge"))
	const refused = "two.yaml:5:20: source 10.77.0.0/24 is one of pool \"red\" too, and the interfaces br-red and br-blue are not in different VRFs"
	for _, what := range []string{"check", "run"} {
		if got := inside(what, "-c", "two.yaml"); got.code != 2 || !strings.Contains(got.stderr, refused) {
			t.Errorf("%s with both in the main table: exit code %d, %s", what, got.code, got.stderr)
		}
	}
	for i, colour := range []string{"red", "blue"} {
		if err := ip("-n", name, "link", "add", "vrf-"+colour, "type", "vrf", "table", fmt.Sprint(10+i)); err != nil {
			t.Skipf("SKIPPED from here on: this kernel has no VRFs (%v)", err)
		}
		must(ip("-n", name, "link", "set", "br-"+colour, "master", "vrf-"+colour))
	}
	if got := inside("check", "--strict", "-c", "two.yaml"); got.code != 0 {
		t.Errorf("with two VRFs: exit code %d, %s", got.code, got.stderr)
	}
}
