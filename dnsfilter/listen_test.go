package dnsfilter_test

import (
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
)

func TestAReplyComesFromTheAddressThatWasAsked(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		w := start(t, poolBuild, zone(t), func(c *dnsfilter.Config) { c.Listeners[0].Addr = listen })
		// A connected socket takes nothing from another address.
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}}
		conn, err := d.Dial("udp", net.JoinHostPort("127.0.0.77", portOf(w)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		c := &dns.Conn{Conn: conn}
		if err := c.WriteMsg(question("allowed.example", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 {
			t.Errorf("at %s: %v, %v", listen, m, err)
		}
	}
}

func portOf(w *world) string {
	_, port, _ := net.SplitHostPort(w.addr.String())
	return port
}

func TestAPoolsOwnListenerIsForThatPool(t *testing.T) {
	w := start(t, "\n  build: {listen: {dns: 127.0.0.1:1}, allow: [allowed.example]}\n", zone(t), func(c *dnsfilter.Config) {
		c.Listeners = []dnsfilter.Listener{{Addr: "127.0.0.1:0"}, {Addr: "127.0.0.1:0", Pool: "build"}}
	})
	if w.ask(question("allowed.example", dns.TypeA)); w.last().Reason != allowlists.NoPool {
		t.Errorf("at the shared listener: %s", w.last().Reason)
	}
	w.addr = w.server.Addrs()[1]
	if got := w.ask(question("allowed.example", dns.TypeA)); len(got.Answer) != 1 || w.last().Subject.Pool != "build" {
		t.Errorf("at the pool's own listener: %v", got)
	}
}

func TestListenBindsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	first := free.LocalAddr().String()
	free.Close()
	s, err := dnsfilter.New(dnsfilter.Config{
		Listeners: []dnsfilter.Listener{{Addr: first}, {Addr: taken.Addr().String()}},
		Policy:    func() *allowlists.Policy { return new(allowlists.Policy) },
		Upstreams: []string{"127.0.0.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Listen(); err == nil {
		t.Fatal("it listens where another does")
	}
	again, err := net.ListenPacket("udp", first)
	if err != nil {
		t.Fatalf("the first listener was left open: %v", err)
	}
	again.Close()
}

func TestNewRefusesWhatItCannotServe(t *testing.T) {
	policy := func() *allowlists.Policy { return new(allowlists.Policy) }
	for rule, cfg := range map[string]dnsfilter.Config{
		"no policy":           {Upstreams: []string{"127.0.0.1"}},
		"no upstream":         {Policy: policy},
		"an unknown reply":    {Policy: policy, Upstreams: []string{"127.0.0.1"}, Blocked: "drop"},
		"a negative number":   {Policy: policy, Upstreams: []string{"127.0.0.1"}, PerClient: -1},
		"a negative duration": {Policy: policy, Upstreams: []string{"127.0.0.1"}, MaxTTL: -time.Second},
	} {
		if s, err := dnsfilter.New(cfg); err == nil {
			s.Close()
			t.Errorf("%s is fine with it", rule)
		}
	}
}
