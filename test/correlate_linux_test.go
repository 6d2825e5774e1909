package test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/alerting"
)

// A correlateWorld is a network namespace in which clients, each with an address
// of its own, ask a resolver and a proxy: Squid and dnsmasq, and then Sallyport.
type correlateWorld struct {
	*space
	dir  string // for logs, writable for everybody
	zone *zone
	ca   *testCA
	seen []seenTraffic // what a sensor on the wire would have seen
}

// The addresses of a correlateWorld.
const (
	clients    = "10.77.1."
	squidAt    = "10.77.0.1"
	gateAt     = "10.77.0.2"
	resolverAt = "10.77.0.53" // dnsmasq
	unboundAt  = "10.77.0.54"
	upstreamAt = "10.77.0.55"
	goodAt     = "93.184.216.34"
)

// seenTraffic is one question or one CONNECT, as it went over the wire.
type seenTraffic struct {
	at, end    time.Time
	client     string
	clientPort uint16
	server     netip.AddrPort
	question   *dns.Msg // with its reply
	method     string   // of a request to the proxy
	uri        string
	host       string // of a request without a proxy
	sni        string // in a tunnel
	sent       int
}

func newCorrelateWorld(t *testing.T) *correlateWorld {
	t.Helper()
	w := &correlateWorld{space: newSpace(t, "corr"), ca: newCA(t)}
	var err error
	if w.dir, err = os.MkdirTemp("", "sallyport-correlate-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(w.dir) })
	if err := os.Chmod(w.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{squidAt, gateAt, resolverAt, unboundAt, upstreamAt, goodAt} {
		w.address("lo", addr+"/32")
	}
	for i := range 16 {
		w.address("lo", fmt.Sprintf("%s%d/32", clients, i+1))
	}
	w.do(func() { w.zone = newZoneAt(t, upstreamAt+":53") })
	for _, record := range []string{
		"good.example. 60 IN A " + goodAt, "www.example. 60 IN CNAME good.example.", "inner.example. 60 IN A 10.1.2.3",
		"evil.example. 60 IN A 93.184.99.20", "worse.example. 60 IN A 93.184.99.21", "dns.google. 60 IN A 8.8.8.8",
	} {
		w.zone.add(t, record)
	}
	cert := w.ca.issue("good.example", "front.example")
	w.do(func() { httpOrigin(t, goodAt+":443", &cert) })
	return w
}

// program runs one in the namespace until stop, which is called at the end at
// the latest, and waits until it takes connections at addr.
func (w *correlateWorld) program(addr string, args ...string) (stop func()) {
	w.t.Helper()
	cmd := exec.Command("ip", append(w.through()[1:], args...)...)
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-exited
		}
	}
	w.t.Cleanup(stop)
	eventually(w.t, args[0]+" listens", func() bool {
		conn, err := w.dial("tcp", addr, "")
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, func() string { return said.String() })
	return stop
}

func (w *correlateWorld) path(name string) string { return filepath.Join(w.dir, name) }

// startOthers runs dnsmasq, Unbound and Squid, with their logs in w.dir.
func (w *correlateWorld) startOthers() (stop func()) {
	w.t.Helper()
	dnsmasq := w.program(resolverAt+":53", "dnsmasq", "-C", "/dev/null", "-k", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root",
		"--bind-interfaces", "--listen-address="+resolverAt, "--server="+upstreamAt, "--log-queries=extra", "--log-facility="+w.path("dnsmasq.log"))
	w.write("unbound.conf", fmt.Sprintf(`server:
  interface: %s
  access-control: 0.0.0.0/0 allow
  do-daemonize: no
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  logfile: %q
  log-queries: yes
  log-replies: yes
  module-config: "iterator"
  do-not-query-localhost: no
forward-zone:
  name: "."
  forward-addr: %s
remote-control:
  control-enable: no
`, unboundAt, w.path("unbound.log"), upstreamAt))
	unbound := w.program(unboundAt+":53", "unbound", "-d", "-c", w.path("unbound.conf"))
	w.write("squid.conf", fmt.Sprintf(`http_port %[1]s:3128
udp_outgoing_address %[1]s
http_access allow all
access_log stdio:%[2]s/squid.log squid
access_log stdio:%[2]s/squid-combined.log combined
cache_log %[2]s/cache.log
cache deny all
pid_filename none
dns_nameservers %[3]s
coredump_dir %[2]s
shutdown_lifetime 0 seconds
netdb_filename none
pinger_enable off
connect_timeout 2 seconds
forward_timeout 2 seconds
`, squidAt, w.dir, resolverAt))
	name := fmt.Sprintf("sallyport%d", os.Getpid()) // its shared memory is the machine's
	squid := w.program(squidAt+":3128", "squid", "-N", "-n", name, "-f", w.path("squid.conf"))
	w.t.Cleanup(func() {
		left, _ := filepath.Glob("/dev/shm/" + name + "-*")
		for _, file := range left {
			os.Remove(file)
		}
	})
	return func() { squid(); unbound(); dnsmasq() }
}

func (w *correlateWorld) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// ask asks a resolver for an address from a client.
func (w *correlateWorld) ask(client int, resolver, name string) {
	w.t.Helper()
	from := fmt.Sprint(clients, client)
	at := time.Now()
	conn, err := w.dial("udp", resolver, from)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	c := &dns.Conn{Conn: conn}
	if err := c.WriteMsg(new(dns.Msg).SetQuestion(name+".", dns.TypeA)); err != nil {
		w.t.Fatal(err)
	}
	reply, err := c.ReadMsg()
	if err != nil {
		w.t.Fatalf("asking for %s: %v", name, err)
	}
	w.saw(conn, seenTraffic{at: at, question: reply})
}

// saw remembers traffic over a connection.
func (w *correlateWorld) saw(conn net.Conn, s seenTraffic) {
	local, remote := netip.MustParseAddrPort(conn.LocalAddr().String()), netip.MustParseAddrPort(conn.RemoteAddr().String())
	s.client, s.clientPort, s.server, s.end = local.Addr().String(), local.Port(), remote, time.Now()
	w.seen = append(w.seen, s)
}

// request sends a request head to a proxy and gives the status of the answer.
// A tunnel that opens carries TLS with a server name, where one is given.
func (w *correlateWorld) request(client int, proxy, method, uri, sni string) {
	w.t.Helper()
	at := time.Now()
	conn, err := w.dial("tcp", proxy, fmt.Sprint(clients, client))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	host := strings.TrimSuffix(strings.TrimPrefix(uri, "http://"), "/")
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", method, uri, host)
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, uri, err)
	}
	s := seenTraffic{at: at, method: method, uri: uri}
	if answer.StatusCode == http.StatusOK && method == http.MethodConnect && sni != "" {
		s.sni, s.sent = sni, 517
		inner := tls.Client(conn, &tls.Config{ServerName: sni, RootCAs: w.ca.pool})
		if err := inner.Handshake(); err == nil {
			fmt.Fprintf(inner, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", sni)
			_, _ = bufio.NewReader(inner).ReadString('\n')
		}
	}
	w.saw(conn, s)
}

// play is the traffic: each client does one thing, so that no two stories meet.
func (w *correlateWorld) play(resolver, proxy string) {
	ask := func(client int, name string) { w.ask(client, resolver, name) }
	connect := func(client int, target, sni string) { w.request(client, proxy, "CONNECT", target, sni) }
	// What the list allows.
	ask(1, "good.example")
	connect(1, "good.example:443", "good.example")
	// Refused, as a question and as a connection.
	ask(2, "evil.example")
	connect(2, "evil.example:443", "")
	// An address from nowhere; one after a refusal; one that was answered.
	connect(3, "93.184.99.9:443", "")
	ask(4, "worse.example")
	connect(4, "93.184.99.10:443", "")
	ask(5, "good.example")
	connect(5, goodAt+":443", "")
	// The cloud's credentials.
	w.request(6, proxy, "GET", "http://169.254.169.254/", "")
	// An allowed name that leads inside.
	ask(7, "inner.example")
	connect(7, "inner.example:443", "")
	// Another port, another resolver, another name in TLS.
	connect(8, "good.example:8022", "")
	connect(9, "dns.google:443", "")
	connect(10, "good.example:443", "front.example")
}

// correlatePools is the policy of both ways.
const correlatePools = `
  build:
    sources: [10.77.1.0/24]
    allow: [good.example, www.example, inner.example]
`

// told is what an alert says, as far as both ways must agree.
func told(e *alerting.Event) string {
	where := e.Host
	if where == "" {
		where = e.IP.String()
	}
	return fmt.Sprintf("%s %s %s %s from %s", e.Severity, e.Alert, e.Pool, where, e.Client)
}

// alertsIn lists the alerts in lines of JSON, each once, above info.
func alertsIn(t *testing.T, lines []byte) []string {
	t.Helper()
	last := map[string]string{}
	for line := range bytes.Lines(lines) {
		e, err := alerting.ParseEvent(line)
		if err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if e.Kind == alerting.KindAlert && e.Severity != "info" {
			last[e.ID] = told(&e)
		}
	}
	var all []string
	for _, text := range last {
		all = append(all, text)
	}
	slices.Sort(all)
	return all
}

// TestCorrelateIsTheLivePath: the logs that Squid, dnsmasq, Unbound and Zeek have
// of some traffic give the alerts that Sallyport raises for the same traffic.
func TestCorrelateIsTheLivePath(t *testing.T) {
	t.Parallel()
	needProgram(t, "squid", "dnsmasq", "unbound")
	w := newCorrelateWorld(t)

	d := prepare(t, config{upstream: upstreamAt + ":53", ip: gateAt, prefix: w.through(), pools: correlatePools})
	d.run()
	w.play(gateAt+":5300", gateAt+":3128")
	d.stop()
	log, err := os.ReadFile(d.path("events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	live := alertsIn(t, log)
	if len(live) < 9 {
		t.Fatalf("the live path raised only\n%s", strings.Join(live, "\n"))
	}

	stop := w.startOthers()
	w.seen = nil
	w.play(resolverAt+":53", squidAt+":3128")
	seen := slices.Clone(w.seen)
	for _, s := range seen { // the same questions, of Unbound
		if s.question != nil {
			w.ask(int(netip.MustParseAddr(s.client).As4()[3]), unboundAt+":53", strings.TrimSuffix(s.question.Question[0].Name, "."))
		}
	}
	stop()
	w.write("zeek-dns.log", zeekTSVOf("dns", zeekDNS(seen)))
	w.write("zeek-http.log", zeekTSVOf("http", zeekHTTP(seen)))
	w.write("zeek-ssl.log", zeekTSVOf("ssl", zeekSSL(seen)))
	w.write("zeek-conn.log", zeekTSVOf("conn", zeekConns(seen)))
	w.write("zeek.json", zeekJSONOf(slices.Concat(zeekConns(seen), zeekSSL(seen), zeekHTTP(seen), zeekDNS(seen))))

	for _, way := range []struct {
		name    string
		args    []string
		without []string // alerts that the logs cannot show, by their kind
		instead []string
	}{
		{name: "Squid and dnsmasq", args: []string{"--dns", "dnsmasq.log", "--proxy", "squid.log", "--dns-client", squidAt}, without: []string{"sni-mismatch"}},
		{name: "Zeek, TSV", args: []string{"--dns", "zeek-dns.log", "--proxy", "zeek-conn.log", "zeek-ssl.log", "zeek-http.log"}},
		{name: "Zeek, JSON, packed", args: []string{"--proxy", "zeek.json.gz"}},
		{name: "Sallyport's own events, judged again", args: []string{d.path("events.jsonl")}},
		{
			name: "Squid, combined, and Unbound, which show no answers", args: []string{"--dns", "unbound.log", "--proxy", "squid-combined.log"},
			without: []string{"sni-mismatch", "direct-ip", "denied-then-direct", "rebinding"},
			instead: []string{
				"medium denied-egress build 93.184.99.10 from 10.77.1.4", "medium denied-egress build 93.184.99.9 from 10.77.1.3",
			},
		},
	} {
		t.Run(way.name, func(t *testing.T) {
			if out, err := exec.Command("sh", "-c", "gzip -c "+w.path("zeek.json")+" > "+w.path("zeek.json.gz")).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
			cmd := exec.Command(binary, append([]string{"correlate", "-c", d.path("sallyport.yaml"), "--format", "json"}, way.args...)...)
			cmd.Dir = w.dir
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			want := slices.DeleteFunc(slices.Clone(live), func(text string) bool {
				return slices.Contains(way.without, strings.Fields(text)[1])
			})
			want = append(want, way.instead...)
			slices.Sort(want)
			if got := alertsIn(t, out); !slices.Equal(got, want) {
				t.Errorf("the alerts are\n%s\nnot\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), &stderr)
			}
		})
	}
}
