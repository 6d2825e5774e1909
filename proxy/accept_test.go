package proxy_test

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// firstLine closes a channel at the first line that is logged.
type firstLine struct {
	once sync.Once
	seen chan struct{}
}

func (f *firstLine) Write(p []byte) (int, error) {
	f.once.Do(func() { close(f.seen) })
	return len(p), nil
}

// TestAcceptLoopOutlivesFullTables lets the process run out of descriptors
// while a client waits, and then have some again.
func TestAcceptLoopOutlivesFullTables(t *testing.T) {
	logged := &firstLine{seen: make(chan struct{})}
	w := newWorld(t, pool(), func(cfg *proxy.Config) { cfg.Log = zerolog.New(logged) })
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	none := before
	none.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	port := w.server.Addrs()[0].Port()
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(port)})
	select {
	case <-logged.seen:
	case <-time.After(patience):
		t.Error("no failure to accept is logged")
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "client")
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x.example\r\n\r\n")
	if n, err := conn.Read(make([]byte, 100)); n == 0 {
		t.Errorf("the client that waited was not served: %v", err)
	}
}

// TestFloodOverTheLimitIsTold sends more connections over a limit than are
// heard out at once: each has its record, and none hangs.
func TestFloodOverTheLimitIsTold(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)), limits(func(l *allowlists.Limits) { l.ConnectionsPerClient = 1 }))
	w.tunnel("good.example:" + tg.port)
	conns := make([]*client, 200)
	for i := range conns {
		conns[i] = w.dial() // says nothing
	}
	for _, c := range conns {
		if _, err := io.ReadAll(c); !ended(err) && err != nil {
			t.Fatalf("a connection over the limit hangs: %v", err)
		}
	}
	n := 0
	for _, r := range w.all() {
		if r.Decision.Reason == allowlists.LimitExceeded {
			n++
		}
	}
	if n != len(conns) {
		t.Errorf("%d records of %d refusals", n, len(conns))
	}
	w.checkOpenOnly(1)
}

// checkOpenOnly expects that nothing but n tunnels was opened.
func (w *world) checkOpenOnly(n int) {
	w.t.Helper()
	for _, r := range w.all() {
		if r.Phase == proxy.PhaseOpen {
			n--
		}
	}
	if n != 0 {
		w.t.Errorf("%d opened too few%s", n, w.dump())
	}
}
