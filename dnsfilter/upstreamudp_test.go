package dnsfilter

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/dnsfilter/dnstest"
)

func TestForgeriesAreIgnoredAndTheWaitGoesOn(t *testing.T) {
	for name, decoy := range map[string]dnstest.Decoy{
		"another ID":       dnstest.WrongID,
		"another name":     dnstest.WrongName,
		"another type":     dnstest.WrongType,
		"a query":          dnstest.NotAnAnswer,
		"another opcode":   dnstest.OtherOpcode,
		"no question":      dnstest.NoQuestion,
		"another source":   dnstest.WrongSource,
		"case not echoed":  func(m *dns.Msg) { m.Question[0].Name = strings.ToUpper(m.Question[0].Name) },
		"another class":    func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"two questions":    func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"a name below it":  func(m *dns.Msg) { m.Question[0].Name = "a." + m.Question[0].Name },
		"nothing but junk": func(m *dns.Msg) { *m = dns.Msg{} },
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
			server.SetFaults(dnstest.Faults{Decoys: []dnstest.Decoy{decoy, decoy, decoy}})
			wantAddr(t, asking(t, upstreamConfig{}, server.Addr().String()))
			if n := server.Packets(); n != 1 {
				t.Errorf("asked %d times; the true answer came after the forged ones", n)
			}
		})
	}
}

func TestLostDatagramIsSentAgain(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{Drop: 2})
	wantAddr(t, asking(t, upstreamConfig{}, server.Addr().String()))
	if n := server.Packets(); n != 3 {
		t.Errorf("sent %d datagrams, want 3", n)
	}
}

func TestTruncatedAnswerIsAskedForOverTCP(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{Truncate: true})
	u := asking(t, upstreamConfig{}, server.Addr().String())
	wantAddr(t, u)
	wantAddr(t, u)
	var protos []string
	for _, query := range server.Received() {
		protos = append(protos, query.Proto)
	}
	if got := strings.Join(protos, " "); got != "udp tcp udp tcp" {
		t.Errorf("asked over %s", got)
	}
	if n := server.Packets(); n != 3 {
		t.Errorf("%d datagrams and connections, want two and one", n)
	}
}

func TestUpstreamThatLosesCaseIsRemembered(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{LoseCase: true})
	u := asking(t, upstreamConfig{}, server.Addr().String())
	const name = "a-name-with-enough-letters-never-to-come-out-in-lower-case.example"
	for want := 2; want < 6; want++ { // two for the first, one for each after it
		reply, _, err := ask(t, u, name)
		if err != nil || reply.Rcode != dns.RcodeNameError {
			t.Fatalf("got %v, %v", reply, err)
		}
		if n := server.Packets(); n != want {
			t.Fatalf("%d datagrams, want %d", n, want)
		}
	}
	server.SetFaults(dnstest.Faults{})
	udp := u.list[0].transport.(*udpTransport)
	if till := time.Unix(0, udp.lowerTill.Load()); time.Until(till) > caseMemory {
		t.Errorf("remembered until %v", till)
	}
	udp.lowerTill.Store(time.Now().UnixNano())
	if _, _, err := ask(t, u, name); err != nil {
		t.Fatal(err)
	}
	queries := server.Queries()
	if got := queries[len(queries)-1].Name; got == strings.ToLower(got) {
		t.Errorf("asked for %q; the memory is over", got)
	}
}

func TestUpstreamThatAnswersInItsOwnCase(t *testing.T) {
	noLeaks(t)
	zone := dnstest.Zone(t, testAnswer)
	server := dnstest.NewServer(t, func(w dns.ResponseWriter, query *dns.Msg) {
		query.Question[0].Name = strings.ToUpper(query.Question[0].Name)
		zone(w, query)
	})
	wantAddr(t, asking(t, upstreamConfig{}, server.Addr().String()))
}

func TestPortsIDsAndCaseAreUnpredictable(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t))
	u := asking(t, upstreamConfig{}, server.Addr().String())
	const count = 200
	for range count {
		if _, _, err := ask(t, u, "some-name-of-many-letters.example"); err != nil {
			t.Fatal(err)
		}
	}
	ports, ids, names := map[uint16]int{}, map[uint16]int{}, map[string]int{}
	for _, query := range server.Received() {
		ports[query.From.Port()]++
		ids[query.Msg.Id]++
		names[query.Msg.Question[0].Name]++
	}
	// Of 200 draws from 65,536 IDs 0.3 collide.
	if len(ids) < count-8 || len(names) < count-8 {
		t.Errorf("of %d questions: %d IDs, %d spellings", count, len(ids), len(names))
	}
	for port, n := range ports {
		if n > socketUses {
			t.Errorf("port %d asked %d times", port, n)
		}
	}
}

// TestQuestionsAtOnceHavePortsOfTheirOwn asks many, each of which waits.
func TestQuestionsAtOnceHavePortsOfTheirOwn(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t))
	server.SetFaults(dnstest.Faults{Delay: 100 * time.Millisecond})
	u := asking(t, upstreamConfig{}, server.Addr().String())
	const count = 200
	var all sync.WaitGroup
	for n := range count {
		all.Go(func() {
			if _, _, err := ask(t, u, fmt.Sprintf("name-%d.example", n)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	ports := map[uint16]int{}
	var last uint16
	next := 0
	for _, query := range server.Received() {
		port := query.From.Port()
		ports[port]++
		if port == last+1 || port == last+2 {
			next++
		}
		last = port
	}
	// Of 28,232 ports two sockets never have the same at once.
	if len(ports) != count || next > 10 {
		t.Errorf("%d questions at once went out from %d ports, %d in a row", count, len(ports), next)
	}
	if idle := u.list[0].transport.(*udpTransport).sockets.idle; len(idle) > socketsIdle {
		t.Errorf("%d sockets are kept", len(idle))
	}
}

func TestASocketWithoutAnswerIsNotUsedAgain(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	u := asking(t, upstreamConfig{Timeout: 100 * time.Millisecond}, server.Addr().String())
	pool := &u.list[0].transport.(*udpTransport).sockets
	wantAddr(t, u)
	if len(pool.idle) != 1 {
		t.Fatalf("%d sockets are idle after an answer", len(pool.idle))
	}
	server.SetFaults(dnstest.Faults{Drop: -1})
	if _, _, err := ask(t, u, "www.example"); err == nil {
		t.Fatal("an answer came")
	}
	if len(pool.idle) != 0 {
		t.Errorf("%d sockets are idle after a question without answer", len(pool.idle))
	}

	u = asking(t, upstreamConfig{Timeout: 100 * time.Millisecond}, "127.0.0.1:1") // where nobody listens
	pool = &u.list[0].transport.(*udpTransport).sockets
	if _, _, err := ask(t, u, "www.example"); err == nil || len(pool.idle) != 0 {
		t.Errorf("%d sockets are idle after an error: %v", len(pool.idle), err)
	}
}

// TestALateAnswerIsNotTheNextQuestions has a socket that holds the answer to its
// last question, and forged ones, ask another.
func TestALateAnswerIsNotTheNextQuestions(t *testing.T) {
	noLeaks(t)
	zone := dnstest.Zone(t, testAnswer, "other.example. 60 IN A 192.0.2.2")
	server := dnstest.NewServer(t, func(w dns.ResponseWriter, q *dns.Msg) {
		zone(w, q)
		zone(w, q) // the second one is late
	})
	u := asking(t, upstreamConfig{}, server.Addr().String())
	for range 5 {
		wantAddr(t, u)
		reply, _, err := ask(t, u, "other.example")
		if err != nil || len(reply.Answer) != 1 || !strings.HasSuffix(reply.Answer[0].String(), "192.0.2.2") {
			t.Fatalf("got %v, %v", reply, err)
		}
	}
	if ports := portsOf(server); ports != 1 {
		t.Errorf("%d ports; the test is of one", ports)
	}
}

func TestASocketIsNotUsedForLong(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	u := asking(t, upstreamConfig{}, server.Addr().String())
	pool := &u.list[0].transport.(*udpTransport).sockets
	wantAddr(t, u)
	pool.mu.Lock()
	pool.idle[0].born = time.Now().Add(-socketLife)
	pool.mu.Unlock()
	wantAddr(t, u)
	if ports := portsOf(server); ports != 2 {
		t.Errorf("%d ports for two questions, of which one came late", ports)
	}
	pool.mu.Lock()
	pool.idle[0].born = time.Now().Add(-socketLife)
	pool.mu.Unlock()
	pool.closeOld()
	if len(pool.idle) != 0 {
		t.Error("an old socket stays open")
	}
}

// portsOf counts the ports that a server was asked from.
func portsOf(server *dnstest.Server) int {
	ports := map[uint16]bool{}
	for _, query := range server.Received() {
		ports[query.From.Port()] = true
	}
	return len(ports)
}

// BenchmarkExchange asks a server of the same process, so both sides count.
func BenchmarkExchange(b *testing.B) {
	server := dnstest.NewServer(b, dnstest.Zone(b, testAnswer))
	u := asking(b, upstreamConfig{}, server.Addr().String())
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := u.exchange(b.Context(), "www.example", dns.TypeA, queryFlags{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
