package proxy_test

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// TestRebindingNeverDials answers with private addresses in every mixture, a
// thousand times, and counts the connections to them.
func TestRebindingNeverDials(t *testing.T) {
	forbidden := newTarget(t, nil)
	w := newWorld(t, pool(rule("bind.example:"+forbidden.port, func(r *allowlists.Rule) { r.ResolvesTo = nil })),
		limits(func(l *allowlists.Limits) { l.DialTimeout = 100 * time.Millisecond }))
	var n int
	var mu sync.Mutex
	w.resolver.lookup = func(allowlists.Host) (allowlists.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		addrs := [][]string{{"127.0.0.1"}, {"::ffff:127.0.0.1"}, {"::1", "127.0.0.2"}, {"0.0.0.0", "127.0.0.1"}, {"64:ff9b::7f00:1"}}[n%5]
		var a allowlists.Answer
		for _, text := range addrs {
			a.Addrs = append(a.Addrs, netip.MustParseAddr(text))
		}
		return a, nil
	}
	for range 1000 {
		c := w.dial()
		if r := c.connect("bind.example:" + forbidden.port); r.code != 403 {
			t.Fatalf("%s", r.line)
		}
		_ = c.Close()
	}
	if n := forbidden.conns.Load(); n != 0 {
		t.Errorf("%d connections to an address nobody allowed", n)
	}
}

// TestNextAddressIsTried answers with addresses of which the last one listens.
func TestNextAddressIsTried(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	w.resolver.lookup = answers(map[string]string{"good.example": "10.9.9.9 127.0.0.2 127.0.0.3 127.0.0.1"})
	began := time.Now()
	c := w.tunnel("good.example:" + tg.port)
	if took := time.Since(began); took > 200*time.Millisecond {
		t.Errorf("a refused address held the next one up: %v", took)
	}
	_ = c.Close()
	if open := w.phase(proxy.PhaseOpen); open.Addr.String() != "127.0.0.1" {
		t.Errorf("dialled %s", open.Addr)
	}
	w.phase(proxy.PhaseClose)
}

// TestSlowAddressIsOvertaken answers with an address that says nothing before
// one that does: RFC 8305 gives the first 250 ms.
func TestSlowAddressIsOvertaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hole, port := blackHole(t, l.Addr().(*net.TCPAddr).Port)
	w := newWorld(t, pool(rule("good.example:"+port)))
	w.resolver.lookup = answers(map[string]string{"good.example": hole + " 127.0.0.1", "hole.example": hole})
	began := time.Now()
	c := w.tunnel("good.example:" + port)
	if took := time.Since(began); took < 240*time.Millisecond || took > 3*time.Second {
		t.Errorf("connected after %v, want a little over 250ms", took)
	}
	_ = c.Close()
	_ = l.Close() // with the connection that nobody took
	w.phase(proxy.PhaseClose)
}

// TestFailedAddressGoesLast has an address fail or hang before one that
// answers, and then lets it answer: for a while the other one stays first.
func TestFailedAddressGoesLast(t *testing.T) {
	for _, fault := range []string{"refuses", "hangs"} {
		t.Run(fault, func(t *testing.T) {
			tg := newTarget(t, nil)
			port, _ := strconv.Atoi(tg.port)
			mend := func() {}
			if fault == "hangs" {
				_, _, mend = blackHoleUntil(t, port)
			}
			w := newWorld(t, pool(rule("good.example:"+tg.port)))
			w.resolver.lookup = answers(map[string]string{"good.example": "127.0.0.7 127.0.0.1"})
			_ = w.tunnel("good.example:" + tg.port).Close()
			first := w.phase(proxy.PhaseClose)
			if first.Addr.String() != "127.0.0.1" {
				t.Fatalf("dialled %s", first.Addr)
			}
			mend()
			l, err := net.Listen("tcp", "127.0.0.7:"+tg.port)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_ = w.tunnel("good.example:" + tg.port).Close()
			second := w.wait("the second close", func(r proxy.ConnRecord) bool { return r.Phase == proxy.PhaseClose && r.ID != first.ID })
			if second.Addr.String() != "127.0.0.1" {
				t.Errorf("dialled %s", second.Addr)
			}
		})
	}
}

// TestDialThatHangsIsTimedOut dials what does not answer.
func TestDialThatHangsIsTimedOut(t *testing.T) {
	hole, port := blackHole(t, 0)
	w := newWorld(t, pool(rule("hole.example:"+port)), limits(func(l *allowlists.Limits) { l.DialTimeout = 200 * time.Millisecond }))
	w.resolver.lookup = answers(map[string]string{"hole.example": hole})
	checkRefusal(t, w, w.dial().connect("hole.example:"+port), 504, "timed-out")
}

// blackHole is a loopback address and port where connections are neither taken
// nor refused: its queue is full. at is the port, 0 for any.
func blackHole(t *testing.T, at int) (addr, port string) {
	t.Helper()
	addr, port, _ = blackHoleUntil(t, at)
	return addr, port
}

// blackHoleUntil is blackHole with what ends it before the test does.
func blackHoleUntil(t *testing.T, at int) (addr, port string, end func()) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { _ = syscall.Close(fd) })
	t.Cleanup(end)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 7}, Port: at}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port = strconv.Itoa(name.(*syscall.SockaddrInet4).Port)
	for range 8 {
		c, err := net.DialTimeout("tcp", "127.0.0.7:"+port, 100*time.Millisecond)
		if err != nil {
			return "127.0.0.7", port, end
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue does not fill")
	return "", "", nil
}
