package firewall

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ProbeDomain is the domain of the names that probes ask for. It exists nowhere
// (RFC 6761 section 6.4).
const ProbeDomain = ".probe.sallyport.invalid"

// The ranges for documentation: RFC 5737 and RFC 3849.
var (
	testNets4 = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24")}
	testNet6  = netip.MustParsePrefix("2001:db8::/64")
)

// A Prober measures a sidecar's firewall by its effect, through a child that
// stands where a job stands. It issues random destinations, and sees whether
// they come to our own listeners. Round is for one goroutine; Conn and Name are
// safe for concurrent use.
type Prober struct {
	in  *json.Encoder
	out *json.Decoder

	mu    sync.Mutex
	conns map[netip.AddrPort]bool // issued; true once it came
	name  string
	asked int // times that name came
}

// NewProber drives a child that runs Probe, by its standard input and output.
func NewProber(in io.Writer, out io.Reader) *Prober {
	return &Prober{in: json.NewEncoder(in), out: json.NewDecoder(out)}
}

// Conn reports whether a redirected connection is one of the round's, which it
// then has seen.
func (p *Prober) Conn(to netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	came, issued := p.conns[to]
	if !issued || came {
		return false
	}
	p.conns[to] = true
	return true
}

// Name reports whether a question is one of the round's. The case is not ours
// alone to choose.
func (p *Prober) Name(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.name == "" || name != p.name {
		return false
	}
	p.asked++
	return true
}

// Round measures once: v4 and v6 are the families that are redirected, private
// our own listeners that no job may reach. It gives what is wrong; the error is
// that of a child that is gone.
func (p *Prober) Round(ctx context.Context, v4, v6 bool, private []netip.AddrPort) ([]string, error) {
	request := ProbeRequest{Name: randomHex() + ProbeDomain, Private: private}
	if v4 {
		for _, net := range testNets4 {
			request.TCP = append(request.TCP, randomIn(net))
		}
		request.DNS = append(request.DNS, netip.AddrPortFrom(randomIn(testNets4[0]).Addr(), dnsPort))
	}
	if v6 {
		request.TCP = append(request.TCP, randomIn(testNet6))
		request.DNS = append(request.DNS, netip.AddrPortFrom(randomIn(testNet6).Addr(), dnsPort))
	}
	for _, to := range request.TCP {
		request.UDP = append(request.UDP, netip.AddrPortFrom(to.Addr(), 4433))
	}
	p.mu.Lock()
	p.conns, p.name, p.asked = make(map[netip.AddrPort]bool), request.Name, 0
	for _, to := range request.TCP {
		p.conns[to] = false
	}
	p.mu.Unlock()
	if err := p.in.Encode(request); err != nil {
		return nil, fmt.Errorf("asking the probe: %w", err)
	}
	var reply ProbeReply
	if err := p.out.Decode(&reply); err != nil {
		return nil, fmt.Errorf("hearing the probe: %w", err)
	}
	questions := 2 * len(request.DNS)
	p.mu.Lock()
	for _, to := range reply.NoWay { // what cannot be sent at all gets out nowhere
		if _, issued := p.conns[to]; issued {
			delete(p.conns, to)
		} else {
			questions--
		}
	}
	sent := len(p.conns)
	p.mu.Unlock()
	p.settle(ctx, questions)
	p.mu.Lock()
	defer p.mu.Unlock()
	faults := reply.Faults
	if sent == 0 {
		faults = append(faults, "there is no route to anywhere, so nothing could be tried")
	}
	for to, came := range p.conns {
		if !came {
			faults = append(faults, fmt.Sprintf("TCP to %s did not come to our listener", to))
		}
	}
	if p.asked < questions {
		faults = append(faults, fmt.Sprintf("%d of %d questions to other resolvers came to ours", p.asked, questions))
	}
	p.conns, p.name = nil, ""
	slices.Sort(faults)
	return faults, nil
}

// settle waits a little for what the child sent and we have not accepted yet.
func (p *Prober) settle(ctx context.Context, questions int) {
	late := time.After(time.Second / 2)
	for {
		p.mu.Lock()
		missing := p.asked < questions
		for _, came := range p.conns {
			missing = missing || !came
		}
		p.mu.Unlock()
		if !missing {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-late:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// randomIn is a random address of a prefix, with a random port that no rule of
// anyone's is likely to have.
func randomIn(prefix netip.Prefix) netip.AddrPort {
	raw := prefix.Addr().As16()
	raw[15] = byte(1 + below(254))
	if prefix.Addr().Is6() {
		raw[14], raw[13] = byte(below(256)), byte(below(256))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(raw).Unmap(), uint16(20000+below(40000)))
}

func below(n int64) int64 {
	got, err := rand.Int(rand.Reader, big.NewInt(n))
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return got.Int64()
}

func randomHex() string {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}
