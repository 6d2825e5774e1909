package firewall

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// OutsideDevices are the interfaces of this network namespace that lead out of
// it: all but loopback, bridges for containers inside (those that no default
// route uses), and their ports.
func OutsideDevices() ([]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing the interfaces: %w", err)
	}
	routes := Machine{Root: "/"}.DefaultRoutes()
	inner := func(name string) bool {
		return isDir(filepath.Join("/sys/class/net", name, "bridge")) && !slices.Contains(routes, name)
	}
	var out []string
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 || inner(i.Name) {
			continue
		}
		if master, err := os.Readlink(filepath.Join("/sys/class/net", i.Name, "master")); err == nil && inner(filepath.Base(master)) {
			continue
		}
		out = append(out, i.Name)
	}
	slices.Sort(out)
	return out, nil
}

// cgroupRoots are where the cgroup v2 hierarchy is mounted, alone or beside v1.
var cgroupRoots = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}

// FindCgroup finds a cgroup v2 by its path below the hierarchy's root. The path
// self is this process's own, which must hold nobody else.
func FindCgroup(path string) (Cgroup, error) {
	own := path == "self"
	if own {
		path = ""
		eachLine("/proc/self/cgroup", func(f []string) {
			if len(f) > 0 && strings.HasPrefix(f[0], "0::") {
				path = f[0][len("0::"):]
			}
		})
	}
	path = strings.Trim(filepath.Clean("/"+path), "/")
	if path == "" {
		return Cgroup{}, errors.New("the root of the cgroups holds the job too; run Sallyport in a cgroup v2 of its own, or let it be known by its user")
	}
	for _, root := range cgroupRoots {
		dir := filepath.Join(root, path)
		info, err := os.Stat(dir)
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
			continue // v1
		}
		if own {
			if err := onlyOurs(filepath.Join(dir, "cgroup.procs")); err != nil {
				return Cgroup{}, err
			}
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			break
		}
		return Cgroup{ID: stat.Ino, Level: uint32(strings.Count(path, "/") + 1), Path: path}, nil
	}
	return Cgroup{}, fmt.Errorf("there is no cgroup v2 %q under %s", path, cgroupRoots[0])
}

// onlyOurs refuses a cgroup that holds another process than this.
func onlyOurs(procs string) (err error) {
	eachLine(procs, func(f []string) {
		if len(f) == 1 && f[0] != strconv.Itoa(os.Getpid()) {
			err = fmt.Errorf("process %s shares our cgroup and would be let out with us; run Sallyport in a cgroup of its own", f[0])
		}
	})
	return err
}
