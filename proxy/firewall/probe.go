package firewall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// probeTime bounds one round of probes.
const probeTime = 2 * time.Second

// A ProbeRequest is one round for the child that Probe is. Every address but
// the private ones is of a documentation range, where nothing answers.
type ProbeRequest struct {
	TCP     []netip.AddrPort // must come to our transparent listener
	DNS     []netip.AddrPort // resolvers to ask for Name, over UDP and TCP
	Name    string           // without the final dot
	UDP     []netip.AddrPort // must be refused at once
	Closed  []netip.AddrPort // TCP that must be refused at once
	Spoofed Spoof            // must not come
	Private []netip.AddrPort // listeners on this machine that are not the job's: TCP must not open
}

// A Spoof is a question for Name from an address that is not of this machine,
// whose answer would leave elsewhere. The zero Spoof is none.
type Spoof struct {
	From netip.Addr
	To   netip.AddrPort
	Name string // without the final dot
}

// A ProbeReply says what the child saw that must not be, and which of TCP and
// DNS it could not even send to: there is no route.
type ProbeReply struct {
	Faults []string
	NoWay  []netip.AddrPort // one of DNS comes once for UDP and once for TCP
}

// Probe serves rounds: a JSON ProbeRequest on in, a ProbeReply on out, until in
// ends. It stands where a job stands: it is run as another user than ours.
func Probe(in io.Reader, out io.Writer) error {
	requests, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var request ProbeRequest
		if err := requests.Decode(&request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a probe's request: %w", err)
		}
		if err := replies.Encode(request.round()); err != nil {
			return fmt.Errorf("answering a probe: %w", err)
		}
	}
}

// round tries everything at once.
func (r *ProbeRequest) round() ProbeReply {
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	var reply ProbeReply
	var mu sync.Mutex
	var all sync.WaitGroup
	try := func(addr netip.AddrPort, do func(context.Context, netip.AddrPort) string) {
		all.Go(func() {
			if fault := do(ctx, addr); fault != "" {
				mu.Lock()
				defer mu.Unlock()
				reply.Faults = append(reply.Faults, fault)
			}
		})
	}
	send := func(addr netip.AddrPort, do func() error) {
		all.Go(func() {
			if noWay(do()) {
				mu.Lock()
				defer mu.Unlock()
				reply.NoWay = append(reply.NoWay, addr)
			}
		})
	}
	for _, addr := range r.TCP {
		send(addr, func() error { return touchTCP(ctx, addr) })
	}
	for _, addr := range r.DNS {
		send(addr, func() error { return ask(ctx, "udp", addr, r.Name) })
		send(addr, func() error { return ask(ctx, "tcp", addr, r.Name) })
	}
	for _, addr := range r.UDP {
		try(addr, refusedUDP)
	}
	for _, addr := range r.Closed {
		try(addr, closedTCP)
	}
	for _, addr := range r.Private {
		try(addr, refusedTCP)
	}
	if r.Spoofed.To.IsValid() {
		all.Go(func() { spoof(r.Spoofed) })
	}
	all.Wait()
	return reply
}

// touchTCP connects and leaves. Whether it came to us, the parent knows.
func touchTCP(ctx context.Context, addr netip.AddrPort) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err == nil {
		conn.Close()
	}
	return err
}

// dnsQuestion is a question for an address of name.
func dnsQuestion(name string) ([]byte, error) {
	host, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(below(1 << 16)), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: host, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

// ask sends a question for an address of name. Whether it came to us, the
// parent knows.
func ask(ctx context.Context, network string, addr netip.AddrPort, name string) error {
	wire, err := dnsQuestion(name)
	if err != nil {
		return err
	}
	if network == "tcp" {
		wire = append([]byte{byte(len(wire) >> 8), byte(len(wire))}, wire...)
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if _, err = conn.Write(wire); err == nil {
		_, err = conn.Read(make([]byte, 512))
	}
	return err
}

// refusedUDP sends a datagram, which must be refused so that programs do not wait.
func refusedUDP(ctx context.Context, addr netip.AddrPort) string {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", addr.String())
	if noWay(err) {
		return ""
	}
	if err != nil {
		return fmt.Sprintf("UDP cannot be probed: %v", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	for range 2 { // an ICMP error shows at the next call
		if _, err := conn.Write([]byte("sallyport probe")); err != nil {
			return ""
		}
		_ = conn.SetReadDeadline(time.Now().Add(probeTime / 4))
		if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
			return ""
		}
	}
	return fmt.Sprintf("UDP to %s was not refused", addr)
}

// closedTCP tries a family that no listener of ours takes.
func closedTCP(ctx context.Context, addr netip.AddrPort) string {
	if err := touchTCP(ctx, addr); err == nil || isTimeout(err) {
		return fmt.Sprintf("TCP to %s was not refused", addr)
	}
	return ""
}

// refusedTCP tries one of the private listeners.
func refusedTCP(ctx context.Context, addr netip.AddrPort) string {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return ""
	}
	conn.Close()
	return fmt.Sprintf("%s, which is not the job's, is open to it", addr)
}

// noWay reports whether there is no way to an address at all.
func noWay(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
