package dnsfilter_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/dnsfilter"
)

// TestRefusalsThatWaitForTheLogStarveNobodyElse holds up the lines of one pool's
// refusals while its clients ask on and on. The other pool's questions, those
// that a reply is ready for and those that go upstream, are answered after each
// volley; what the first pool may not have worked on is dropped and counted.
func TestRefusalsThatWaitForTheLogStarveNobodyElse(t *testing.T) {
	const clients, volleys, volley = 6, 240, 48
	release, registry := make(chan struct{}), prometheus.NewRegistry()
	var held atomic.Int32
	w := start(t, poolBuild+`
  noisy:
    sources: [10.77.0.0/16]
    allow: [other.example]
`, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 300 IN A 93.184.216.34")
		m.Answer = append(m.Answer, rr)
		_ = w.WriteMsg(m)
	}, func(c *dnsfilter.Config) {
		c.Metrics = registry
		c.Client = func(addr netip.Addr) netip.Addr {
			if four := addr.As4(); four[1] == 77 { // loopback addresses would be one client
				return netip.AddrFrom4([4]byte{10, 77, four[2], four[3]})
			}
			return addr
		}
		observe := c.Observe
		c.Observe = func(r dnsfilter.QueryRecord) {
			if r.Subject.Pool == "noisy" {
				held.Add(1)
				<-release
			}
			observe(r)
		}
	})
	defer close(release)
	var noisy []*net.UDPConn
	for i := range byte(clients) {
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 77, 0, 1+i)}, net.UDPAddrFromAddrPort(w.addr))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		noisy = append(noisy, conn)
	}
	for v := range volleys {
		for i := range volley {
			wire, _ := question(fmt.Sprintf("n%d-%d.refused.test", v, i), dns.TypeA).Pack()
			if _, err := noisy[i%clients].Write(wire); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"allowed.example", fmt.Sprintf("v%d.wild.example", v)} {
			if m := w.ask(question(name, dns.TypeA)); len(m.Answer) != 1 {
				t.Fatalf("after %d of the other pool's questions: %v", (v+1)*volley, m)
			}
		}
	}
	dropped := "# HELP sallyport_dns_dropped_total DNS questions over UDP dropped unread, as their pool or client had its share worked on.\n" +
		"# TYPE sallyport_dns_dropped_total counter\n" +
		"sallyport_dns_dropped_total{pool=\"build\"} 0\n" +
		fmt.Sprintf("sallyport_dns_dropped_total{pool=\"noisy\"} %d\n", volleys*volley-4096)
	if got := held.Load(); got != 4096 {
		t.Errorf("%d questions of one pool are worked on", got)
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(dropped), "sallyport_dns_dropped_total"); err != nil {
		t.Error(err)
	}
}
