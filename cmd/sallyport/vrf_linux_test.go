package main

import (
	"os"
	"path/filepath"
	"testing"
)

// sysfs lays interfaces out as the kernel does: "name type master", the last
// two maybe empty.
func sysfs(t *testing.T, interfaces [][3]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, i := range interfaces {
		uevent := "INTERFACE=" + i[0] + "\nIFINDEX=3\n"
		if i[1] != "" {
			uevent = "DEVTYPE=" + i[1] + "\n" + uevent
		}
		if err := os.Mkdir(filepath.Join(dir, i[0]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, i[0], "uevent"), []byte(uevent), 0o644); err != nil {
			t.Fatal(err)
		}
		if i[2] == "" {
			continue
		}
		if err := os.Symlink("../"+i[2], filepath.Join(dir, i[0], "master")); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestVRFOfAnInterface(t *testing.T) {
	dir := sysfs(t, [][3]string{
		{"red", "vrf", ""}, {"br-red", "bridge", "red"}, {"tap0", "", "br-red"},
		{"br0", "bridge", ""}, {"tap1", "", "br0"}, {"eth0", "", ""},
		{"loop0", "", "loop1"}, {"loop1", "", "loop0"},
	})
	for _, c := range []struct {
		iface, vrf string
		here       bool
	}{
		{"red", "red", true},
		{"br-red", "red", true},
		{"tap0", "red", true},
		{"tap1", "", true},
		{"eth0", "", true},
		{"loop0", "", true},
		{"none", "", false},
		{"..", "", false},
		{"../net/eth0", "", false},
	} {
		if vrf, here := vrfBelow(dir, c.iface); vrf != c.vrf || here != c.here {
			t.Errorf("%s: VRF %q, here %v, want %q, %v", c.iface, vrf, here, c.vrf, c.here)
		}
	}
	if vrf, here := vrfOf("lo"); vrf != "" || !here {
		t.Errorf("lo: VRF %q, here %v", vrf, here)
	}
}
