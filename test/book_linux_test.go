package test

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// A job that has looked a name up goes on connecting to its address when the
// gateway was killed and came back, where nothing but the book knows the name.
func TestRedirectedConnectionsGoOnAfterKill(t *testing.T) {
	w := newGatewayWorld(t, "build1", "deploy1")
	site := w.host(54, func(addr string) *origin { return echoOrigin(t, addr) }, []string{"5432"}, "db.example")
	d := w.start(buildPools, "")
	r := w.runners["build1"]
	conn, err := r.dial("udp", net.JoinHostPort(r.gate, "53"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if reply, _, err := new(dns.Client).ExchangeWithConn(new(dns.Msg).SetQuestion("db.example.", dns.TypeA), &dns.Conn{Conn: conn}); err != nil || len(reply.Answer) != 1 {
		t.Fatalf("%v, %v", reply, err)
	}
	book := d.path("state/book.jsonl")
	eventually(t, "the answer in the file", func() bool {
		raw, _ := os.ReadFile(book)
		return strings.Contains(string(raw), "db.example")
	}, d.dump)
	// echoes reports whether a connection to the address gets through.
	echoes := func() bool {
		conn, err := r.dial("tcp", net.JoinHostPort(site.ip, "5432"), "")
		if err != nil {
			return false
		}
		defer conn.Close()
		answer := make([]byte, 2)
		_, _ = io.WriteString(conn, "hi")
		_, err = io.ReadFull(conn, answer)
		return err == nil && string(answer) == "hi"
	}
	d.kill()
	d.run()
	if !echoes() {
		t.Errorf("after kill -9 the address is unknown\n%s", d.dump())
	}
	d.kill()
	if err := os.Remove(book); err != nil {
		t.Fatal(err)
	}
	d.run()
	if echoes() {
		t.Error("an address that nobody knows was reached")
	}
	d.wait("the refusal", func(e event) bool {
		return e.text("reason") == "address-mismatch" && e.text("phase") == "refused" && e.text("ip") == site.ip
	})
}
