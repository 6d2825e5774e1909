package dnsfilter

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/dnsfilter/dnstest"
)

func TestStreamIsSharedAndPipelined(t *testing.T) {
	noLeaks(t)
	zone := dnstest.Zone(t, testAnswer)
	server := dnstest.NewServer(t, zone)
	u := asking(t, upstreamConfig{}, "tcp://"+server.Addr().String())
	wantAddr(t, u)
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() { wantAddr(t, u) })
	}
	wg.Wait()
	if n := server.Packets(); n > maxStreams {
		t.Errorf("%d connections, at most %d are allowed", n, maxStreams)
	}
}

func TestQuestionsDoNotWaitForEachOther(t *testing.T) {
	noLeaks(t)
	u := asking(t, upstreamConfig{}, "tcp://"+outOfOrderServer(t))
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			reply, _, err := ask(t, u, fmt.Sprintf("n%d.example", i))
			if err != nil || reply.Rcode != dns.RcodeSuccess {
				t.Errorf("got %v, %v", reply, err)
			}
		})
	}
	wg.Wait()
}

// outOfOrderServer answers the second question of a connection before the first,
// after a message that answers neither.
func outOfOrderServer(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-done })
	go func() {
		defer close(done)
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		defer raw.Close()
		conn := &dns.Conn{Conn: raw}
		first, err1 := conn.ReadMsg()
		second, err2 := conn.ReadMsg()
		if err1 != nil || err2 != nil {
			return
		}
		stray := new(dns.Msg).SetRcode(first, dns.RcodeNameError)
		stray.Question[0].Name = "forged.example."
		for _, reply := range []*dns.Msg{stray, new(dns.Msg).SetReply(second), new(dns.Msg).SetReply(first)} {
			_ = conn.WriteMsg(reply)
		}
	}()
	return listener.Addr().String()
}

func TestBrokenConnectionIsRetriedOnce(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewTLSServer(t, dnstest.Zone(t, testAnswer), "127.0.0.1")
	u := asking(t, upstreamConfig{RootCAs: server.Roots(), Timeout: 5 * time.Second}, "tls://"+server.Addr().String())
	for range 5 {
		wantAddr(t, u)
		server.CloseConns()
	}
	wantAddr(t, u)
	if s := u.status()[0]; s.LastError != "" {
		t.Errorf("the upstream is blamed for closing an idle connection: %s", s.LastError)
	}
}

func TestServerThatHangsUpAfterEachAnswer(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{HangUp: true})
	u := asking(t, upstreamConfig{}, "tcp://"+server.Addr().String())
	for range 20 {
		wantAddr(t, u)
	}
}

func TestDeadConnectionIsGivenUp(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	u := asking(t, upstreamConfig{Timeout: 400 * time.Millisecond}, "tcp://"+server.Addr().String())
	wantAddr(t, u)
	server.SetFaults(dnstest.Faults{Silent: true})
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Await(func(s *dnstest.Server) bool { return len(s.Queries()) == 2 })
		server.SetFaults(dnstest.Faults{})
	}()
	wantAddr(t, u)
	<-done
	if n := server.Packets(); n != 2 {
		t.Errorf("%d connections, want a second one in place of the dead", n)
	}
	if s := u.status()[0]; s.LastError != "" {
		t.Errorf("the second came too late for the attempt: %s", s.LastError)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	noLeaks(t)
	transport := newStreamTransport(func(ctx context.Context) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}, time.Hour)
	defer transport.close()
	for range 3 * maxStreams {
		if s, err := transport.pick(true); s == nil || err != nil {
			t.Fatalf("got %v, %v", s, err)
		}
	}
	transport.mu.Lock()
	defer transport.mu.Unlock()
	if n := len(transport.streams); n != maxStreams {
		t.Errorf("%d connections, want %d", n, maxStreams)
	}
}

func TestEndOfAWaitLeavesTheNextOneAlone(t *testing.T) {
	q, err := newQuestion("www.example", dns.TypeA, queryFlags{})
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(nil, false)
	id, first, err := s.enlist(q)
	if err != nil {
		t.Fatal(err)
	}
	answer := append([]byte(nil), first.query...)
	answer[2] |= replyBit
	if !s.deliver(answer) || s.deliver(answer) || s.load() != 0 {
		t.Fatal("an answer ends one wait")
	}
	s.waiting[id] = &call{}
	s.delist(id, first)
	if s.load() != 1 {
		t.Error("the wait of another question with the same ID is over")
	}
}

func TestTLSNameIsPinned(t *testing.T) {
	for name, suffix := range map[string]string{
		"a certificate for another name is refused":          "#other.example",
		"a certificate without the address is refused":       "",
		"a certificate by an unknown authority is refused":   "#dns.example",
		"a certificate for a name below the pin is no match": "#example",
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			server := dnstest.NewTLSServer(t, dnstest.Zone(t, testAnswer), "dns.example")
			cfg := upstreamConfig{RootCAs: server.Roots()}
			if strings.Contains(name, "unknown") {
				cfg.RootCAs = dnstest.NewTLSServer(t, nil, "dns.example").Roots()
			}
			u := asking(t, cfg, "tls://"+server.Addr().String()+suffix)
			if _, _, err := ask(t, u, "www.example"); err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("got %v", err)
			}
			if n := len(server.Queries()); n != 0 {
				t.Errorf("%d questions reached the impostor", n)
			}
		})
	}
}
