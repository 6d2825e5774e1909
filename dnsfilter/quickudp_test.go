package dnsfilter_test

import (
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/dnsfilter"
)

// TestAQuickRefusalWaitsForItsLineAndKeepsNobody holds up whoever writes the
// lines of refusals. Their replies wait for them; answers go on; and refusals
// beyond maxRefusing batches go by the slow way, each waiting for its own line.
func TestAQuickRefusalWaitsForItsLineAndKeepsNobody(t *testing.T) {
	writing, release := make(chan int, 1000), make(chan struct{})
	w := start(t, poolBuild, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 300 IN A 93.184.216.34")
		m.Answer = append(m.Answer, rr)
		_ = w.WriteMsg(m)
	}, func(c *dnsfilter.Config) {
		c.ObserveRefused = func(all []dnsfilter.QueryRecord) {
			writing <- len(all)
			<-release
		}
	})
	for range 2 {
		w.ask(question("allowed.example", dns.TypeA))
	}
	w.ask(question("denied.example", dns.TypeA)) // a reply is ready now
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, net.UDPAddrFromAddrPort(w.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	send := func(name string, id uint16) {
		m := question(name, dns.TypeA)
		m.Id = id
		wire, _ := m.Pack()
		if _, err := conn.Write(wire); err != nil {
			t.Fatal(err)
		}
	}
	receive := func() uint16 {
		reply := make([]byte, 512)
		n, err := conn.Read(reply)
		var m dns.Msg
		if err == nil {
			err = m.Unpack(reply[:n])
		}
		if err != nil {
			t.Fatal(err)
		}
		return m.Id
	}
	send("denied.example", 1)
	<-writing
	send("allowed.example", 2)
	if id := receive(); id != 2 {
		t.Fatalf("reply %d came before the line of the refusal was written", id)
	}
	slow := 0
	const refusals = 30
	for i := range uint16(refusals) {
		send("denied.example", 100+i)
		send("allowed.example", 200+i)
		for receive() != 200+i {
			slow++
		}
	}
	if slow == 0 {
		t.Error("refusals wait for others' lines without a bound")
	}
	close(release)
	for range 1 + refusals - slow {
		receive()
	}
}
