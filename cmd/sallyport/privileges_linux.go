package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// becomeUser leaves root for the user of --uid, with the capabilities that the
// rest of the start needs. It comes before anything is opened, so that all we
// write is that user's from the beginning. A start as another user, or as root
// without --uid and --firewall, changes nothing.
func (d *daemon) becomeUser() error {
	if os.Geteuid() != 0 || !d.options.leavesRoot() {
		return nil
	}
	d.handOver()
	d.leftRoot = true
	have := cap.GetProc()
	// Fails without CAP_SETPCAP, which a container need not have: what cannot be
	// gained there is told by its bounding set, and no_new_privs stands below.
	_ = cap.DropBound(boundingBut(cap.NET_ADMIN)...)
	uid := int(d.options.uid)
	if err := cap.SetGroups(uid); err != nil {
		return fmt.Errorf("leaving root's groups for %d: %w; it takes the capability SETGID", uid, err)
	}
	if err := cap.SetUID(uid); err != nil {
		return fmt.Errorf("becoming user %d: %w; it takes the capability SETUID", uid, err)
	}
	if err := holdOnly(have, cap.NET_ADMIN, cap.NET_BIND_SERVICE); err != nil {
		return err
	}
	d.warnOfRights()
	// The change of user made /proc/self root's, where our own metrics are read.
	// Nobody but us is this user.
	_, err := cap.Prctlw(unix.PR_SET_DUMPABLE, 1, 0, 0, 0, 0)
	return err
}

// warnOfRights says now what our user could not do later: open the event log
// again after a rotation, read the configuration again for a reload.
func (d *daemon) warnOfRights() {
	warn := func(path, text string) { d.log.Warn().Str("path", path).Uint32("uid", d.options.uid).Msg(text) }
	if file := d.settings.Log.Events; file != "stdout" {
		if dir := filepath.Dir(file); unix.Access(dir, unix.W_OK) != nil {
			warn(dir, "this directory is not writable for our user: once the event log is rotated away, it cannot be opened again; give the directory to that user, or rotate by copying")
		}
	}
	if _, err := readSources(d.options.config); err != nil {
		warn(d.options.config, "the configuration is not readable for our user: no reload will work; give it to that user's group, mode 0640")
	}
}

// handOver gives the user what the configuration has us write, where it is
// root's and we may: directories made by hand before the first start.
func (d *daemon) handOver() {
	paths := []string{d.settings.Alerts.StateDir}
	if d.settings.Log.Events != "stdout" {
		paths = append(paths, d.settings.Log.Events)
	}
	if entries, err := os.ReadDir(d.settings.Alerts.StateDir); err == nil {
		for _, e := range entries {
			paths = append(paths, filepath.Join(d.settings.Alerts.StateDir, e.Name()))
		}
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if path == "" || err != nil || !info.Mode().IsRegular() && !info.IsDir() {
			continue
		}
		_ = os.Lchown(path, int(d.options.uid), int(d.options.uid)) // opening it tells
	}
}

// dropPrivileges gives up what serving does not need: capabilities, the way to
// gain any, and what Landlock and seccomp can take away. NET_ADMIN stays where
// the firewall is to be compared, or applied again at a reload: where --firewall
// was given, or whoever started us as another user left us that right.
func (d *daemon) dropPrivileges() error {
	d.privileges = privileges{UID: os.Geteuid(), Capabilities: []string{}, Landlock: "none", Seccomp: "none"}
	if os.Geteuid() == 0 {
		d.log.Warn().Msg("serving as root; --uid makes it another user")
		d.privileges.Capabilities = []string{"all that root has"}
		return nil
	}
	var keep []cap.Value
	if d.options.firewall != "" || d.placement != "" && !d.leftRoot {
		keep = append(keep, cap.NET_ADMIN)
	}
	if err := holdOnly(cap.GetProc(), keep...); err != nil {
		return err
	}
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	held := cap.GetProc()
	for _, v := range keep {
		if on, err := held.GetFlag(cap.Permitted, v); err == nil && on {
			d.privileges.Capabilities = append(d.privileges.Capabilities, strings.ToUpper(v.String()))
		}
	}
	if err := errors.Join(d.restrictFiles(), d.restrictCalls()); err != nil {
		return err
	}
	for name, has := range map[string]string{"Landlock": d.privileges.Landlock, "seccomp": d.privileges.Seccomp} {
		if has == "none" {
			d.log.Warn().Msg("this kernel has no " + name + ", which would take away what our user may still do")
		}
	}
	return nil
}

// holdOnly keeps, of what have permits, the given capabilities, in force at
// once; nothing is inherited.
func holdOnly(have *cap.Set, wanted ...cap.Value) error {
	set := cap.NewSet()
	for _, v := range wanted {
		if on, err := have.GetFlag(cap.Permitted, v); err != nil || !on {
			continue
		}
		if err := errors.Join(set.SetFlag(cap.Permitted, true, v), set.SetFlag(cap.Effective, true, v)); err != nil {
			return err
		}
	}
	if err := set.SetProc(); err != nil {
		return fmt.Errorf("giving up capabilities: %w", err)
	}
	return nil
}

// boundingBut lists every capability of this kernel but those kept.
func boundingBut(kept ...cap.Value) []cap.Value {
	var all []cap.Value
	for v := cap.Value(0); v < cap.MaxBits(); v++ {
		if !slices.Contains(kept, v) {
			all = append(all, v)
		}
	}
	return all
}

// landlockABI is the newest that is used, that of V5. The next one's scopes keep
// signals from other threads, Go's own ones, in kernels before 6.15.
const landlockABI = 5

// restrictFiles lets us read what the user may, write where the configuration
// says, and execute nothing, where the kernel has Landlock.
func (d *daemon) restrictFiles() error {
	abi, err := landlocksys.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return nil
	}
	read := landlock.AccessFSSet(landlocksys.AccessFSReadFile | landlocksys.AccessFSReadDir)
	rules := []landlock.Rule{landlock.PathAccess(read, "/")}
	for _, dir := range d.writtenDirs() {
		rules = append(rules, landlock.RWDirs(dir).IgnoreIfMissing())
	}
	rules = append(rules, landlock.RWFiles("/dev/null").IgnoreIfMissing())
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		return fmt.Errorf("restricting the file system by Landlock: %w", err)
	}
	d.privileges.Landlock = fmt.Sprintf("ABI %d", min(abi, landlockABI))
	return nil
}

// writtenDirs are where the configuration has us write.
func (d *daemon) writtenDirs() []string {
	var dirs []string
	if dir := d.settings.Alerts.StateDir; dir != "" {
		dirs = append(dirs, dir)
	}
	if file := d.settings.Log.Events; file != "stdout" {
		dirs = append(dirs, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	if path, isUnix := strings.CutPrefix(d.settings.Listen.Control, "unix:"); isUnix {
		dirs = append(dirs, filepath.Dir(path))
	}
	return dirs
}
