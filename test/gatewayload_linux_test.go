package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// soakTime is how long runners press on a gateway: SALLYPORT_SOAK, such as 60s,
// else 15 s in CI and 5 s elsewhere.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SALLYPORT_SOAK")
	switch {
	case text != "":
	case os.Getenv("SALLYPORT_CI") == "1":
		text = "15s"
	default:
		text = "5s"
	}
	soak, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return soak
}

// loadPools are three pools that may each reach a host of their own, and a name
// of their own at an address that all three share.
const loadPools = `  build:
    sources: [10.20.0.0/24, "2001:db8:20::/64"]
    interfaces: [br-build]
    allow: [build.example, "raw-build.example:5432"]
  deploy:
    sources: [10.30.0.0/24, "2001:db8:30::/64"]
    interfaces: [br-deploy]
    allow: [deploy.example, "raw-deploy.example:5432"]
  lint:
    sources: [10.40.0.0/24, "2001:db8:40::/64"]
    interfaces: [br-lint]
    allow: [lint.example, "raw-lint.example:5432"]
`

// A loadClient is one of many runners: an address of its own in the namespace
// of its pool's runner.
type loadClient struct {
	*runner
	w      *gatewayWorld
	self   string
	six    bool
	rounds int
}

// loadClients gives runners of each pool addresses, half of them of IPv6.
func (w *gatewayWorld) loadClients(count int) (all []*loadClient) {
	for i := range count {
		r := w.runners[w.pools[i%len(w.pools)]+"1"]
		c := &loadClient{runner: r, w: w, six: i%2 == 1}
		net := strings.Split(r.ip, ".")[1]
		prefix := fmt.Sprintf("10.%s.0.%d/24", net, 50+i/len(w.pools))
		if c.six {
			prefix = fmt.Sprintf("2001:db8:%s::%x/64", net, 0x100+i)
		}
		r.address("eth0", prefix)
		c.self, _, _ = strings.Cut(prefix, "/")
		all = append(all, c)
	}
	return all
}

// ask puts a question to the gateway from the client's own address.
func (c *loadClient) ask(name string) (netip.Addr, error) {
	gate, qtype := c.gate, dns.TypeA
	if c.six {
		gate, qtype = c.gate6, dns.TypeAAAA
	}
	conn, err := c.dial("udp", net.JoinHostPort(gate, "53"), c.self)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	over := &dns.Conn{Conn: conn, UDPSize: 1232}
	if err := over.WriteMsg(m); err != nil {
		return netip.Addr{}, err
	}
	reply, err := over.ReadMsg()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, rr := range reply.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			return netip.AddrFrom4([4]byte(rr.A.To4())), nil
		case *dns.AAAA:
			return netip.AddrFrom16([16]byte(rr.AAAA)), nil
		}
	}
	if reply.Rcode != dns.RcodeNameError {
		return netip.Addr{}, fmt.Errorf("%s: %s without an address", name, dns.RcodeToString[reply.Rcode])
	}
	return netip.Addr{}, errNoSuchName
}

var errNoSuchName = errors.New("no such name")

// site is the address of a name in the client's family.
func (c *loadClient) site(name string) string {
	if c.six {
		return c.w.sites[name].ip6
	}
	return c.w.sites[name].ip
}

// get fetches a page of a name from its address.
func (c *loadClient) get(name string) error {
	conn, err := c.dial("tcp", net.JoinHostPort(c.site(name), "443"), c.self)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := tls.Client(conn, c.w.clientTLS(name))
	if _, err := fmt.Fprintf(client, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", c.self, name); err != nil {
		return err
	}
	page, err := io.ReadAll(client)
	if want := fmt.Sprintf("origin GET %s /%s ", name, c.self); err == nil && !strings.Contains(string(page), want) {
		return fmt.Errorf("%s gave %q", name, page)
	}
	return err
}

// echo talks to the address that all pools share.
func (c *loadClient) echo() error {
	conn, err := c.dial("tcp", net.JoinHostPort(c.site("raw-build.example"), "5432"), c.self)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, c.self); err != nil {
		return err
	}
	got := make([]byte, len(c.self))
	if _, err = io.ReadFull(conn, got); err == nil && string(got) != c.self {
		return fmt.Errorf("came back: %q", got)
	}
	return err
}

// round asks for and connects to what is the pool's, and to what is another's.
func (c *loadClient) round() error {
	own := c.pool + ".example"
	if addr, err := c.ask(own); err != nil || addr.String() != c.site(own) {
		return fmt.Errorf("asking for %s: %s, %w", own, addr, err)
	}
	if err := c.get(own); err != nil {
		return fmt.Errorf("connecting to %s: %w", own, err)
	}
	if _, err := c.ask("raw-" + own); err != nil {
		return fmt.Errorf("asking for raw-%s: %w", own, err)
	}
	if err := c.echo(); err != nil {
		return fmt.Errorf("talking to raw-%s: %w", own, err)
	}
	for _, pool := range c.w.pools {
		if other := pool + ".example"; pool != c.pool {
			if addr, err := c.ask(other); !errors.Is(err, errNoSuchName) {
				return fmt.Errorf("%s is answered with %s, %w", other, addr, err)
			}
			if err := c.get(other); err == nil || errTimedOut(err) != nil {
				return fmt.Errorf("%s of another pool: %w", other, err)
			}
		}
	}
	c.rounds++
	return nil
}

// TestGatewayLoad lets 200 runners of three pools press on a gateway: no verdict
// crosses pools, and nothing is left when they are gone.
func TestGatewayLoad(t *testing.T) {
	soak := soakTime(t)
	w := newGatewayWorld(t, "build1", "deploy1", "lint1")
	for i, pool := range w.pools {
		w.tlsHost(61+i, pool+".example")
	}
	w.host(60, func(addr string) *origin { return echoOrigin(t, addr) }, []string{"5432"}, "raw-build.example", "raw-deploy.example", "raw-lint.example")
	d := w.start(loadPools, "\nlimits: {dns_per_client: 100000, connections_per_client: 8192}\n")
	clients := w.loadClients(200)
	for _, c := range clients[:6] { // what is made once, is
		if err := c.round(); err != nil {
			t.Fatalf("%s: %v\n%s", c.self, err, d.dump())
		}
	}
	eventually(t, "the daemon at rest", func() bool { return w.gauge(d, "sallyport_connections_open") == 0 }, d.dump)
	goroutines, descriptors := w.gauge(d, "go_goroutines"), w.gauge(d, "process_open_fds")
	watch := w.watch()

	var failures atomic.Int32
	var running sync.WaitGroup
	end := time.Now().Add(soak)
	for _, c := range clients {
		running.Go(func() {
			for time.Now().Before(end) {
				if err := c.round(); err != nil {
					if failures.Add(1) <= 10 {
						t.Errorf("%s of %s: %v", c.self, c.pool, err)
					}
					return
				}
			}
		})
	}
	running.Wait()
	rounds := 0
	for _, c := range clients {
		if rounds += c.rounds; c.rounds == 0 {
			t.Errorf("%s of %s has done nothing", c.self, c.pool)
		}
	}
	watch.checkNothing(t, "the load")
	w.checkPools(t, d)
	at := func() string {
		return fmt.Sprintf("goroutines: %v, then %v; descriptors: %v, then %v", goroutines, w.gauge(d, "go_goroutines"), descriptors, w.gauge(d, "process_open_fds"))
	}
	eventually(t, "goroutines and descriptors to be as before", func() bool {
		return w.gauge(d, "go_goroutines") <= goroutines+4 && w.gauge(d, "process_open_fds") <= descriptors+4
	}, at)
	t.Logf("%d rounds of %d runners in %s; %s", rounds, len(clients), soak, at())
}

// gauge sums the series of a metric.
func (w *gatewayWorld) gauge(d *daemon, name string) (sum float64) {
	w.t.Helper()
	found := regexp.MustCompile(`(?m)^`+name+`(?:\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(w.metrics(d), -1)
	for _, f := range found {
		value, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			w.t.Fatal(err)
		}
		sum += value
	}
	if len(found) == 0 {
		w.t.Fatalf("no metric %s", name)
	}
	return sum
}

// checkPools holds every event against the pool of its client: only its own
// names were allowed, and by its own interface.
func (w *gatewayWorld) checkPools(t *testing.T, d *daemon) {
	t.Helper()
	wrong := 0
	for _, e := range d.events() {
		if kind := e.text("kind"); kind != "dns" && kind != "conn" || e.text("by") == "proxy" {
			continue
		}
		client := netip.MustParseAddr(e.text("client"))
		name := e.text("host") + e.text("name")
		for i, pool := range w.pools {
			four := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", 20+10*i))
			six := netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::/64", 20+10*i))
			if !four.Contains(client) && !six.Contains(client) {
				continue
			}
			own := name == pool+".example" || name == "raw-"+pool+".example"
			if e.text("pool") != pool || e.text("iface") != "br-"+pool || own != (e.text("verdict") == "allow") {
				if wrong++; wrong <= 10 {
					t.Errorf("a verdict of another pool: %v", e)
				}
			}
		}
	}
}
