package main

import (
	"bytes"
	"os"
	"path/filepath"
)

// interfacesDir is where the kernel shows the interfaces of our network
// namespace (Documentation/ABI/testing/sysfs-class-net).
const interfacesDir = "/sys/class/net"

// maxMasters bounds the way up from an interface: a port of a bond, in a
// bridge, in a VRF is three steps.
const maxMasters = 8

// vrfOf gives the VRF that an interface is in, itself or by the bridge or bond
// that it is a port of; "" for the main routing table. ok is false if there is
// no such interface on this machine.
func vrfOf(iface string) (vrf string, ok bool) { return vrfBelow(interfacesDir, iface) }

// vrfBelow is vrfOf in a directory such as interfacesDir.
func vrfBelow(dir, iface string) (vrf string, ok bool) {
	if filepath.Base(iface) != iface || iface == ".." {
		return "", false
	}
	if _, err := os.Stat(filepath.Join(dir, iface)); err != nil {
		return "", false
	}
	for range maxMasters {
		uevent, err := os.ReadFile(filepath.Join(dir, iface, "uevent"))
		if err == nil && bytes.Contains(append(uevent, '\n'), []byte("DEVTYPE=vrf\n")) {
			return iface, true
		}
		master, err := os.Readlink(filepath.Join(dir, iface, "master"))
		if err != nil { // it has none
			break
		}
		iface = filepath.Base(master)
	}
	return "", true
}
