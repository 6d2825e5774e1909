package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/allowlists"
)

// A note is one record that a forwardBench took.
type note struct {
	phase, target, method string
	reason                allowlists.Reason
	sent, received        int64
	err                   error
}

// A forwardBench runs forwarders on a listener of their own, with a real
// policy, in front of a real origin to which every allowed name leads.
type forwardBench struct {
	t      *testing.T
	policy atomic.Pointer[allowlists.Policy]
	origin string
	inner  allowlists.Target
	limits forwardLimits
	addr   string
	dials  atomic.Int64
	// carrier is replaced where a test wants to see what goproxy is given.
	carrier http.Handler
	noReuse atomic.Bool   // what reusable answers
	ended   chan struct{} // one for each connection that ends at the origin

	mu       sync.Mutex
	notes    []note
	changed  chan struct{} // closed and replaced with every note
	forwards map[*forwarder]bool
}

// newBench starts a bench that allows the given rules, in front of origin.
func newBench(t *testing.T, origin http.Handler, allow ...string) *forwardBench {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	b := &forwardBench{
		t: t, carrier: newCarrier(), changed: make(chan struct{}), ended: make(chan struct{}, 100), forwards: make(map[*forwarder]bool),
		limits: forwardLimits{headerBytes: 8192, headerTimeout: 5 * time.Second, idleTimeout: 10 * time.Second},
	}
	b.allow(allow...)
	if origin != nil {
		server := httptest.NewUnstartedServer(origin)
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				b.ended <- struct{}{}
			}
		}
		server.Start()
		t.Cleanup(server.Close)
		b.origin = server.Listener.Addr().String()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { b.serve(ctx, conn) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); cancel(); b.drain(); all.Wait() })
	return b
}

func (b *forwardBench) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	b.mu.Lock()
	f := &forwarder{conn: conn, in: newHeadReader(conn), carrier: b.carrier, limits: b.limits, inner: b.inner, relay: copyBoth}
	f.gate = &benchGate{b: b, conn: conn}
	b.forwards[f] = true
	b.mu.Unlock()
	if connect := f.serve(ctx, nil); connect != nil {
		b.note(note{phase: "connect", target: connect.claimed})
	}
	b.mu.Lock()
	delete(b.forwards, f)
	b.mu.Unlock()
}

// set changes how connections to come are carried.
func (b *forwardBench) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// copyBoth stands in for the tunnel.
func copyBoth(_ context.Context, client, upstream net.Conn, sent, received func(int)) error {
	var both sync.WaitGroup
	both.Go(func() { n, _ := io.Copy(upstream, client); sent(int(n)); _ = upstream.(*switchedConn).CloseWrite() })
	both.Go(func() { n, _ := io.Copy(client, upstream); received(int(n)); _ = client.(*switchedConn).CloseWrite() })
	both.Wait()
	return upstream.Close()
}

// each calls do for every open forwarder.
func (b *forwardBench) each(do func(*forwarder)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for f := range b.forwards {
		do(f)
	}
}

func (b *forwardBench) drain() { b.each((*forwarder).drain) }

// allow puts a policy in force.
func (b *forwardBench) allow(rules ...string) {
	b.t.Helper()
	spec := allowlists.PoolSpec{Name: "build", Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for _, text := range rules {
		target, err := allowlists.ParseTarget(text, 80)
		if err != nil {
			b.t.Fatal(err)
		}
		pattern, err := allowlists.ParsePattern(target.Host.String())
		if err != nil {
			b.t.Fatal(err)
		}
		spec.Allow = append(spec.Allow, allowlists.Rule{
			Text: text, Host: pattern, Ports: allowlists.NewPortSet(target.Port),
			ResolvesTo: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		})
	}
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{spec}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.policy.Store(policy)
}

func (b *forwardBench) note(n note) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notes = append(b.notes, n)
	close(b.changed)
	b.changed = make(chan struct{})
}

// phases waits for n records of a phase and gives them.
func (b *forwardBench) phases(phase string, n int) []note {
	b.t.Helper()
	late := time.After(5 * time.Second)
	for {
		b.mu.Lock()
		var found []note
		for _, have := range b.notes {
			if have.phase == phase {
				found = append(found, have)
			}
		}
		changed := b.changed
		b.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-changed:
		case <-late:
			b.t.Fatalf("%d records of phase %s came, want %d; all: %v", len(found), phase, n, b.notes)
		}
	}
}

// dialClient connects to the bench.
func (b *forwardBench) dialClient() *benchClient {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &benchClient{b.t, conn.(*net.TCPConn), bufio.NewReader(conn)}
}

// A benchClient speaks HTTP by hand.
type benchClient struct {
	t *testing.T
	*net.TCPConn
	in *bufio.Reader
}

func (c *benchClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// response reads a whole response to a request with the given method.
func (c *benchClient) response(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("reading the response: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("reading the body: %v", err)
	}
	return resp, string(body)
}

// do sends one request and gives status and body.
func (c *benchClient) do(text string) (int, string) {
	c.t.Helper()
	c.send(text)
	method, _, _ := strings.Cut(text, " ")
	resp, body := c.response(method)
	return resp.StatusCode, body
}

// ended fails unless the connection ends without a further byte.
func (c *benchClient) ended() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.in); len(rest) > 0 || errors.Is(err, context.DeadlineExceeded) {
		c.t.Errorf("%q follows (%v)", rest, err)
	}
}

// benchGate is the session of one connection.
type benchGate struct {
	b    *forwardBench
	conn net.Conn
}

func (g *benchGate) admit(_ context.Context, h *head, target allowlists.Target) (passage, error) {
	policy := g.b.policy.Load()
	d := judgeRequest(policy.Pool("build"), h, target, time.Now())
	if !d.Allowed() {
		return nil, &allowlists.DeniedError{Decision: d}
	}
	return &benchPassage{g: g, h: h, target: target, policy: policy, d: d}, nil
}

func (g *benchGate) refuse(h *head, target allowlists.Target, err error) {
	g.b.note(note{phase: "refused", target: h.claimed, method: h.method, reason: reasonOf(err), err: err})
	answerBench(g.conn, err)
}

func answerBench(conn net.Conn, err error) {
	status := reasonOf(err).Status()
	if errors.Is(err, errHeadLarge) {
		status = 431
	}
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d Sallyport: %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", status, reasonOf(err))
}

type benchPassage struct {
	g      *benchGate
	h      *head
	target allowlists.Target
	policy *allowlists.Policy
	d      allowlists.Decision
}

func (p *benchPassage) decision() allowlists.Decision { return p.d }
func (p *benchPassage) generation() uint64            { return p.policy.Generation() }
func (p *benchPassage) reusable(addr netip.Addr) bool {
	return !p.g.b.noReuse.Load() && p.policy.Pool("build").DecideDial(p.d, addr, p.target.Port, time.Now()).Allowed()
}

func (p *benchPassage) dial(ctx context.Context) (net.Conn, error) {
	p.g.b.dials.Add(1)
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.g.b.origin)
	if err != nil {
		d := allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.UpstreamFailed}
		return nil, &allowlists.DeniedError{Decision: d, Err: err}
	}
	return conn, nil
}

func (p *benchPassage) refuse(err error) { p.g.refuse(p.h, p.target, err) }

func (p *benchPassage) openMeter() *meter { return nil }

func (p *benchPassage) opened(netip.Addr) {
	p.g.b.note(note{phase: "open", target: p.target.String(), method: p.h.method, reason: p.d.Reason})
}

func (p *benchPassage) still() error {
	if d := judgeRequest(p.g.b.policy.Load().Pool("build"), p.h, p.target, time.Now()); !d.Allowed() {
		return &allowlists.DeniedError{Decision: allowlists.Decision{Reason: allowlists.PolicyChanged}}
	}
	return nil
}

func (p *benchPassage) closed(sent, received int64, err error) {
	p.g.b.note(note{phase: "close", target: p.target.String(), method: p.h.method, reason: reasonOf(err), sent: sent, received: received, err: err})
}

func (p *benchPassage) answer(err error) { answerBench(p.g.conn, err) }
