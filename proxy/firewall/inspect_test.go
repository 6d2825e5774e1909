package firewall_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/proxy/firewall"
)

// machineOf makes a machine of files by their paths; one that ends in a slash
// is a directory.
func machineOf(t *testing.T, files map[string]string) firewall.Machine {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		isDir := strings.HasSuffix(path, "/")
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if isDir {
			text, path = "", filepath.Join(path, "any")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return firewall.Machine{Root: root}
}

func TestMachineRights(t *testing.T) {
	const docker = "00000000a80425fb" // what a container has by default
	tests := []struct {
		rule, status string
		byUser       bool
		admin        bool
		want         string
	}{
		{"root of a container may send frames and change its user", "CapPrm:\t" + docker + "\nCapEff:\t" + docker + "\nCapBnd:\t" + docker + "\nNoNewPrivs:\t0\n", true, false, "NET_RAW SETGID SETUID"},
		{"the user does not matter to a cgroup", "CapPrm:\t" + docker + "\nCapEff:\t" + docker + "\nCapBnd:\t" + docker + "\nNoNewPrivs:\t0\n", false, false, "NET_RAW"},
		{"a user may become root by a set-uid program", "CapPrm:\t0\nCapEff:\t0\nCapBnd:\t2000\nNoNewPrivs:\t0\n", true, false, "NET_RAW"},
		{"not with no_new_privs", "CapPrm:\t0\nCapEff:\t0\nCapBnd:\t2000\nNoNewPrivs:\t1\n", true, false, ""},
		{"with no_new_privs it keeps what it has", "CapPrm:\t3000\nCapEff:\t1000\nCapBnd:\t3000\nNoNewPrivs:\t1\n", true, true, "NET_ADMIN NET_RAW"},
	}
	for _, test := range tests {
		t.Run(test.rule, func(t *testing.T) {
			rights, err := machineOf(t, map[string]string{"proc/self/status": "Name:\tx\n" + test.status}).Rights()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(rights.WayRound(test.byUser), " "); got != test.want || rights.Has("NET_ADMIN") != test.admin {
				t.Errorf("%q, NET_ADMIN %v", got, rights.Has("NET_ADMIN"))
			}
		})
	}
	for what, status := range map[string]string{"": "CapEff:\t0\n", "no number": "CapEff:\t0\nCapBnd:\tall\n"} {
		if _, err := machineOf(t, map[string]string{"proc/self/status": status}).Rights(); err == nil {
			t.Errorf("%s: rights that are not said were taken for none", what)
		}
	}
}

func TestMachineTrees(t *testing.T) {
	m := machineOf(t, map[string]string{
		"proc/sys/net/ipv4/ip_forward": "1\n",
		"proc/net/if_inet6": "00000000000000000000000000000001 01 80 10 80       lo\n" +
			"fe800000000000000000000000000001 02 40 20 80     eth0\n20010db8000000000000000000000001 03 40 00 80     eth1\n",
		"proc/net/ipv6_route": "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 1 0 00000003     eth1\n" +
			"00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 1 0 00200200       lo\n",
		"sys/class/net/br0/bridge/": "", "sys/class/net/br0/brif/a": "", "sys/class/net/br0/brif/b": "", "sys/class/net/br0/brif/c": "",
		"sys/class/net/a/brport/isolated": "1\n", "sys/class/net/b/brport/isolated": "0\n", "sys/class/net/c/ifindex": "9\n",
	})
	if v, ok := m.Setting("net/ipv4/ip_forward"); v != "1" || !ok {
		t.Errorf("ip_forward %q, %v", v, ok)
	}
	if _, ok := m.Setting("net/ipv4/none"); ok {
		t.Error("a sysctl out of nothing")
	}
	if devices, loopback := m.Devices6(); !slices.Equal(devices, []string{"eth1"}) || !loopback {
		t.Errorf("IPv6 on %v, ::1 %v", devices, loopback)
	}
	if routes := m.DefaultRoutes6(); !slices.Equal(routes, []string{"eth1"}) {
		t.Errorf("IPv6 leads out by %v", routes)
	}
	if open := m.OpenPorts("br0"); !slices.Equal(open, []string{"b", "c"}) || !m.IsBridge("br0") || m.IsBridge("a") {
		t.Errorf("open ports %v", open)
	}
}
