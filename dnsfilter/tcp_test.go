package dnsfilter_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
	"sallyport/dnsfilter/dnstest"
)

// dial opens a TCP connection from a client address.
func (w *world) dial(client string) net.Conn {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}, Timeout: patience}
	c, err := d.Dial("tcp", w.addr.String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// frame packs a message with its length before it.
func frame(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)
}

// readFrame reads one message.
func readFrame(t testing.TB, c net.Conn) *dns.Msg {
	t.Helper()
	var length uint16
	if err := binary.Read(c, binary.BigEndian, &length); err != nil {
		t.Fatal(err)
	}
	wire := make([]byte, length)
	if _, err := io.ReadFull(c, wire); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestQuestionsOfOneConnectionAreAnsweredSideBySide(t *testing.T) {
	release := make(chan struct{})
	w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
		if strings.HasPrefix(strings.ToLower(q.Question[0].Name), "slow") {
			<-release
		}
		reply(t, []string{"%s 60 IN A 93.184.216.34"})(rw, q)
	})
	c := w.dial("127.0.0.1")
	names := []string{"slow.wild.example.", "a.wild.example.", "denied.example.", "b.wild.example."}
	var all []byte
	for i, name := range names {
		m := question(name, dns.TypeA)
		m.Id = uint16(i)
		all = append(all, frame(t, m)...)
	}
	for _, b := range all { // in as many segments as there are bytes
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range 3 {
		m := readFrame(t, c)
		if names[m.Id] != m.Question[0].Name {
			t.Errorf("the ID of %s came with %s", names[m.Id], m.Question[0].Name)
		}
		got = append(got, m.Question[0].Name)
	}
	if slices.Contains(got, "slow.wild.example.") {
		t.Error("the slow answer came first")
	}
	close(release)
	if m := readFrame(t, c); m.Question[0].Name != "slow.wild.example." || len(m.Answer) != 1 {
		t.Errorf("got %v", m)
	}
}

func TestATooLongMessageEndsItsConnection(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	c := w.dial("127.0.0.1")
	long, _ := question("allowed.example", dns.TypeA).Pack()
	long = append(long, make([]byte, 60000)...)
	go func() { _, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(long))), long...)) }()
	if m := readFrame(t, c); m.Rcode != dns.RcodeFormatError {
		t.Errorf("got %v", m)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on: %v", err)
	}
	if r := w.last(); r.Reason != allowlists.DNSMalformed {
		t.Errorf("recorded %s", r.Reason)
	}
}

func TestConnectionsOfOneClientAreBounded(t *testing.T) {
	w := start(t, poolBuild+"\n  other: {sources: [127.0.0.9/32], allow: [allowed.example]}\n", zone(t))
	var open []net.Conn
	refused := 0
	for range 200 { // loopback clients are one client in one pool
		c := w.dial("127.0.0.1")
		if _, err := c.Write(frame(t, question("denied.example", dns.TypeA))); err != nil {
			refused++
			continue
		}
		var length uint16
		if err := binary.Read(c, binary.BigEndian, &length); err != nil {
			refused++
			continue
		}
		open = append(open, c)
	}
	if len(open) != 128 || refused != 72 {
		t.Errorf("%d connections are open, %d were refused", len(open), refused)
	}
	other := w.dial("127.0.0.9")
	_, _ = other.Write(frame(t, question("allowed.example", dns.TypeA)))
	if m := readFrame(t, other); len(m.Answer) != 1 {
		t.Errorf("another pool got %v", m)
	}
	for _, c := range open {
		c.Close()
	}
}

func TestAPipelineWithoutEndIsWorkedOffInItsBounds(t *testing.T) {
	w := start(t, poolBuild, zone(t))
	c := w.dial("127.0.0.1")
	go func() {
		for i := range 2000 {
			if _, err := c.Write(frame(t, question(fmt.Sprintf("x%d.denied.example", i), dns.TypeA))); err != nil {
				return
			}
		}
	}()
	for range 2000 {
		if m := readFrame(t, c); m.Rcode != dns.RcodeNameError {
			t.Fatalf("got %v", m)
		}
	}
	if w.count() != 2000 {
		t.Errorf("%d records", w.count())
	}
}

func TestServeAnswersWhatItHasBeforeItReturns(t *testing.T) {
	release := make(chan struct{})
	w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
		<-release
		reply(t, []string{"%s 60 IN A 93.184.216.34"})(rw, q)
	})
	tcp := w.dial("127.0.0.1")
	_, _ = tcp.Write(frame(t, question("a.wild.example", dns.TypeA)))
	udp, err := net.Dial("udp", w.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	wire, _ := question("b.wild.example", dns.TypeA).Pack()
	_, _ = udp.Write(wire)
	w.upstream.Await(func(s *dnstest.Server) bool { return s.Packets() == 2 })
	w.stop()
	close(release)
	if m := readFrame(t, tcp); len(m.Answer) != 1 {
		t.Errorf("over TCP: %v", m)
	}
	_ = udp.SetReadDeadline(time.Now().Add(patience))
	if n, err := udp.Read(make([]byte, 512)); err != nil || n < len(wire) {
		t.Errorf("over UDP: %d bytes, %v", n, err)
	}
}
