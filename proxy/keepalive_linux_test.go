package proxy

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// keptAlive reads what the kernel has of keep-alive on a connection: whether,
// and the seconds to the first probe and between them, and how many.
func keptAlive(t *testing.T, conn net.Conn) (values [4]int) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for i, o := range [4][2]int{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
		} {
			if values[i], err = unix.GetsockoptInt(int(fd), o[0], o[1]); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// TestBothEndsAreKeptAlive: a client from the moment it is accepted, an upstream,
// of a tunnel or an upgraded connection, once its relay is keepAliveAfter old.
func TestBothEndsAreKeptAlive(t *testing.T) {
	want := [4]int{1, 30, 15, 4}
	config := net.ListenConfig{}
	listenKeepingAlive(&config)
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialer := net.Dialer{KeepAlive: -1}
	for rule, wrap := range map[string]func(net.Conn) net.Conn{
		"a tunnel":               func(c net.Conn) net.Conn { return c },
		"an upgraded connection": func(c net.Conn) net.Conn { return &switchedConn{Conn: &upstreamConn{Conn: c}} },
	} {
		upstream, err := dialer.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer upstream.Close()
		client, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if got := keptAlive(t, client); got != want {
			t.Errorf("%s: the client's end has %v, want %v", rule, got, want)
		}
		r := &relay{client: client, upstream: wrap(upstream), idle: time.Hour}
		r.begin()
		if wait := r.wait(time.Now()); wait > keepAliveAfter {
			t.Errorf("%s: nothing is looked at for %s", rule, wait)
		}
		r.look()
		if got := keptAlive(t, upstream); got[0] != 0 {
			t.Errorf("%s: the upstream is kept alive from the start", rule)
		}
		r.alive = time.Now()
		r.look()
		if got := keptAlive(t, upstream); got != want {
			t.Errorf("%s: the upstream has %v, want %v", rule, got, want)
		}
		if wait := r.wait(time.Now()); wait < 59*time.Minute {
			t.Errorf("%s: it is looked at again after %s", rule, wait)
		}
		r.end()
	}
}
