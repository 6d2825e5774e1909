package dnsfilter_test

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/dnsfilter"
)

// TestManyAtOnceGetTheirOwnAnswers has forty clients ask at once, by both
// families, at an address and at the wildcard, and some of them gone by the
// time of their reply: each gets the answer to its own question, from where it
// asked, and nobody else's failure takes it away.
func TestManyAtOnceGetTheirOwnAnswers(t *testing.T) {
	const clients, rounds = 40, 50
	for _, at := range []struct{ listen, ask string }{
		{"127.0.0.1:0", "127.0.0.1"}, {"[::1]:0", "::1"}, {"[::]:0", "127.0.0.2"}, {"[::]:0", "::1"}, {"0.0.0.0:0", "127.0.0.3"},
	} {
		t.Run(at.listen+" asked at "+at.ask, func(t *testing.T) {
			w := start(t, "\n  build: {sources: [127.0.0.0/8, \"::1/128\"], allow: [allowed.example]}\n", func(w dns.ResponseWriter, q *dns.Msg) {
				m := new(dns.Msg).SetReply(q)
				if q.Question[0].Qtype == dns.TypeA {
					rr, _ := dns.NewRR(q.Question[0].Name + " 300 IN A 93.184.216.34")
					m.Answer = append(m.Answer, rr)
				}
				_ = w.WriteMsg(m)
			}, func(c *dnsfilter.Config) { c.Listeners = []dnsfilter.Listener{{Addr: at.listen}} })
			to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(at.ask), w.addr.Port()))
			var all sync.WaitGroup
			for c := range clients {
				all.Go(func() {
					for i := range rounds {
						if err := askOwn(to, c, i); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}

// askOwn asks one question; every fifth client does not wait for the answer.
func askOwn(to *net.UDPAddr, client, i int) error {
	conn, err := net.DialUDP("udp", nil, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	name, rcode := "allowed.example.", dns.RcodeSuccess
	if (client+i)%2 == 1 {
		name, rcode = fmt.Sprintf("n%d-%d.refused.example.", client, i), dns.RcodeNameError
	}
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	q.Id = uint16(client<<8 | i)
	raw, err := q.Pack()
	if err != nil {
		return err
	}
	if _, err := conn.Write(raw); err != nil || client%5 == 0 {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	reply := make([]byte, 4096)
	var m dns.Msg
	for m.Id>>8%5 == 0 { // a late one for a client that is gone, and had this port
		n, err := conn.Read(reply) // a connected socket takes a reply from where it asked only
		if err != nil {
			return fmt.Errorf("client %d, question %d: %w", client, i, err)
		}
		if err := m.Unpack(reply[:n]); err != nil {
			return err
		}
	}
	if m.Id != q.Id || m.Rcode != rcode || len(m.Question) != 1 || m.Question[0].Name != name {
		return fmt.Errorf("client %d, question %d got %v", client, i, m.String())
	}
	return nil
}
