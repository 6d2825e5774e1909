package test

import (
	"encoding/json"
	"errors"
	"os/exec"
	"testing"
)

// doctor asks the program in a namespace, through a command before it if any:
// the state of each layer, and its exit code.
func (s *space) doctor(before []string, args ...string) (states map[string]string, code int, said string) {
	s.t.Helper()
	said, err := s.run(nil, append(append(append([]string{}, before...), binary, "doctor", "--format", "json"), args...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		s.t.Fatal(err)
	}
	var lines []struct{ Layer, State string }
	if err := json.Unmarshal([]byte(said), &lines); err != nil {
		s.t.Fatalf("%v: %s", err, said)
	}
	states = map[string]string{}
	for _, l := range lines {
		states[l.Layer] = l.State
	}
	return states, code, said
}

// TestDoctorOnAGateway takes one layer away after the other, and mends each.
func TestDoctorOnAGateway(t *testing.T) {
	t.Parallel()
	needProgram(t, "nft")
	s := newSpace(t, "doctor")
	s.resolver("10.9.0.2")
	s.ip("link", "add", "br-build", "type", "bridge")
	for _, port := range []string{"port1", "port2"} {
		s.ip("link", "add", port, "type", "veth", "peer", "name", "run-"+port)
		s.ip("link", "set", port, "master", "br-build")
		s.command("bridge", "-n", s.name, "link", "set", "dev", port, "isolated", "on")
	}
	s.forwards()
	file := firewallFile(t, `transparent: "0.0.0.0:3129", dns: "0.0.0.0:53"`, "interfaces: [br-build], ")
	do := func(args ...string) {
		t.Helper()
		if out, err := s.run(nil, args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	isolate := func(how string) func() {
		return func() {
			for _, port := range []string{"port1", "port2"} {
				s.command("bridge", "-n", s.name, "link", "set", "dev", port, "isolated", how)
			}
		}
	}
	apply := func() { do(binary, "firewall", "apply", "--mode", "gateway", "-c", file) }
	apply()
	fine := func() {
		t.Helper()
		if states, code, said := s.doctor(nil, "-c", file); code != 0 || len(states) != 10 {
			t.Fatalf("a whole gateway: %d\n%s", code, said)
		}
	}
	fine()
	for _, test := range []struct {
		layer       string
		spoil, mend func()
	}{
		{"firewall", func() { do(binary, "firewall", "remove") }, apply},
		{"isolation", isolate("off"), isolate("on")},
		{"tables", func() {
			do("nft", "add table ip early; add chain ip early steal { type nat hook prerouting priority -150; }")
		}, func() { do("nft", "delete table ip early") }},
		{"translation", func() {
			do("nft", `add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; add rule ip nat out oifname br-build masquerade`)
		}, func() { do("nft", "delete table ip nat") }},
	} {
		test.spoil()
		states, code, said := s.doctor(nil, "-c", file)
		for layer, state := range states {
			if (state == "fail") != (layer == test.layer) || state == "skip" {
				t.Errorf("without %s, %s is %s", test.layer, layer, state)
			}
		}
		if code != 1 || states[test.layer] != "fail" {
			t.Errorf("without %s: %d\n%s", test.layer, code, said)
		}
		test.mend()
		fine()
	}
}

// TestDoctorInAJob looks from a job beside a sidecar's firewall, with and
// without the capabilities that lead past it, and by what becomes of packets.
func TestDoctorInAJob(t *testing.T) {
	t.Parallel()
	needProgram(t, "setpriv")
	job, outside := newSpace(t, "job"), newSpace(t, "outside")
	wire(job, "eth0", outside, "eth0")
	job.address("eth0", "10.9.0.1/24")
	outside.address("eth0", "10.9.0.2/24")
	job.route("default", "10.9.0.2")
	outside.ip("route", "add", "blackhole", "192.0.2.0/24") // says nothing, as an uplink that drops
	job.resolver("10.9.0.2")
	bound := func(drop string) []string { return []string{"setpriv", "--bounding-set", drop, "--inh-caps=-all"} }
	const all = "-bpf,-net_admin,-net_raw,-setgid,-setuid,-sys_admin,-sys_module,-sys_ptrace"
	ask := func(what, rights, effect string, code int, before []string, args ...string) {
		t.Helper()
		states, got, said := job.doctor(before, append([]string{"--from", "job", "--mode", "sidecar"}, args...)...)
		if got != code || states["job"] != rights || states["tcp"] != effect || states["udp"] != effect {
			t.Errorf("%s: %d\n%s", what, got, said)
		}
	}
	ask("nothing holds it", "ok", "fail", 1, bound(all))
	file := firewallFile(t, "transparent: auto", "")
	if out, err := job.run(nil, binary, "firewall", "apply", "--mode", "sidecar", "-c", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ask("held", "ok", "ok", 0, bound(all))
	ask("with NET_RAW", "fail", "ok", 1, bound("-bpf,-net_admin,-setgid,-setuid,-sys_admin,-sys_module,-sys_ptrace"))
	ask("with SETUID", "fail", "ok", 1, bound("-bpf,-net_admin,-net_raw,-setgid,-sys_admin,-sys_module,-sys_ptrace"))
	ask("with SETUID, beside a cgroup", "ok", "ok", 0, bound("-bpf,-net_admin,-net_raw,-sys_admin,-sys_module,-sys_ptrace"), "--cgroup", "system.slice/sallyport.service")
	ask("a user that could become root", "fail", "ok", 1, []string{"setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups"})
	ask("a user that could not", "ok", "ok", 0, []string{"setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", "--no-new-privs"})
}
