package test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ownAddresses is how many addresses the greedy runner takes.
const ownAddresses = 200

// A runner that takes 200 addresses of both families counts as one client, and
// the one beside it does not suffer.
func TestManyAddressesAreOneClient(t *testing.T) {
	gateway, greedy, modest := newSpace(t, "gateway"), newSpace(t, "greedy"), newSpace(t, "modest")
	gateway.ip("link", "add", "br-build", "type", "bridge")
	gateway.ip("link", "set", "br-build", "up")
	gateway.address("br-build", "10.20.0.1/24", "fd00:20::1/64")
	for port, s := range map[string]*space{"greedy": greedy, "modest": modest} {
		wire(gateway, port, s, "eth0")
		gateway.ip("link", "set", port, "master", "br-build")
	}
	modest.address("eth0", "10.20.0.250/24")
	var sockets []net.Conn
	open := func(s *space, to, from string) net.Conn {
		conn, err := s.dial("udp", net.JoinHostPort(to, "53"), from)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for i := range ownAddresses / 2 {
		four, six := fmt.Sprintf("10.20.0.%d", i+2), fmt.Sprintf("fd00:20::%d", i+2)
		greedy.address("eth0", four+"/24", six+"/64")
		sockets = append(sockets, open(greedy, "10.20.0.1", four), open(greedy, "fd00:20::1", six))
	}
	other := open(modest, "10.20.0.1", "10.20.0.250")

	d := prepare(t, config{prefix: gateway.through(), rest: "limits: {dns_per_client: 100}"})
	d.admin = "127.0.0.1:9180"
	d.listen = `{dns: ["10.20.0.1:53", "[fd00:20::1]:53"], admin: "127.0.0.1:9180"}`
	d.write("192.0.2.1", `  build: {sources: [10.20.0.0/24, "fd00:20::/64"], interfaces: [br-build], allow: [a.example]}`)
	d.run()

	question, err := new(dns.Msg).SetQuestion("denied.example.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	// round asks once by each socket and counts the questions over the limit.
	round := func(all ...net.Conn) (over int) {
		for _, conn := range all {
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.Write(question); err != nil {
				t.Fatal(err)
			}
		}
		for _, conn := range all {
			raw := make([]byte, 512)
			n, err := conn.Read(raw)
			reply := new(dns.Msg)
			if err != nil || reply.Unpack(raw[:n]) != nil {
				t.Fatalf("no reply to %s: %v", conn.LocalAddr(), err)
			}
			if reply.Rcode == dns.RcodeRefused {
				over++
			}
		}
		return over
	}
	var over int
	// The kernel has to learn the neighbours, and the daemon reads of them once a
	// second.
	eventually(t, "the limit of one client", func() bool {
		over = round(sockets...)
		return over >= ownAddresses/4
	}, func() string { return fmt.Sprintf("%d of %d over the limit\n%s", over, ownAddresses, d.dump()) })
	if round(other) > 0 {
		t.Error("the limit of another runner was reached, too")
	}
	clients := map[string]bool{}
	for _, e := range d.events() {
		if e.text("reason") == "limit-exceeded" {
			clients[e.text("client")] = true
		}
	}
	if len(clients) < ownAddresses/4 || clients["10.20.0.250"] {
		t.Errorf("the events name %d clients", len(clients))
	}
}
