package dnsfilter

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// answered is an upstream's answer with one address.
func answered(name string, qtype uint16, ttl uint32) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.Response = true
	m.Answer = oneAddr(strings.TrimSuffix(name, "."), ttl).records
	return m
}

// asks packs a question for an A record.
func asks(t testing.TB, name string) []byte {
	return packed(t, new(dns.Msg).SetQuestion(name, dns.TypeA))
}

func TestASilentUpstreamStarvesNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := offline(t, nil)
		s.meter = unmetered()
		var mu sync.Mutex
		upstream, most := 0, 0
		s.ask = func(ctx context.Context, name string, qtype uint16, _ queryFlags) (*dns.Msg, string, error) {
			if !strings.HasPrefix(name, "slow") {
				return answered(name, qtype, 60), "fuzz", nil
			}
			mu.Lock()
			upstream++
			most = max(most, upstream)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			upstream--
			mu.Unlock()
			return nil, "", ended(ctx)
		}
		neighbour := poolOrigin
		neighbour.client = netip.MustParseAddrPort("10.0.0.3:1")
		stranger := origin{client: netip.MustParseAddrPort("10.1.0.1:1"), udp: true}
		var wg sync.WaitGroup
		for i := range 2000 {
			wg.Go(func() { s.handle(context.Background(), asks(t, fmt.Sprintf("slow%d.wild.example.", i)), poolOrigin) })
		}
		synctest.Wait()
		if len(s.flights.byKey) != 512 || most != 128 || len(s.waiting.clients) != 1 {
			t.Errorf("one client has %d questions under way, %d of them upstream", len(s.flights.byKey), most)
		}
		limited := 0
		for _, r := range records() {
			if r.Reason == allowlists.LimitExceeded && r.RCode == dns.RcodeRefused && !r.Allowed() {
				limited++
			}
		}
		if limited != 2000-512 {
			t.Errorf("%d questions were refused for the limit", limited)
		}
		before := time.Now()
		for _, from := range []origin{neighbour, stranger} {
			var m dns.Msg
			if err := m.Unpack(s.handle(context.Background(), asks(t, "allowed.example."), from)); err != nil || len(m.Answer) != 1 || time.Since(before) != 0 {
				t.Errorf("%s waits: %v after %s", from.client, &m, time.Since(before))
			}
			s.cache.keepOnly(func(flightKey) bool { return false })
		}
		wg.Wait()
		if len(s.flights.byKey) != 0 || s.waiting.held != 0 || len(s.turns.clients) != 0 {
			t.Error("something is still held")
		}
	})
}

func TestAStaleAnswerDoesNotWaitForASilentUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := offline(t, func(name string, qtype uint16) (*dns.Msg, error) { return answered(name, qtype, 60), nil })
		s.cache.stale = time.Hour
		s.handle(context.Background(), asks(t, "allowed.example."), poolOrigin)
		s.ask = func(ctx context.Context, _ string, _ uint16, _ queryFlags) (*dns.Msg, string, error) {
			<-ctx.Done()
			return nil, "", ended(ctx)
		}
		time.Sleep(2 * time.Minute) // of the test's own clock
		began := time.Now()
		var m dns.Msg
		if err := m.Unpack(s.handle(context.Background(), asks(t, "allowed.example."), poolOrigin)); err != nil || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != staleTTL {
			t.Errorf("got %v", &m)
		}
		if took := time.Since(began); took != stalePatience {
			t.Errorf("it took %s", took)
		}
		if got := records(); len(got) != 2 || !got[1].Cached || got[1].Reason != allowlists.Allowed {
			t.Errorf("recorded %+v", got)
		}
		time.Sleep(2 * time.Hour)
		if err := m.Unpack(s.handle(context.Background(), asks(t, "allowed.example."), poolOrigin)); err != nil || m.Rcode != dns.RcodeServerFailure {
			t.Errorf("after its time: %v", &m)
		}
		if got := records(); len(got) != 1 || got[0].Reason != allowlists.TimedOut || !got[0].Allowed() {
			t.Errorf("recorded %+v", got)
		}
	})
}

func TestOneThatLeavesTakesNobodyWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := offline(t, nil)
		release := make(chan struct{})
		asked, cut := 0, 0
		s.ask = func(ctx context.Context, name string, qtype uint16, _ queryFlags) (*dns.Msg, string, error) {
			asked++
			select {
			case <-release:
				return answered(name, qtype, 60), "fuzz", nil
			case <-ctx.Done():
				cut++
				return nil, "", ended(ctx)
			}
		}
		key, by := flightKey{name: "allowed.example", qtype: dns.TypeA}, account{"build", addrN(1)}
		leaving, leave := context.WithCancel(context.Background())
		first, second := make(chan result, 1), make(chan result, 1)
		go func() { first <- s.obtain(leaving, key, by, anyQuestion) }()
		synctest.Wait()
		go func() { second <- s.obtain(context.Background(), key, by, anyQuestion) }()
		synctest.Wait()
		leave()
		if r := <-first; r.err == nil {
			t.Error("the one that left got an answer")
		}
		synctest.Wait()
		if asked != 1 || cut != 0 {
			t.Errorf("%d asked, %d ended", asked, cut)
		}
		close(release)
		if r := <-second; r.err != nil || len(r.answer.records) != 1 {
			t.Errorf("the other got %v", r.err)
		}
		// The last that leaves ends the question.
		key.name, release = "a.wild.example", make(chan struct{})
		leaving, leave = context.WithCancel(context.Background())
		go func() { first <- s.obtain(leaving, key, by, anyQuestion) }()
		synctest.Wait()
		leave()
		<-first
		synctest.Wait()
		if asked != 2 || cut != 1 || len(s.flights.byKey) != 0 {
			t.Errorf("%d asked, %d ended, %d under way", asked, cut, len(s.flights.byKey))
		}
	})
}

func TestAnIdleConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := offline(t, nil)
		for rule, part := range map[string]struct {
			bytes string
			after time.Duration
		}{
			"nothing sent":        {"", clientIdle},
			"half a length":       {"\x00", clientIdle},
			"a message cut short": {"\x00\x20abc", clientRead},
		} {
			client, server := net.Pipe()
			began := time.Now()
			done := make(chan struct{})
			go func() { defer close(done); s.serveStream(server, poolOrigin, account{"build", addrN(1)}) }()
			if _, err := client.Write([]byte(part.bytes)); err != nil {
				t.Fatal(err)
			}
			<-done
			if took := time.Since(began); took != part.after {
				t.Errorf("%s: it ended after %s", rule, took)
			}
			client.Close()
			server.Close()
		}
	})
}

func TestWhoTakesNoRepliesStarvesNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := offline(t, func(name string, qtype uint16) (*dns.Msg, error) { return answered(name, qtype, 60), nil })
		s.rates = newRates(1<<20, maxRateClients)
		one, another := account{"build", addrN(1)}, account{"build", addrN(2)}
		var wg sync.WaitGroup
		open := func(by account, count int) (client net.Conn) {
			client, server := net.Pipe()
			wg.Go(func() { defer server.Close(); s.serveStream(server, poolOrigin, by) })
			wg.Go(func() {
				for range count {
					wire := asks(t, "allowed.example.")
					if _, err := client.Write(append([]byte{0, byte(len(wire))}, wire...)); err != nil {
						return
					}
				}
			})
			return client
		}
		var deaf []net.Conn
		for range maxClientStreams / 8 { // as many as a client may have
			deaf = append(deaf, open(one, maxPipeline))
		}
		synctest.Wait()
		if got := len(records()); got != maxStreamed/8 {
			t.Errorf("a client that takes no replies has %d answered", got)
		}
		began := time.Now()
		client := open(another, 1)
		if n, err := client.Read(make([]byte, 512)); n == 0 || err != nil || time.Since(began) != 0 {
			t.Errorf("another client waits: %d bytes, %v after %s", n, err, time.Since(began))
		}
		for _, c := range append(deaf, client) {
			c.Close()
		}
		wg.Wait()
		if len(s.streamed.clients) != 0 || len(s.streamed.pools) != 0 {
			t.Error("something is still held")
		}
	})
}

// anyQuestion lets every question go upstream.
func anyQuestion() error { return nil }

// unmetered never finds that too much is carried.
func unmetered() *Meter {
	return NewMeter(MeterLimits{Names: 1 << 30, Bytes: 1 << 40, DayBytes: 1 << 40}, nil)
}
