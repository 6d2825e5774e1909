package test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A gatewaySensor remembers what runners do, as a sensor on their wire sees it.
type gatewaySensor struct {
	w    *gatewayWorld
	seen []seenTraffic
}

// ask asks the gateway for an address and gives it, if there is one.
func (s *gatewaySensor) ask(runner, name string) string {
	s.w.t.Helper()
	r := s.w.runners[runner]
	at := time.Now()
	reply, err := r.ask("udp", r.gate+":53", name, dns.TypeA)
	if err != nil {
		s.w.t.Fatalf("%s asks for %s: %v", runner, name, err)
	}
	s.seen = append(s.seen, seenTraffic{at: at, end: time.Now(), client: r.ip, clientPort: 40000, server: netip.MustParseAddrPort(r.gate + ":53"), question: reply})
	for _, rr := range reply.Answer {
		if a, ok := rr.(*dns.A); ok {
			return a.A.String()
		}
	}
	return ""
}

// connect connects a runner to an address and talks, in TLS with a name, or in
// HTTP with a host, or at all.
func (s *gatewaySensor) connect(runner, addr, sni, host string) {
	s.w.t.Helper()
	r := s.w.runners[runner]
	t := seenTraffic{at: time.Now(), client: r.ip, clientPort: 40001, server: netip.MustParseAddrPort(addr), sni: sni, host: host, sent: 517}
	conn, err := r.dial("tcp", addr, "")
	if err != nil { // reset at once: refused by its address alone
		t.end = time.Now()
		s.seen = append(s.seen, t)
		return
	}
	defer conn.Close()
	t.clientPort = uint16(conn.LocalAddr().(*net.TCPAddr).Port)
	switch {
	case host != "":
		t.method, t.uri = "GET", "/"
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
	case sni != "":
		inner := tls.Client(conn, s.w.clientTLS(sni))
		if inner.Handshake() == nil {
			fmt.Fprintf(inner, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", sni)
			_, _ = bufio.NewReader(inner).ReadString('\n')
		}
	default:
		fmt.Fprint(conn, "hello\r\n")
	}
	_, _ = bufio.NewReader(conn).ReadString('\n') // until it is answered, or reset
	t.end = time.Now()
	s.seen = append(s.seen, t)
}

// TestCorrelateIsTheTransparentPath: what Zeek has of connections that runners
// made themselves gives the alerts that the gateway raises for them.
func TestCorrelateIsTheTransparentPath(t *testing.T) {
	t.Parallel()
	w := newGatewayWorld(t, "build1", "build2", "build3", "build4", "build5", "build6", "build7")
	w.tlsHost(34, "tls.example")
	pools, _, _ := strings.Cut(buildPools, "  deploy:")
	d := w.prepare(pools, "")
	d.extra = fmt.Sprintf("\nalerts: {state_dir: %s, thresholds: {address_mismatch_hold: 1ms}}\n", d.path("state"))
	d.write(upstream+":53", pools)
	d.run()

	s := &gatewaySensor{w: w}
	// What the list allows, by the name and the address that go together.
	s.connect("build1", s.ask("build1", "tls.example")+":443", "tls.example", "")
	// An allowed name elsewhere, a refused name, and no name at all.
	s.ask("build2", "tls.example")
	s.connect("build2", attacker4+"7:443", "tls.example", "")
	s.ask("build3", "evil.example")
	s.connect("build3", attacker4+"8:443", "evil.example", "")
	s.connect("build4", attacker4+"9:40000", "", "")
	s.ask("build5", "worse.example")
	s.connect("build5", attacker4+"10:22", "", "")
	// The cloud's credentials, and plain HTTP to a host that nobody allows.
	s.connect("build6", "169.254.169.254:80", "", "169.254.169.254")
	s.connect("build7", attacker4+"11:80", "", "other.example")
	d.stop()

	log, err := os.ReadFile(d.path("events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	isPolicy := func(text string) bool { return strings.Contains(text, " policy ") }
	live := slices.DeleteFunc(alertsIn(t, log), isPolicy) // of the daemon itself, which logs of others do not have
	if len(live) < 7 {
		t.Fatalf("the live path raised only\n%s", strings.Join(live, "\n"))
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"dns.log": zeekTSVOf("dns", zeekDNS(s.seen)), "http.log": zeekTSVOf("http", zeekHTTP(s.seen)),
		"ssl.log": zeekTSVOf("ssl", zeekSSL(s.seen)), "conn.log": zeekTSVOf("conn", zeekConns(s.seen)),
		"zeek.json": zeekJSONOf(slices.Concat(zeekDNS(s.seen), zeekConns(s.seen), zeekHTTP(s.seen), zeekSSL(s.seen))),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, logs := range [][]string{{"dns.log", "http.log", "ssl.log", "conn.log"}, {"zeek.json"}} {
		cmd := exec.Command(binary, append([]string{"correlate", "-c", d.path("sallyport.yaml"), "--format", "json"}, logs...)...)
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, &stderr)
		}
		if got := alertsIn(t, out); !slices.Equal(got, live) {
			t.Errorf("of %v the alerts are\n%s\nnot\n%s\n%s", logs, strings.Join(got, "\n"), strings.Join(live, "\n"), &stderr)
		}
	}
}
