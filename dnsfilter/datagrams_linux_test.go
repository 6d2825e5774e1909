package dnsfilter

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// peer4 is an IPv4 address as the kernel has it.
func peer4(addr netip.AddrPort) peer {
	p := peer{n: unix.SizeofSockaddrInet4}
	binary.NativeEndian.PutUint16(p.raw[:], unix.AF_INET)
	binary.BigEndian.PutUint16(p.raw[2:], addr.Port())
	copy(p.raw[4:], addr.Addr().Unmap().AsSlice())
	return p
}

// TestAReplyThatCannotBeSentTakesNoOtherWithIt puts one to port 0, which the
// kernel refuses, first, in the middle and last.
func TestAReplyThatCannotBeSentTakesNoOtherWithIt(t *testing.T) {
	listen := func() *net.UDPConn {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	b, client := &bound{udp: listen(), replies: make(chan datagram, udpBatch)}, listen()
	for _, text := range []string{"", "one", "", "two", "three", ""} {
		to := client.LocalAddr().(*net.UDPAddr)
		if text == "" {
			to, text = &net.UDPAddr{IP: to.IP}, "lost"
		}
		b.replies <- datagram{bytes: []byte(text), peer: peer4(to.AddrPort())}
	}
	close(b.replies)
	b.sendReplies()
	_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
	for _, want := range []string{"one", "two", "three"} {
		got := make([]byte, 16)
		n, err := client.Read(got)
		if err != nil || string(got[:n]) != want {
			t.Fatalf("got %q %v, want %q", got[:n], err, want)
		}
	}
}

// TestDatagramsComeAndGoWhole sends more than a batch through a socket of either
// kind, of every length from nothing to more than there is room for.
func TestDatagramsComeAndGoWhole(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		conn, err := net.ListenPacket("udp", listen)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		to := conn.LocalAddr().(*net.UDPAddr)
		if to.IP.IsUnspecified() {
			to.IP = net.IPv4(127, 0, 0, 1)
		}
		client, err := net.DialUDP("udp", nil, to)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		io, err := newDatagramIO(conn.(*net.UDPConn))
		if err != nil {
			t.Fatal(err)
		}
		const room = 40
		var sent, back []string
		for i := range 100 {
			sent = append(sent, string(bytes.Repeat([]byte{byte(i)}, i%50)))
			if _, err := client.Write([]byte(sent[i])); err != nil {
				t.Fatal(err)
			}
		}
		for n := 0; n < len(sent); {
			batch := make([]datagram, udpBatch)
			for i := range batch {
				batch[i].bytes = make([]byte, room)
			}
			k, err := io.read(batch)
			if err != nil {
				t.Fatal(err)
			}
			for i := range batch[:k] {
				if from := plain(batch[i].peer.addrPort()); from != plain(client.LocalAddr().(*net.UDPAddr).AddrPort()) {
					t.Fatalf("%s: packet %d is from %s", listen, n+i, from)
				}
				if batch[i].bytes = batch[i].bytes[:batch[i].n]; string(batch[i].bytes) != sent[n+i][:min(room, len(sent[n+i]))] {
					t.Fatalf("%s: packet %d is %x", listen, n+i, batch[i].bytes)
				}
			}
			n += k
			io.write(batch[:k])
		}
		_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
		for i := range sent {
			got := make([]byte, 64)
			n, err := client.Read(got)
			if back = append(back, string(got[:n])); err != nil || back[i] != sent[i][:min(room, len(sent[i]))] {
				t.Fatalf("%s: %d came back as %x, %v", listen, i, got[:n], err)
			}
		}
	}
}
