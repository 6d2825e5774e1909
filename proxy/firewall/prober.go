package firewall

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
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
	testNets6 = []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}
)

// probeAnswer is how long a round waits for the child, which needs probeTime.
const probeAnswer = probeTime + time.Second

// errProbeEnded is that of a child that is gone. Only a start may start another.
var errProbeEnded = errors.New("the probe that measures by effect has ended; restart Sallyport for another")

// probeSilent is the fault of a round without an answer.
const probeSilent = "the probe that measures by effect does not answer; somebody may have stopped it"

// A Prober measures a sidecar's firewall by its effect, through a child that
// stands where a job stands. It issues random destinations, and sees whether
// they come to our own listeners. Round is for one goroutine; the other methods
// are safe for concurrent use.
type Prober struct {
	in      *json.Encoder
	replies chan ProbeReply // closed when the child is gone
	owed    bool            // a reply that came too late is still to come

	mu      sync.Mutex
	conns   map[netip.AddrPort]bool // issued; true once it came
	name    string
	asked   int                        // times that name came
	never   string                     // a name that must not come; "" for none
	spoofed bool                       // it came
	issued  [2]map[netip.AddrPort]bool // every destination of this round and of the one before
}

// NewProber drives a child that runs Probe, by its standard input and output.
func NewProber(in io.Writer, out io.Reader) *Prober {
	p := &Prober{in: json.NewEncoder(in), replies: make(chan ProbeReply)}
	go func() {
		defer close(p.replies)
		for replies := json.NewDecoder(out); ; {
			var reply ProbeReply
			if replies.Decode(&reply) != nil {
				return
			}
			p.replies <- reply
		}
	}()
	return p
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

// Name reports whether a question is one of the round's, by its name in lower case.
func (p *Prober) Name(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case name == "":
		return false
	case name == p.name:
		p.asked++
	case name == p.never:
		p.spoofed = true
	default:
		return false
	}
	return true
}

// Issued reports whether a packet to this destination, if the child sent it, is
// one of this round or of the one before.
func (p *Prober) Issued(to netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.issued[0][to] || p.issued[1][to]
}

// Round measures once what a plan's way promises; private are listeners on this
// machine that are not the job's. It gives what is wrong; the error is that of a
// child that is gone, or of ctx.
func (p *Prober) Round(ctx context.Context, way *Way, private []netip.AddrPort) ([]string, error) {
	if p.owed { // the child was held up: what it says now is of a round that is over
		if _, late, err := p.reply(ctx); late || err != nil {
			return []string{probeSilent}, err
		}
		p.owed = false
	}
	request := newProbeRequest(way, private)
	p.begin(request)
	if p.in.Encode(request) != nil {
		return nil, errProbeEnded
	}
	reply, late, err := p.reply(ctx)
	if late || err != nil {
		p.owed = true
		return []string{probeSilent}, err
	}
	return p.end(ctx, request, reply), nil
}

// reply waits for the child's next; late means that none came in time.
func (p *Prober) reply(ctx context.Context) (reply ProbeReply, late bool, err error) {
	timer := time.NewTimer(probeAnswer)
	defer timer.Stop()
	select {
	case reply, ok := <-p.replies:
		if !ok {
			return reply, false, errProbeEnded
		}
		return reply, false, nil
	case <-timer.C:
		return reply, true, nil
	case <-ctx.Done():
		return reply, false, ctx.Err()
	}
}

// newProbeRequest chooses destinations in every range that is redirected, and
// in those that are closed.
func newProbeRequest(way *Way, private []netip.AddrPort) *ProbeRequest {
	request := &ProbeRequest{Name: randomHex() + ProbeDomain, Private: private}
	for _, family := range []struct {
		ranges   []netip.Prefix
		tcp, dns uint16
	}{{testNets4, way.TCP.V4, way.DNS.V4}, {testNets6, way.TCP.V6, way.DNS.V6}} {
		for _, net := range family.ranges {
			to := randomIn(net)
			resolver := netip.AddrPortFrom(randomIn(net).Addr(), dnsPort)
			if family.tcp != 0 {
				request.TCP = append(request.TCP, to)
			} else {
				request.Closed = append(request.Closed, to)
			}
			if family.dns != 0 {
				request.DNS = append(request.DNS, resolver)
			} else {
				request.UDP = append(request.UDP, resolver)
			}
			if !way.PassesOther {
				request.UDP = append(request.UDP, netip.AddrPortFrom(to.Addr(), 4433))
			}
		}
	}
	if way.DNS.V6 != 0 {
		request.Spoofed = Spoof{randomIn(testNets6[0]).Addr(), netip.AddrPortFrom(randomIn(testNets6[0]).Addr(), dnsPort), randomHex() + ProbeDomain}
	}
	return request
}

// begin makes the round's destinations known to those who see what comes.
func (p *Prober) begin(r *ProbeRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns, p.name, p.asked = make(map[netip.AddrPort]bool), r.Name, 0
	p.never, p.spoofed = r.Spoofed.Name, false
	for _, to := range r.TCP {
		p.conns[to] = false
	}
	p.issued[1], p.issued[0] = p.issued[0], make(map[netip.AddrPort]bool)
	for _, list := range [][]netip.AddrPort{r.TCP, r.DNS, r.UDP, r.Closed, r.Private, {r.Spoofed.To}} {
		for _, to := range list {
			p.issued[0][to] = true
		}
	}
}

// end counts what came.
func (p *Prober) end(ctx context.Context, r *ProbeRequest, reply ProbeReply) []string {
	questions := 2 * len(r.DNS)
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
	switch {
	case len(r.TCP) > 0 && sent == 0:
		faults = append(faults, "there is no route to anywhere, so nothing could be tried")
	case len(r.DNS) > 0 && questions <= 0:
		faults = append(faults, "there is no route to any other resolver, so none could be tried")
	}
	for to, came := range p.conns {
		if !came {
			faults = append(faults, fmt.Sprintf("TCP to %s did not come to our listener", to))
		}
	}
	if p.asked < questions {
		faults = append(faults, fmt.Sprintf("%d of %d questions to other resolvers came to ours", p.asked, questions))
	}
	if p.spoofed {
		faults = append(faults, "a question from an address of another machine came to us, so that its answer leaves")
	}
	p.conns, p.name, p.never = nil, "", ""
	slices.Sort(faults)
	return faults
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
