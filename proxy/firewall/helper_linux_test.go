package firewall_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/proxy/firewall"
)

// helperVar tells the test binary, run again, what to do instead of testing: the
// words are a user, a helper's name, and its arguments.
const helperVar = "SALLYPORT_FIREWALL_HELPER"

func TestMain(m *testing.M) {
	if words := strings.Fields(os.Getenv(helperVar)); len(words) > 0 {
		if err := help(words[0], words[1], words[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// help becomes a user, as whom the test binary itself may not be started, and
// does what the helper does.
func help(user, name string, words []string) error {
	if uid, err := strconv.Atoi(user); err != nil || uid != 0 {
		if err := errors.Join(err, syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
			return err
		}
	}
	return helpers[name](words)
}

// helpers are run as other users, and in other network namespaces.
var helpers = map[string]func([]string) error{
	"flood": flood, "count": countFrames, "apply": applyForever, "dial": dialOnce, "send": sendAndClose, "receive": receive, "hold": hold, "frame": frame, "echo": echo, "devices": devices, "pretend": pretend, "probe": probe,
}

// A helper is one that runs. Its lines come from its standard output.
type helper struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
	rest  []byte // of the line that Read gives
}

// start runs a helper as a user in a namespace: "" is that of this thread.
func start(t *testing.T, namespace string, uid uint32, words ...any) *helper {
	t.Helper()
	args := []string{os.Args[0]}
	if namespace != "" {
		args = append([]string{"ip", "netns", "exec", namespace}, args...)
	}
	h := &helper{t: t, cmd: exec.Command(args[0], args[1:]...)}
	h.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", helperVar, uid, fmt.Sprintln(words...)))
	h.cmd.Stderr = os.Stderr
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.lines = bufio.NewScanner(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.kill)
	return h
}

func (h *helper) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

// line is the next of its output.
func (h *helper) line() string {
	h.t.Helper()
	timer := time.AfterFunc(30*time.Second, h.kill)
	defer timer.Stop()
	if !h.lines.Scan() {
		h.t.Fatalf("the helper %v ended", h.cmd.Env[len(h.cmd.Env)-1])
	}
	return h.lines.Text()
}

// number asks for one.
func (h *helper) number() int {
	h.t.Helper()
	if _, err := io.WriteString(h.in, "\n"); err != nil {
		h.t.Fatal(err)
	}
	n, err := strconv.Atoi(h.line())
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// answer gives a number for every line that is asked.
func answer(n func() int64) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Fprintln(os.Stdout, n())
	}
}

// probe is the child of a Prober.
func probe([]string) error { return firewall.Probe(os.Stdin, os.Stdout) }

// Read gives the lines of its output to whoever wants them as a stream.
func (h *helper) Read(b []byte) (int, error) {
	for len(h.rest) == 0 {
		if !h.lines.Scan() {
			return 0, io.EOF
		}
		h.rest = append(h.lines.Bytes(), '\n')
	}
	n := copy(b, h.rest)
	h.rest = h.rest[n:]
	return n, nil
}

// flood sends to addresses as fast as it can, UDP and TCP, and counts.
func flood(words []string) error {
	var sent atomic.Int64
	for _, word := range words {
		to := netip.MustParseAddrPort(word)
		family := unix.AF_INET
		if to.Addr().Is6() {
			family = unix.AF_INET6
		}
		udp, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		go func() {
			sockaddr := sockaddrOf(to)
			for {
				_ = unix.Sendto(udp, []byte("escaped"), unix.MSG_DONTWAIT, sockaddr)
				sent.Add(1)
			}
		}()
		go func() {
			sockaddr := sockaddrOf(to)
			for {
				if tcp, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0); err == nil {
					_ = unix.Connect(tcp, sockaddr)
					_ = unix.Close(tcp)
					sent.Add(1)
				}
			}
		}()
	}
	answer(sent.Load)
	return nil
}

// sockaddrOf makes an address for one goroutine: a call writes into it.
func sockaddrOf(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// settled waits until what was under way has arrived, and gives the number. A
// helper that has answered ends a second later under the race detector, and its
// connections with it.
func (h *helper) settled() int {
	h.t.Helper()
	for n, same := h.number(), 0; ; {
		_ = exec.Command("sleep", "0.1").Run()
		again := h.number()
		if same++; again != n {
			n, same = again, 0
		}
		if same == 25 {
			return n
		}
	}
}

// countFrames counts the IP packets that come in by an interface, but the talk
// of IPv6 neighbours.
func countFrames(words []string) error {
	iface, err := net.InterfaceByName(words[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: iface.Index}); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	var count atomic.Int64
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				continue
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if !ok || link.Pkttype == unix.PACKET_OUTGOING || quiet(buf[:n], link.Protocol) {
				continue
			}
			if os.Getenv("SHOW") != "" {
				fmt.Fprintf(os.Stderr, "%x %x\n", link.Protocol, buf[:min(n, 64)])
			}
			count.Add(1)
		}
	}()
	fmt.Fprintln(os.Stdout, "counting")
	answer(count.Load)
	return nil
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

// quiet is what a link says without a job: ARP, and IPv6 neighbours and
// listeners.
func quiet(packet []byte, protocol uint16) bool {
	switch htons(protocol) {
	case unix.ETH_P_IP:
		return false
	case unix.ETH_P_IPV6:
		if len(packet) < 49 {
			return false
		}
		at, proto := 40, packet[6]
		if proto == unix.IPPROTO_HOPOPTS {
			at, proto = 48, packet[40]
		}
		return proto == unix.IPPROTO_ICMPV6 && packet[at] >= 130 && packet[at] <= 143
	default:
		return htons(protocol) == unix.ETH_P_ARP
	}
}

// applyForever applies two plans in turn, and says so each time.
func applyForever([]string) error {
	for n := 0; ; n++ {
		if err := firewall.Apply(variant(n)); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, n)
	}
}

// variant is one of two plans that differ.
func variant(n int) *firewall.Plan {
	p := worldPlan()
	if n%2 == 1 {
		p.Private = append(p.Private, 9999)
	}
	return p
}

// dialOnce tries "tcp" or "udp" to an address, perhaps from another, and says what came of it: the
// line that the other end sent, or the error.
func dialOnce(words []string) error {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	if len(words) > 2 {
		if from := net.ParseIP(words[2]); words[0] == "tcp" {
			dialer.LocalAddr = &net.TCPAddr{IP: from}
		} else {
			dialer.LocalAddr = &net.UDPAddr{IP: from}
		}
	}
	conn, err := dialer.Dial(words[0], words[1])
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
		_, err = conn.Write([]byte("hello\n"))
		if err == nil && words[0] == "udp" {
			// What was refused comes back as an error of the next call.
			_, err = conn.Write([]byte("hello\n"))
		}
	}
	var line string
	var timeout net.Error
	if err == nil {
		line, err = bufio.NewReader(conn).ReadString('\n')
	}
	switch {
	case err == nil:
		fmt.Fprintln(os.Stdout, "answer "+strings.TrimSpace(line))
	// What a rule refuses on its way out is an error of the call itself too.
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPERM):
		fmt.Fprintln(os.Stdout, "refused")
	case errors.As(err, &timeout) && timeout.Timeout():
		fmt.Fprintln(os.Stdout, "silence")
	default:
		fmt.Fprintln(os.Stdout, err)
	}
	return nil
}

// pretend sends from an address that is not of this machine, as every user may
// over IPv6: a datagram and the beginning of a connection to each of the others.
func pretend(words []string) error {
	from := sockaddrOf(netip.MustParseAddrPort(words[0]))
	for _, word := range words[1:] {
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM | unix.SOCK_NONBLOCK} {
			fd, err := unix.Socket(unix.AF_INET6, kind, 0)
			if err != nil {
				return err
			}
			err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1), unix.Bind(fd, from))
			if err != nil {
				return err
			}
			_ = unix.Connect(fd, sockaddrOf(netip.MustParseAddrPort(word)))
			_, _ = unix.Write(fd, []byte("escaped"))
			_ = unix.Close(fd)
		}
	}
	fmt.Fprintln(os.Stdout, "sent")
	return nil
}

// echo listens for TCP and UDP at every address it is given, and answers every
// line with its first word.
func echo(words []string) error {
	for _, addr := range words[1:] {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					for lines := bufio.NewScanner(conn); lines.Scan(); {
						fmt.Fprintln(conn, words[0])
					}
				}()
			}
		}()
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		go func() {
			buf := make([]byte, 2048)
			for {
				if _, from, err := u.ReadFrom(buf); err == nil {
					_, _ = u.WriteTo([]byte(words[0]+"\n"), from)
				}
			}
		}()
	}
	fmt.Fprintln(os.Stdout, "listening")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// streamed is how much send sends, in bytes: more than sockets hold.
const streamed = 4 << 20

// send sends to an address and closes at once, with most still on its way.
func sendAndClose(words []string) error {
	conn, err := net.DialTimeout("tcp", words[0], 5*time.Second)
	if err != nil {
		return err
	}
	_ = conn.(*net.TCPConn).SetWriteBuffer(2 * streamed)
	_, err = conn.Write(make([]byte, streamed))
	return errors.Join(err, conn.Close())
}

// receive takes one connection, reads it slowly, and says how much came.
func receive(words []string) error {
	l, err := net.Listen("tcp", words[0])
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "listening")
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	_ = conn.(*net.TCPConn).SetReadBuffer(32 << 10)
	n, err := io.Copy(io.Discard, conn)
	fmt.Fprintln(os.Stdout, n, err)
	return nil
}

// hold opens a connection and goes on using it, whatever becomes of it.
func hold(words []string) error {
	conn, err := net.DialTimeout(words[0], words[1], 5*time.Second)
	if err != nil {
		return err
	}
	var once sync.Once
	go func() {
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			once.Do(func() { fmt.Fprintln(os.Stdout, "open") })
		}
	}()
	var sent atomic.Int64
	go func() {
		for range time.Tick(2 * time.Millisecond) {
			_, _ = conn.Write([]byte("more\n"))
			sent.Add(1)
		}
	}()
	answer(sent.Load)
	return nil
}

// frame sends one UDP packet past the IP stack, and says so.
func frame(words []string) error {
	iface, err := net.InterfaceByName(words[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(htons(unix.ETH_P_IP)))
	if err != nil {
		return err
	}
	packet := append([]byte{0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0, 10, 77, 0, 1, 198, 51, 100, 7, 0x30, 0x39, 0x27, 0x0f, 0, 16, 0, 0}, "escaped!"...)
	to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: iface.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	err = unix.Sendto(fd, packet, 0, to)
	fmt.Fprintln(os.Stdout, "sent", err)
	return nil
}

// devices says which devices lead out of the namespace.
func devices([]string) error {
	names, err := firewall.OutsideDevices()
	fmt.Fprintln(os.Stdout, strings.Join(names, " "))
	return err
}
