package dnsfilter

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/ipv4"
)

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
	b, client := &bound{udp: listen(), replies: make(chan ipv4.Message, udpBatch)}, listen()
	for _, text := range []string{"", "one", "", "two", "three", ""} {
		to := client.LocalAddr().(*net.UDPAddr)
		if text == "" {
			to, text = &net.UDPAddr{IP: to.IP}, "lost"
		}
		b.replies <- ipv4.Message{Buffers: [][]byte{[]byte(text)}, Addr: to}
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

// TestNobodyWaitsForPacketsThatDoNotCome asks, and then nothing for a while.
func TestNobodyWaitsForPacketsThatDoNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{idle: make(chan packet)}
		ctx, end := context.WithCancel(t.Context())
		go s.restPackets(ctx)
		for range 3 {
			s.idlers.Add(1)
			go func() {
				if p := <-s.idle; p.bound == nil {
					s.idlers.Add(-1)
				}
			}()
		}
		s.taken.Store(true)
		time.Sleep(packetRest + time.Second)
		if n := s.idlers.Load(); n != 3 {
			t.Errorf("%d wait, though packets came", n)
		}
		time.Sleep(packetRest)
		if n := s.idlers.Load(); n != 0 {
			t.Errorf("%d wait", n)
		}
		end()
	})
}
