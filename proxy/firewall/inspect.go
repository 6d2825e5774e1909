package firewall

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Machine is what proc(5) and sysfs say of the machine, or of the container,
// that we stand in. It needs no privilege.
type Machine struct {
	Root string // where /proc and /sys are: "/", but in tests
}

// Setting reads a sysctl by its path, such as net/ipv4/ip_forward; not ok if
// there is none.
func (m Machine) Setting(path string) (value string, ok bool) {
	text, err := os.ReadFile(filepath.Join(m.Root, "proc/sys", path))
	return strings.TrimSpace(string(text)), err == nil
}

// Rights are the capabilities of a process, as bits.
type Rights struct {
	Effective uint64
	// Reachable is what it and its descendants can come to: the bounding set, or
	// with no_new_privs what is permitted now.
	Reachable uint64
}

// capabilityBits are the capabilities that decide here (linux/capability.h).
var capabilityBits = map[string]uint{
	"SETGID": 6, "SETUID": 7, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_MODULE": 16, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "BPF": 39,
}

// Rights reads those of this process.
func (m Machine) Rights() (r Rights, err error) {
	text, err := os.ReadFile(filepath.Join(m.Root, "proc/self/status"))
	if err != nil {
		return r, fmt.Errorf("reading our own capabilities: %w", err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.TrimSpace(value)
	}
	reachable := fields["CapBnd"]
	if fields["NoNewPrivs"] == "1" {
		reachable = fields["CapPrm"]
	}
	if r.Effective, err = strconv.ParseUint(fields["CapEff"], 16, 64); err != nil {
		return r, fmt.Errorf("reading our own capabilities: %w", err)
	}
	if r.Reachable, err = strconv.ParseUint(reachable, 16, 64); err != nil {
		return r, fmt.Errorf("reading our own capabilities: %w", err)
	}
	return r, nil
}

// Has reports whether a capability, such as NET_ADMIN, is in force.
func (r Rights) Has(name string) bool { return r.Effective&(1<<capabilityBits[name]) != 0 }

// WayRound names the capabilities within reach that lead round the tables of a
// sidecar, sorted; those that change the user count where we are known by ours.
func (r Rights) WayRound(byUser bool) []string {
	var names []string
	for _, name := range sortedKeys(capabilityBits) {
		if !byUser && strings.HasPrefix(name, "SET") {
			continue
		}
		if r.Reachable&(1<<capabilityBits[name]) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// DefaultRoutes are the interfaces with a default route of either family.
func (m Machine) DefaultRoutes() []string {
	return append(m.DefaultRoutes4(), m.DefaultRoutes6()...)
}

// DefaultRoutes4 are the interfaces with a default route of IPv4.
func (m Machine) DefaultRoutes4() (names []string) {
	// Interface Destination ... (proc_net(5)); the mask is the eighth field.
	eachLine(filepath.Join(m.Root, "proc/net/route"), func(f []string) {
		if len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			names = append(names, f[0])
		}
	})
	return names
}

// DefaultRoutes6 are the interfaces with a default route of IPv6.
func (m Machine) DefaultRoutes6() (names []string) {
	// destination length ... interface (Documentation/filesystems/proc.rst). What
	// leads nowhere is told as a route by loopback.
	eachLine(filepath.Join(m.Root, "proc/net/ipv6_route"), func(f []string) {
		if len(f) > 9 && f[9] != "lo" && strings.Trim(f[0], "0") == "" && f[1] == "00" {
			names = append(names, f[9])
		}
	})
	return names
}

// Devices6 are the interfaces but loopback that have an IPv6 address beyond the
// link, sorted; loopback tells of ::1.
func (m Machine) Devices6() (names []string, loopback bool) {
	const ofTheLink = "20"
	// address index length scope flags interface (proc_net(5)).
	eachLine(filepath.Join(m.Root, "proc/net/if_inet6"), func(f []string) {
		switch {
		case len(f) < 6:
		case f[5] == "lo":
			loopback = loopback || f[0] == strings.Repeat("0", 31)+"1"
		case f[3] != ofTheLink && !slices.Contains(names, f[5]):
			names = append(names, f[5])
		}
	})
	slices.Sort(names)
	return names, loopback
}

// OpenPorts are the ports of a bridge that are not isolated, sorted: frames go
// between any two of them without passing through us.
func (m Machine) OpenPorts(bridge string) []string {
	ports, _ := filepath.Glob(filepath.Join(m.Root, "sys/class/net", bridge, "brif/*"))
	var open []string
	for _, path := range ports {
		name := filepath.Base(path)
		text, err := os.ReadFile(filepath.Join(m.Root, "sys/class/net", name, "brport/isolated"))
		if err != nil || strings.TrimSpace(string(text)) != "1" {
			open = append(open, name)
		}
	}
	slices.Sort(open)
	return open
}

// IsBridge reports whether an interface is a bridge.
func (m Machine) IsBridge(name string) bool {
	return isDir(filepath.Join(m.Root, "sys/class/net", name, "bridge"))
}

// An OtherChain is a chain of somebody else's nftables table that the kernel asks.
type OtherChain struct {
	Family, Table, Name string
	Kind                string // filter, nat, route
	Hook                string // prerouting, input, forward, output, postrouting
	Priority            int32  // lower comes first
	Drops               bool   // what no rule of it decides on
	// Translates are the interfaces that this chain's rules give packets another
	// source address on; those behind a jump are not seen.
	Translates []string
}

// BeforeOurs reports whether a chain changes the destination of packets before
// our redirect can, or as soon.
func (c OtherChain) BeforeOurs() bool { return c.Kind == "nat" && c.Priority <= natPriority }

// String names a chain for people, as nft lists it.
func (c OtherChain) String() string {
	return fmt.Sprintf("%s %s %s (%s %s, priority %d)", c.Family, c.Table, c.Name, c.Kind, c.Hook, c.Priority)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// eachLine calls f with the fields of every line of a file; one that cannot be
// read has none.
func eachLine(path string, f func([]string)) {
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		f(strings.Fields(lines.Text()))
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
