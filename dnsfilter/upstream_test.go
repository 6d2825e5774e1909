package dnsfilter

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"sallyport/dnsfilter/dnstest"
)

const testAnswer = "Www.Example. 60 IN A 192.0.2.1"

// noLeaks fails the test if goroutines of it are left when its servers and
// upstreams are closed. Call it first.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// asking makes upstreams that are closed with the test.
func asking(t testing.TB, cfg upstreamConfig, list ...string) *upstreams {
	t.Helper()
	cfg.Upstreams = list
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	u, err := newUpstreams(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.close)
	return u
}

// ask asks for an A record, within ten seconds.
func ask(t testing.TB, u *upstreams, name string) (*dns.Msg, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return u.exchange(ctx, name, dns.TypeA, queryFlags{})
}

// wantAddr asks for www.example and demands the address of testAnswer.
func wantAddr(t testing.TB, u *upstreams) (from string) {
	t.Helper()
	reply, from, err := ask(t, u, "www.example")
	if err != nil {
		t.Fatal(err)
	}
	if got := chainAddrs("www.example.", reply); len(got) != 1 || got[0] != netip.MustParseAddr("192.0.2.1") {
		t.Fatalf("the answer is %v", reply)
	}
	if reply.Question[0].Name != "www.example." {
		t.Fatalf("the question came back as %q", reply.Question[0].Name)
	}
	return from
}

// states collects what upstreamConfig.Up is told.
type states struct {
	mu   sync.Mutex
	up   map[string]bool
	told chan struct{}
}

func newStates() *states { return &states{up: make(map[string]bool), told: make(chan struct{}, 100)} }

func (s *states) set(name string, up bool) {
	s.mu.Lock()
	s.up[name] = up
	s.mu.Unlock()
	s.told <- struct{}{}
}

// await waits until the upstream is in the state.
func (s *states) await(t *testing.T, name string, up bool) {
	t.Helper()
	for deadline := time.After(10 * time.Second); ; {
		s.mu.Lock()
		now, known := s.up[name]
		s.mu.Unlock()
		if known && now == up {
			return
		}
		select {
		case <-s.told:
		case <-deadline:
			t.Fatalf("upstream %s never became up=%v", name, up)
		}
	}
}

func TestEveryTransportAnswers(t *testing.T) {
	noLeaks(t)
	zone := dnstest.Zone(t, testAnswer)
	plain := dnstest.NewServer(t, zone)
	dot := dnstest.NewTLSServer(t, zone, "dns.example", "127.0.0.1")
	doh := dnstest.NewHTTPSServer(t, zone, nil, "dns.example", "127.0.0.1")
	for _, test := range []struct {
		text, name, proto string
		server            *dnstest.Server
	}{
		{plain.Addr().String(), plain.Addr().String(), "udp", plain},
		{"udp://" + plain.Addr().String(), plain.Addr().String(), "udp", plain},
		{"tcp://" + plain.Addr().String(), "tcp://" + plain.Addr().String(), "tcp", plain},
		{"tls://" + dot.Addr().String() + "#dns.example", "tls://" + dot.Addr().String() + "#dns.example", "tls", dot},
		{"tls://" + dot.Addr().String(), "tls://" + dot.Addr().String(), "tls", dot},
		{doh.URL(), "https://" + doh.Addr().String(), "https", doh},
	} {
		t.Run(test.text, func(t *testing.T) {
			u := asking(t, upstreamConfig{RootCAs: test.server.Roots()}, test.text)
			for range 3 {
				if from := wantAddr(t, u); from != test.name {
					t.Errorf("the answer came from %q, want %q", from, test.name)
				}
			}
			received := test.server.Received()
			last := received[len(received)-1]
			if last.Proto != test.proto {
				t.Errorf("asked over %s, want %s", last.Proto, test.proto)
			}
			if test.proto == "https" && last.Header.Get("Proto") != "HTTP/2.0" {
				t.Errorf("asked over %s", last.Header.Get("Proto"))
			}
			opt := last.Msg.IsEdns0()
			if opt == nil || opt.UDPSize() != ednsSize || len(opt.Option) != 0 || opt.Do() || last.Msg.AuthenticatedData {
				t.Errorf("more or less travels than a question: %v", last.Msg)
			}
		})
	}
}

func TestFlagsTravelAndNothingElse(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	u := asking(t, upstreamConfig{}, server.Addr().String())
	if _, _, err := u.exchange(t.Context(), "www.example.", dns.TypeAAAA, queryFlags{DO: true, CD: true}); err != nil {
		t.Fatal(err)
	}
	msg := server.Received()[0].Msg
	if !msg.IsEdns0().Do() || !msg.CheckingDisabled || !msg.RecursionDesired || msg.Question[0].Qtype != dns.TypeAAAA {
		t.Errorf("sent %v", msg)
	}
}

func TestFailover(t *testing.T) {
	zone := dnstest.Zone(t, testAnswer)
	for _, test := range []struct {
		name    string
		handler dns.HandlerFunc
		faults  dnstest.Faults
	}{
		{"SERVFAIL tries the next", dnstest.Answer(dns.RcodeServerFailure), dnstest.Faults{}},
		{"REFUSED tries the next", dnstest.Answer(dns.RcodeRefused), dnstest.Faults{}},
		{"NOTIMP tries the next", dnstest.Answer(dns.RcodeNotImplemented), dnstest.Faults{}},
		{"a black hole tries the next", zone, dnstest.Faults{Drop: -1}},
		{"forged answers alone try the next", zone, dnstest.Faults{Decoys: []dnstest.Decoy{dnstest.WrongID}, NoCopy: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			noLeaks(t)
			first := dnstest.NewServer(t, test.handler)
			first.SetFaults(test.faults)
			second := dnstest.NewServer(t, zone)
			u := asking(t, upstreamConfig{Timeout: 300 * time.Millisecond}, first.Addr().String(), second.Addr().String())
			if from := wantAddr(t, u); from != second.Addr().String() {
				t.Errorf("the answer came from %s", from)
			}
			if first.Packets() == 0 {
				t.Error("the first was not asked first")
			}
		})
	}
}

func TestNXDOMAINIsAnAnswer(t *testing.T) {
	noLeaks(t)
	first, second := dnstest.NewServer(t, dnstest.Zone(t)), dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	u := asking(t, upstreamConfig{}, first.Addr().String(), second.Addr().String())
	reply, _, err := ask(t, u, "www.example")
	if err != nil || reply.Rcode != dns.RcodeNameError || second.Packets() != 0 {
		t.Errorf("got %v, %v; the second was asked %d times", reply, err, second.Packets())
	}
}

func TestLastBadAnswerIsReturned(t *testing.T) {
	noLeaks(t)
	first, second := dnstest.NewServer(t, dnstest.Answer(dns.RcodeServerFailure)), dnstest.NewServer(t, dnstest.Answer(dns.RcodeRefused))
	u := asking(t, upstreamConfig{}, first.Addr().String(), second.Addr().String())
	reply, from, err := ask(t, u, "www.example")
	if err != nil || reply.Rcode != dns.RcodeRefused || from != second.Addr().String() {
		t.Errorf("got %v from %s, %v", reply, from, err)
	}
	for _, s := range u.status() {
		if !s.Up {
			t.Errorf("%s counts as down; an answer is an answer", s.Name)
		}
	}
}

func TestBlackHoleIsAskedLastAndRecovers(t *testing.T) {
	noLeaks(t)
	zone := dnstest.Zone(t, testAnswer)
	first, second := dnstest.NewServer(t, zone), dnstest.NewServer(t, zone)
	first.SetFaults(dnstest.Faults{Drop: -1})
	seen := newStates()
	u := asking(t, upstreamConfig{Timeout: 200 * time.Millisecond, Up: seen.set}, first.Addr().String(), second.Addr().String())
	wantAddr(t, u)
	seen.await(t, first.Addr().String(), false)
	if s := u.status()[0]; s.Up || s.Failures != 1 || s.LastError == "" || s.Retry.IsZero() {
		t.Errorf("status is %+v", s)
	}
	before := first.Packets()
	for range 20 {
		wantAddr(t, u)
	}
	if first.Packets() != before {
		t.Error("a silent upstream was asked within its back-off")
	}

	first.SetFaults(dnstest.Faults{})
	up := u.list[0]
	up.health.mu.Lock()
	up.health.retry = time.Now() // the back-off is over
	up.health.mu.Unlock()
	if from := wantAddr(t, u); from != second.Addr().String() {
		t.Errorf("a client waited for the probe of %s", from)
	}
	seen.await(t, first.Addr().String(), true)
	if from := wantAddr(t, u); from != first.Addr().String() {
		t.Errorf("the recovered upstream is not asked first again, but %s", from)
	}
}

func TestEveryUpstreamSilent(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{Drop: -1})
	u := asking(t, upstreamConfig{Timeout: 100 * time.Millisecond}, server.Addr().String())
	_, _, err := ask(t, u, "www.example")
	if !errors.Is(err, errUpstreamTimeout) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if server.Packets() != upstreamRounds {
		t.Errorf("asked %d times, want %d", server.Packets(), upstreamRounds)
	}
	server.SetFaults(dnstest.Faults{})
	wantAddr(t, u) // down, and asked all the same, for there is no other
}

func TestRefusedPortFailsAtOnce(t *testing.T) {
	noLeaks(t)
	second := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	u := asking(t, upstreamConfig{Timeout: time.Hour}, "127.0.0.1:1", "tcp://127.0.0.1:1", second.Addr().String())
	wantAddr(t, u)
	_, _, err := ask(t, asking(t, upstreamConfig{}, "127.0.0.1:1"), "www.example")
	if err == nil || errors.Is(err, errUpstreamTimeout) {
		t.Errorf("got %v; nothing timed out", err)
	}
}

func TestCallerGivesUp(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{Drop: -1})
	u := asking(t, upstreamConfig{Timeout: time.Hour}, server.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		server.Await(func(s *dnstest.Server) bool { return s.Packets() > 0 })
		cancel()
	}()
	if _, _, err := u.exchange(ctx, "www.example", dns.TypeA, queryFlags{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if !u.status()[0].Up {
		t.Error("the upstream is blamed for the caller's haste")
	}
}

func TestCloseEndsExchanges(t *testing.T) {
	for _, scheme := range []string{"udp", "tcp"} {
		t.Run(scheme, func(t *testing.T) {
			noLeaks(t)
			server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
			server.SetFaults(dnstest.Faults{Drop: -1, Silent: true})
			u := asking(t, upstreamConfig{Timeout: time.Hour}, scheme+"://"+server.Addr().String())
			done := make(chan error, 1)
			go func() {
				_, _, err := u.exchange(context.Background(), "www.example", dns.TypeA, queryFlags{})
				done <- err
			}()
			server.Await(func(s *dnstest.Server) bool { return len(s.Queries()) > 0 })
			u.close()
			if err := <-done; err == nil {
				t.Error("an exchange survived close")
			}
			if _, _, err := ask(t, u, "www.example"); !errors.Is(err, errUpstreamsClosed) {
				t.Errorf("after close: %v", err)
			}
		})
	}
}

func TestSystemUpstreams(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# comment\nnameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver dns.example\nsearch corp.example. lab.example .\noptions ndots:5\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	own := func(addr netip.AddrPort) bool { return addr.Addr().IsLoopback() }
	u := asking(t, upstreamConfig{ResolvConf: file, Own: own}, "tcp://10.0.0.9", "system", "10.0.0.2")
	var names []string
	for _, s := range u.status() {
		names = append(names, s.Name)
	}
	if got, want := strings.Join(names, " "), "tcp://10.0.0.9:53 10.0.0.2:53 [fe80::1%eth0]:53"; got != want {
		t.Errorf("asking %s, want %s", got, want)
	}
	search, err := SystemSearch(file)
	if err != nil || strings.Join(search, " ") != "corp.example lab.example" {
		t.Errorf("search is %q, %v", search, err)
	}

	all := func(netip.AddrPort) bool { return true }
	for name, cfg := range map[string]upstreamConfig{
		"names only our own listeners":            {ResolvConf: file, Own: all, Upstreams: []string{"system"}},
		"names no usable server":                  {ResolvConf: os.DevNull, Upstreams: []string{"system"}},
		"no such file":                            {ResolvConf: file + "x", Upstreams: []string{"system"}},
		"list the resolver's address":             {ResolvConf: os.DevNull, Upstreams: []string{"system", "10.0.0.2"}},
		"listener of our own":                     {Own: all, Upstreams: []string{"10.0.0.2"}},
		"list \"system\" or the address of a res": {},
	} {
		if _, err := newUpstreams(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}
