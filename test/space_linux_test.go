package test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A space is a network namespace. Sockets that are made within do stay there,
// whichever goroutine uses them later.
type space struct {
	t       *testing.T
	name    string
	at      *os.File
	patient time.Duration // of its connections
}

// lastSpace numbers namespaces, as two tests may have one of the same kind.
var lastSpace atomic.Uint32

// newSpace makes a namespace with a loopback device, until the test ends. Its
// interfaces have their IPv6 addresses at once, and it answers for no others.
func newSpace(t *testing.T, kind string) *space {
	t.Helper()
	needRoot(t)
	needProgram(t, "ip", "bridge")
	s := &space{t: t, name: fmt.Sprintf("sp%d-%d%s", os.Getpid()%10000, lastSpace.Add(1), kind), patient: patience}
	s.command("ip", "netns", "add", s.name)
	var err error
	t.Cleanup(func() {
		s.at.Close()
		_ = exec.Command("ip", "netns", "del", s.name).Run()
		_ = os.RemoveAll(s.etc())
	})
	if s.at, err = os.Open(filepath.Join("/run/netns", s.name)); err != nil {
		t.Fatal(err)
	}
	s.sysctl("net/ipv6/conf/default/accept_dad", "0")
	s.sysctl("net/ipv6/conf/all/accept_dad", "0")
	s.sysctl("net/ipv4/conf/all/rp_filter", "0") // nothing but the firewall is to look at sources
	s.sysctl("net/ipv4/conf/default/rp_filter", "0")
	s.ip("link", "set", "lo", "up")
	return s
}

// etc is the directory whose files `ip netns exec` mounts over those of /etc.
func (s *space) etc() string { return filepath.Join("/etc/netns", s.name) }

// resolver makes programs of the namespace ask a resolver.
func (s *space) resolver(addr string) {
	s.t.Helper()
	if err := os.MkdirAll(s.etc(), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.etc(), "resolv.conf"), []byte("nameserver "+addr+"\noptions timeout:5 attempts:1\n"), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// command runs a program outside that must succeed.
func (s *space) command(args ...string) {
	s.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// ip runs ip(8) on the namespace.
func (s *space) ip(args ...string) {
	s.t.Helper()
	s.command(append([]string{"ip", "-n", s.name}, args...)...)
}

// address gives a device addresses, each with its prefix length.
func (s *space) address(device string, prefixes ...string) {
	s.t.Helper()
	for _, prefix := range prefixes {
		if strings.Contains(prefix, ":") {
			s.ip("addr", "add", prefix, "dev", device, "nodad")
		} else {
			s.ip("addr", "add", prefix, "dev", device)
		}
	}
}

// route sends prefixes, given in pairs with their gateways.
func (s *space) route(pairs ...string) {
	s.t.Helper()
	for i := 0; i+1 < len(pairs); i += 2 {
		family := "-4"
		if strings.Contains(pairs[i+1], ":") {
			family = "-6"
		}
		s.ip(family, "route", "add", pairs[i], "via", pairs[i+1])
	}
}

// forwards makes the namespace a router.
func (s *space) forwards() {
	s.t.Helper()
	s.sysctl("net/ipv4/ip_forward", "1")
	s.sysctl("net/ipv6/conf/all/forwarding", "1")
}

func (s *space) sysctl(key, value string) {
	s.t.Helper()
	s.do(func() {
		if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644); err != nil {
			s.t.Fatal(err)
		}
	})
}

// wire joins two namespaces by a pair of devices, which are up.
func wire(a *space, deviceA string, b *space, deviceB string) {
	a.t.Helper()
	a.ip("link", "add", deviceA, "type", "veth", "peer", "name", deviceB, "netns", b.name)
	a.ip("link", "set", deviceA, "up")
	b.ip("link", "set", deviceB, "up")
}

// do calls f on a thread of the namespace. f starts no goroutine that makes
// sockets.
func (s *space) do(f func()) {
	s.t.Helper()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		s.t.Fatal(err)
	}
	defer home.Close()
	if err := unix.Setns(int(s.at.Fd()), unix.CLONE_NEWNET); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // a thread in the wrong namespace must not live on
		}
		runtime.UnlockOSThread()
	}()
	f()
}

// dial connects from the namespace, with its patience as deadline. The
// address is literal; from may be "", for any address of ours.
func (s *space) dial(network, addr, from string) (conn net.Conn, err error) {
	s.t.Helper()
	dialer := net.Dialer{Timeout: s.patient}
	if from != "" {
		at := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
		dialer.LocalAddr = net.TCPAddrFromAddrPort(at)
		if strings.HasPrefix(network, "udp") {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(at)
		}
	}
	s.do(func() { conn, err = dialer.Dial(network, addr) })
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(s.patient))
	}
	return conn, err
}

// through is the command that a program of the namespace is started with.
func (s *space) through() []string { return []string{"ip", "netns", "exec", s.name} }

// run executes a program in the namespace with nothing of the environment but
// PATH and env: no proxy variables.
func (s *space) run(env []string, args ...string) (string, error) {
	s.t.Helper()
	cmd := exec.Command("ip", append(s.through()[1:], args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.t.TempDir(), "LANG=C"}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// serve runs a program in the namespace until the test ends.
func (s *space) serve(args ...string) *lockedBuffer {
	s.t.Helper()
	cmd := exec.Command("ip", append(s.through()[1:], args...)...)
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return said
}
