package proxy

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
)

// TestControlLooksOnceMore gives the dialer addresses that were not judged, or
// are judged differently now: no socket may connect.
func TestControlLooksOnceMore(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	own := false
	tr := bindTrip(t, port)
	tr.s.server.cfg.IsOwn = func(netip.AddrPort) bool { return own }
	loop := netip.MustParseAddr("127.0.0.1")
	// As if the judgement before the dial had been forgotten.
	_, _, err = tr.dialFirst(context.Background(), []candidate{{loop, tr.by}})
	if d := asDenial(err, nil); d.Decision.Reason != allowlists.SpecialAddress {
		t.Errorf("dialling an address that is not allowed: %v", err)
	}
	public := netip.MustParseAddr("140.82.121.4")
	for says, address := range map[string]string{
		"another address": "140.82.121.5:" + strings.Split(l.Addr().String(), ":")[1],
		"another port":    "140.82.121.4:1",
		"no address":      "bind.example:443",
	} {
		if err := tr.control(candidate{public, tr.by}, address); err == nil {
			t.Errorf("%s passes", says)
		}
	}
	own = true
	if err := tr.control(candidate{netip.MustParseAddr("140.82.121.4"), tr.by}, netip.AddrPortFrom(netip.MustParseAddr("140.82.121.4"), port).String()); err == nil {
		t.Error("our own listener passes")
	}
}

// someAddrs is a Resolver that gives the same addresses for every name.
type someAddrs []netip.Addr

func (s someAddrs) Lookup(context.Context, allowlists.Subject, allowlists.Host) (allowlists.Answer, error) {
	return allowlists.Answer{Addrs: s}, nil
}

func (someAddrs) Names(allowlists.Subject, netip.Addr) []string { return nil }

func (someAddrs) Answered(allowlists.Subject, allowlists.Host, netip.Addr) bool { return false }

// TestResolveLeavesOutWhatIsRefused answers with good and bad addresses, and
// with more than are tried.
func TestResolveLeavesOutWhatIsRefused(t *testing.T) {
	tr := bindTrip(t, 443)
	mixed := someAddrs{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("140.82.121.4"), netip.MustParseAddr("::1"), netip.MustParseAddr("2606:50c0::153")}
	tr.s.server.cfg.Resolver = mixed
	may, err := tr.resolve(context.Background())
	if err != nil || len(may) != 2 || may[0].addr != mixed[1] || may[1].addr != mixed[3] {
		t.Errorf("%v, %v; want the two public addresses in their order", may, err)
	}
	var many someAddrs
	for i := range 100 {
		many = append(many, netip.AddrFrom4([4]byte{140, 82, 121, byte(i)}))
	}
	tr.s.server.cfg.Resolver = many
	if may, err = tr.resolve(context.Background()); err != nil || len(may) != maxCandidates {
		t.Errorf("%d candidates, %v; want %d", len(may), err, maxCandidates)
	}
}

// bindTrip is a CONNECT to bind.example, which is allowed at public addresses.
func bindTrip(t *testing.T, port uint16) *trip {
	t.Helper()
	pattern, err := allowlists.ParsePattern("bind.example")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{{
		Name: "build", Allow: []allowlists.Rule{{Host: pattern, Ports: allowlists.AllPorts()}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	host, err := allowlists.ParseHost("bind.example")
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{
		cfg:    Config{IsOwn: func(netip.AddrPort) bool { return false }, Limits: allowlists.Limits{DialTimeout: time.Second}},
		limits: newLimits(limitCounts{1, 1, 1}, time.Now),
	}
	tr := &trip{
		s: &session{server: server, ctx: context.Background()}, via: ViaConnect,
		pool: policy.Pool("build"), target: allowlists.Target{Host: host, Port: port},
	}
	tr.by = tr.pool.DecideConn(host, port, time.Now())
	return tr
}
