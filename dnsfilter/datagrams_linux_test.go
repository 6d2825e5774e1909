package dnsfilter

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
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
	b, client := &bound{udp: listen4(t), replies: make(chan datagram, udpBatch)}, listen4(t)
	for _, text := range []string{"", "one", "", "two", "three", ""} {
		to := client.LocalAddr().(*net.UDPAddr)
		if text == "" {
			to, text = &net.UDPAddr{IP: to.IP}, "lost"
		}
		b.replies <- datagram{bytes: []byte(text), peer: peer4(to.AddrPort())}
	}
	close(b.replies)
	b.sendReplies()
	expectPackets(t, client, "one", "two", "three")
}

// expectPackets reads packets, which may come in any order.
func expectPackets(t *testing.T, client *net.UDPConn, want ...string) {
	t.Helper()
	_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
	var got []string
	for buffer := make([]byte, 4096); len(got) < len(want); {
		n, err := client.Read(buffer)
		if err != nil {
			t.Fatalf("after %d of %d packets: %v", len(got), len(want), err)
		}
		got = append(got, string(buffer[:n]))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// repliesTo are packets of many lengths to peers in turn.
func repliesTo(peers ...*net.UDPConn) (batch []datagram, want [][]string) {
	want = make([][]string, len(peers))
	for i := range udpBatch {
		to, text := i%len(peers), strings.Repeat(string(rune('a'+i)), i/4%5)
		want[to] = append(want[to], text)
		batch = append(batch, datagram{bytes: []byte(text), peer: peer4(peers[to].LocalAddr().(*net.UDPAddr).AddrPort())})
	}
	return batch, want
}

// listen4 is a socket on loopback that the test closes.
func listen4(t *testing.T) *net.UDPConn {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestRepliesToOnePeerGoTogetherAndComeApart(t *testing.T) {
	one, other := listen4(t), listen4(t)
	io, err := newDatagramIO(listen4(t))
	if err != nil {
		t.Fatal(err)
	}
	batch, want := repliesTo(one, other)
	io.write(batch)
	expectPackets(t, one, want[0]...)
	expectPackets(t, other, want[1]...)
	if headers := len(io.gather(batch)); io.segments && headers != 16 { // 4 and 4 empty ones for each
		t.Errorf("%d packets went as %d, want 16", len(batch), headers)
	}
	io.segments = false
	if headers := len(io.gather(batch)); headers != len(batch) {
		t.Errorf("without UDP_SEGMENT %d packets went as %d", len(batch), headers)
	}
}

// TestRepliesThatCannotGoTogetherGoOneByOne uses a socket without checksums,
// for which the kernel refuses to cut packets apart.
func TestRepliesThatCannotGoTogetherGoOneByOne(t *testing.T) {
	server, one, other := listen4(t), listen4(t), listen4(t)
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	io, err := newDatagramIO(server)
	if err != nil {
		t.Fatal(err)
	}
	batch, want := repliesTo(one, other)
	io.write(batch)
	expectPackets(t, one, want[0]...)
	expectPackets(t, other, want[1]...)
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
		var sent []string
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
		for i := range sent {
			sent[i] = sent[i][:min(room, len(sent[i]))]
		}
		expectPackets(t, client, sent...)
	}
}

// TestRepliesTogetherComeFromWhereEachQuestionWent asks one socket at two of its
// addresses in turn.
func TestRepliesTogetherComeFromWhereEachQuestionWent(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		conn, err := net.ListenPacket("udp", listen)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		server, client := conn.(*net.UDPConn), listen4(t)
		if err := wantDestination(server); err != nil {
			t.Fatal(err)
		}
		at := plain(server.LocalAddr().(*net.UDPAddr).AddrPort())
		addrs := []string{"127.0.0.1", "127.0.0.2"}
		const asked = 12
		for i := range asked {
			to := netip.AddrPortFrom(netip.MustParseAddr(addrs[i%2]), at.Port())
			if _, err := client.WriteToUDPAddrPort([]byte(addrs[i%2]), to); err != nil {
				t.Fatal(err)
			}
		}
		io, err := newDatagramIO(server)
		if err != nil {
			t.Fatal(err)
		}
		var all []datagram
		for len(all) < asked {
			batch := make([]datagram, udpBatch)
			for i := range batch {
				batch[i].bytes, batch[i].control = make([]byte, 64), make([]byte, oobSize)
			}
			n, err := io.read(batch)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range batch[:n] {
				_, reply := destination(g.control[:g.controls], at)
				all = append(all, datagram{bytes: g.bytes[:g.n], control: reply, peer: g.peer})
			}
		}
		if headers := len(io.gather(all)); io.segments && headers != 2 {
			t.Errorf("%s: %d replies went as %d", listen, len(all), headers)
		}
		io.write(all)
		_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
		for range asked {
			got := make([]byte, 64)
			n, from, err := client.ReadFromUDPAddrPort(got)
			if err != nil || string(got[:n]) != from.Addr().String() {
				t.Fatalf("%s: the reply of %s comes from %v, %v", listen, got[:n], from, err)
			}
		}
	}
}
