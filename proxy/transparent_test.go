package proxy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// A gateway is a world whose listener is transparent: original says where its
// clients wanted to go, as a firewall would.
type gateway struct {
	*world
	original atomic.Pointer[netip.AddrPort]
	probe    atomic.Pointer[netip.AddrPort]
}

// newGateway starts a transparent proxy for pool; book is what the pool was
// answered with, names by address, newest first.
func newGateway(t *testing.T, p allowlists.PoolSpec, book map[string]string, resolved map[string]string) *gateway {
	t.Helper()
	g := &gateway{}
	g.original.Store(&netip.AddrPort{})
	g.probe.Store(&netip.AddrPort{})
	g.world = newWorld(t, p, limits(func(l *allowlists.Limits) { l.HelloTimeout = 300 * time.Millisecond }), func(cfg *proxy.Config) {
		cfg.Listeners[0].Transparent = true
		cfg.Original = func(*net.TCPConn) netip.AddrPort { return *g.original.Load() }
		cfg.Probe = func(at netip.AddrPort) bool { return at == *g.probe.Load() }
	})
	g.resolver.names = func(addr netip.Addr) []string { return strings.Fields(book[addr.String()]) }
	g.resolver.lookup = answers(resolved)
	return g
}

// to makes a connection that was redirected from its way to addr.
func (g *gateway) to(addr string) *client {
	g.t.Helper()
	original := netip.AddrPort{}
	if addr != "" {
		original = netip.MustParseAddrPort(addr)
	}
	g.original.Store(&original)
	conn, err := net.Dial("tcp", g.addr)
	if errors.Is(err, syscall.ECONNRESET) { // refused before connect(2) looked
		conn, err = &net.TCPConn{}, nil
	}
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{g.t, conn.(*net.TCPConn), bufio.NewReader(conn)}
}

// newTargetAt is newTarget at an address of its own, maybe below port 1024.
func newTargetAt(t *testing.T, addr string, handle func(*net.TCPConn)) *atomic.Int32 {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil && os.Getenv("SALLYPORT_CI") == "1" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("SKIPPED on this machine: needs to listen on %s: %v", addr, err)
	}
	var conns atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				handle(conn.(*net.TCPConn))
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return &conns
}

func echoes(c *net.TCPConn) { _, _ = io.Copy(c, c); _ = c.CloseWrite() }

// TestRedirectedVerdicts sends every kind of redirected connection, and holds
// record, answer and the number of connections at each target against the rules.
func TestRedirectedVerdicts(t *testing.T) {
	tg, other := newTarget(t, nil), newTarget(t, nil)
	right, wrong := "127.0.0.1:"+tg.port, "93.184.216.34:"+other.port
	p := pool(
		rule("tls.example:"+tg.port, requireTLS), rule("second.example:"+tg.port, requireTLS), rule("tls.example:"+other.port, requireTLS),
		rule("gone.example:"+other.port, requireTLS), rule("raw.example:"+tg.port), rule("ssh.example:22"),
		rule("deny.example:*"), rule("198.51.100.0/24:5432"), rule("127.0.9.0/24:"+tg.port),
	)
	p.Deny = []allowlists.Rule{rule("deny.example:*"), rule("203.0.113.66/32:*")}
	p.ECH = allowlists.ECHDeny
	hello := func(name string) string {
		return string(helloBytes(t, func(c *tls.Config) { c.ServerName = name; c.InsecureSkipVerify = true }))
	}
	for _, row := range []struct {
		says     string
		to, book string // the original destination, and the names that its address was answered for
		send     string
		reason   string
		phase    string
		host     string
		back     bool // what was sent comes back
		alert    bool // a TLS alert comes back
		check    func(*testing.T, proxy.ConnRecord)
	}{
		{says: "an allowed name at an address it was answered with", to: right, book: "tls.example", send: hello("tls.example"),
			reason: "allowed", phase: "open", host: "tls.example", back: true,
			check: func(t *testing.T, r proxy.ConnRecord) {
				if r.Via != "tls" || r.SNI != "tls.example" || r.Redialled || r.Ambiguous || r.Addr.String() != "127.0.0.1" {
					t.Errorf("%+v", r)
				}
			}},
		{says: "two allowed names, told apart by the hello", to: right, book: "second.example tls.example", send: hello("tls.example"),
			reason: "allowed", phase: "open", host: "tls.example", back: true,
			check: func(t *testing.T, r proxy.ConnRecord) {
				if r.Ambiguous {
					t.Error("a visible name is not ambiguous")
				}
			}},
		{says: "an allowed name at an address it never had", to: wrong, book: "", send: hello("tls.example"),
			reason: "allowed", phase: "open", host: "tls.example",
			check: func(t *testing.T, r proxy.ConnRecord) {
				if !r.Redialled || r.Original.String() != "93.184.216.34" || r.Addr.String() != "127.0.0.2" {
					t.Errorf("%+v", r)
				}
			}},
		{says: "an allowed name at an address it never had, and that has no address", to: wrong, book: "", send: hello("gone.example"),
			reason: "no-such-host", phase: "refused", host: "gone.example", alert: true},
		{says: "a name without a rule at an allowed address", to: right, book: "tls.example", send: hello("evil.example"),
			reason: "not-in-allowlist", phase: "refused", host: "evil.example", alert: true},
		{says: "a name in deny at an allowed address", to: right, book: "tls.example", send: hello("deny.example"),
			reason: "denied-by-rule", phase: "refused", host: "deny.example", alert: true},
		{says: "a hello without a name, the book has one", to: right, book: "tls.example", send: hello("127.0.0.1"),
			reason: "sni-missing", phase: "refused", host: "tls.example", alert: true},
		{says: "a hello without a name, the book has none", to: right, book: "", send: hello("127.0.0.1"),
			reason: "special-address", phase: "refused"},
		{says: "a hello without a name to a public address of nobody", to: "93.184.216.34:443", send: hello("127.0.0.1"),
			reason: "address-mismatch", phase: "refused", alert: true},
		{says: "a name that IDNA would map", to: "93.184.216.34:443", send: hello("tls.ex\u00e4mple"),
			reason: "bad-host", phase: "refused", host: "tls.ex\u00e4mple", alert: true},
		{says: "no TLS where it must be", to: right, book: "tls.example", send: "SSH-2.0-x\r\n",
			reason: "not-tls", phase: "refused", host: "tls.example"},
		{says: "no TLS on 443 to an address of nobody", to: "93.184.216.34:443", send: "SSH-2.0-x\r\n",
			reason: "address-mismatch", phase: "refused"},
		{says: "nothing at all to 443 of nobody", to: "93.184.216.34:443", reason: "address-mismatch", phase: "refused"},
		{says: "nothing at all where TLS must be", to: right, book: "tls.example", reason: "timed-out", phase: "close", host: "tls.example"},
		{says: "tls: off by the book", to: right, book: "raw.example", send: "anything", reason: "allowed", phase: "open", host: "raw.example", back: true,
			check: func(t *testing.T, r proxy.ConnRecord) {
				if r.Via != "tcp" || r.Ambiguous {
					t.Errorf("%+v", r)
				}
			}},
		{says: "tls: off by a book of two names", to: right, book: "ssh.example raw.example", send: "anything", reason: "allowed", phase: "open", host: "raw.example", back: true,
			check: func(t *testing.T, r proxy.ConnRecord) {
				if !r.Ambiguous {
					t.Error("two names are ambiguous")
				}
			}},
		{says: "a name of the book on a port that no rule has", to: "127.0.0.1:23", book: "ssh.example", send: "x", reason: "port-not-allowed", phase: "refused", host: "ssh.example"},
		{says: "an address of nobody on a port without TLS", to: "93.184.216.34:22", send: "x", reason: "address-mismatch", phase: "refused"},
		{says: "DNS over TLS to anyone", to: "93.184.216.34:853", send: hello("dns.example"), reason: "resolver-bypass", phase: "refused"},
		{says: "a special address of nobody", to: "10.1.2.3:22", send: "x", reason: "special-address", phase: "refused"},
		{says: "the metadata address", to: "169.254.169.254:443", send: "x", reason: "special-address", phase: "refused"},
		{says: "an address in a cidr rule of deny, though a name is allowed there", to: "203.0.113.66:443", book: "tls.example", send: hello("tls.example"),
			reason: "denied-by-rule", phase: "refused"},
		{says: "an address in a cidr rule", to: "127.0.9.1:" + tg.port, book: "", send: "anything", reason: "allowed", phase: "open", back: true},
		{says: "a connection made straight to us", to: "", send: "x", reason: "special-address", phase: "refused"},
	} {
		t.Run(row.says, func(t *testing.T) {
			before := tg.conns.Load() + other.conns.Load()
			book := map[string]string{}
			if row.to != "" {
				book[netip.MustParseAddrPort(row.to).Addr().String()] = row.book
			}
			g := newGateway(t, p, book, map[string]string{"tls.example": "127.0.0.2", "second.example": "127.0.0.1", "raw.example": "127.0.0.1"})
			if row.says == "an allowed name at an address it never had" {
				newTargetAt(t, "127.0.0.2:"+other.port, echoes)
			}
			if strings.HasPrefix(row.to, "127.0.9.1") {
				newTargetAt(t, row.to, echoes)
			}
			c := g.to(row.to)
			_, sendErr := io.WriteString(c.TCPConn, row.send)
			if row.back {
				got := make([]byte, len(row.send))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != row.send {
					t.Errorf("came back: %d bytes, %v", len(got), err)
				}
			}
			rec := g.wait(row.phase, func(r proxy.ConnRecord) bool { return r.Phase == row.phase })
			if rec.Decision.Reason.String() != row.reason || rec.Host != row.host && row.host != "" {
				t.Errorf("%s for %q, want %s for %q", rec.Decision.Reason, rec.Host, row.reason, row.host)
			}
			if row.check != nil {
				row.check(t, rec)
			}
			if row.phase == "refused" {
				got, err := io.ReadAll(c)
				if err == nil { // a reset is told once, to the write where it came before that
					err = sendErr
				}
				if row.alert != (len(got) == 7 && got[0] == 21) || !row.alert && len(got) > 0 || err == nil && !row.alert {
					t.Errorf("the client read % x, %v; want a reset, after a TLS alert: %v", got, err, row.alert)
				}
				if n := tg.conns.Load() + other.conns.Load(); n != before {
					t.Errorf("%d connections reached a target", n-before)
				}
			}
			_ = c.Close()
			if row.phase == "open" {
				g.phase(proxy.PhaseClose)
			}
			g.checkRecords()
		})
	}
}

// TestRedirectedHTTP judges redirected plain HTTP request by request.
func TestRedirectedHTTP(t *testing.T) {
	p := pool(rule("web.example:80"), rule("other.example:80"))
	asked := make(chan string, 16)
	conns := newTargetAt(t, "127.0.80.1:80", func(c *net.TCPConn) {
		buffer := make([]byte, 4096)
		for {
			n, err := c.Read(buffer)
			if err != nil {
				return
			}
			asked <- string(buffer[:n])
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	get := func(host string) string { return "GET /x HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	for _, row := range []struct {
		says, to, book string
		send           []string
		codes          []int
		reason, host   string // of the last record that has a verdict
	}{
		{"an allowed host at its address, twice", "127.0.80.1:80", "web.example", []string{get("web.example"), get("web.example")}, []int{200, 200}, "allowed", "web.example"},
		{"another allowed host on the same connection", "127.0.80.1:80", "web.example", []string{get("web.example"), get("other.example")}, []int{200, 403}, "host-mismatch", "web.example"},
		{"an allowed host at an address it never had", "93.184.216.34:80", "", []string{get("web.example")}, []int{200}, "allowed", "web.example"},
		{"a refused host at an allowed address", "127.0.80.1:80", "web.example", []string{get("evil.example")}, []int{403}, "not-in-allowlist", "evil.example"},
		{"an address for a host", "93.184.216.34:80", "", []string{get("93.184.216.34")}, []int{403}, "address-mismatch", ""},
		{"HTTP/1.0 without Host, by the book", "127.0.80.1:80", "web.example", []string{"GET / HTTP/1.0\r\n\r\n"}, []int{200}, "allowed", "web.example"},
		{"HTTP/1.0 without Host, the book has none", "93.184.216.34:80", "", []string{"GET / HTTP/1.0\r\n\r\n"}, []int{403}, "address-mismatch", ""},
		{"a request to the metadata address", "169.254.169.254:80", "", []string{get("169.254.169.254")}, []int{403}, "special-address", ""},
		{"a request to the metadata address under an allowed name", "169.254.169.254:80", "", []string{get("web.example")}, []int{403}, "special-address", "web.example"},
		{"CONNECT on a redirected connection", "127.0.80.1:80", "web.example", []string{"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"}, []int{400}, "bad-request", ""},
		{"the preface of HTTP/2", "127.0.80.1:80", "web.example", []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, []int{400}, "bad-request", ""},
		{"no HTTP at all", "127.0.80.1:80", "web.example", []string{"\x16\x03\x01\x02\x00"}, []int{400}, "bad-request", ""},
	} {
		t.Run(row.says, func(t *testing.T) {
			before := conns.Load()
			g := newGateway(t, p, map[string]string{netip.MustParseAddrPort(row.to).Addr().String(): row.book}, map[string]string{"web.example": "127.0.80.1", "other.example": "127.0.80.1"})
			c := g.to(row.to)
			refused := false
			for i, text := range row.send {
				r := c.send("GET", text)
				if r.code != row.codes[i] {
					t.Fatalf("request %d: %s, want %d", i, r.line, row.codes[i])
				}
				if refused = r.code != 200; refused && r.header.Get("Sallyport-Reason") != row.reason {
					t.Errorf("%s: %s", r.line, r.body)
				}
			}
			_ = c.Close()
			verdict := proxy.ConnRecord{}
			for _, rec := range g.all() {
				if rec.Phase == proxy.PhaseOpen || rec.Phase == proxy.PhaseRefused {
					verdict = rec
				}
			}
			if verdict.Via != "http" || verdict.Decision.Reason.String() != row.reason || row.host != "" && verdict.Host != row.host {
				t.Errorf("the last verdict is %s %q %s", verdict.Via, verdict.Host, verdict.Decision.Reason)
			}
			if verdict.Redialled != (row.reason == "allowed" && row.book == "") {
				t.Errorf("redialled is %v", verdict.Redialled)
			}
			if len(row.send) == 1 && refused && conns.Load() != before {
				t.Error("a refused request reached the target")
			}
			g.stop()
			<-g.served
			g.checkRecords()
		})
	}
}

// TestRedirectedAudit lets pass what audit forwards, and nothing else.
func TestRedirectedAudit(t *testing.T) {
	tg := newTarget(t, nil)
	port, _ := strconv.Atoi(tg.port)
	p := pool(rule("tls.example:"+tg.port, requireTLS))
	p.ResolvesTo = loopback
	p.Mode = allowlists.Audit
	for _, row := range []struct {
		says, to, book, send string
		reason, would        string
		back                 bool
	}{
		{"no TLS where it must be", "127.0.0.1:" + tg.port, "tls.example", "plain", "allowed-by-audit", "not-tls", true},
		{"loopback, which audit does not open", "127.0.0.9:" + tg.port, "", "plain", "special-address", "", false},
		{"the metadata address", "169.254.169.254:" + strconv.Itoa(port), "", "plain", "special-address", "", false},
	} {
		t.Run(row.says, func(t *testing.T) {
			g := newGateway(t, p, map[string]string{netip.MustParseAddrPort(row.to).Addr().String(): row.book}, nil)
			c := g.to(row.to)
			_, _ = io.WriteString(c.TCPConn, row.send)
			if row.back {
				if _, err := io.ReadFull(c, make([]byte, len(row.send))); err != nil {
					t.Error(err)
				}
			}
			rec := g.wait("the verdict", func(r proxy.ConnRecord) bool {
				return r.Phase == proxy.PhaseOpen || r.Phase == proxy.PhaseRefused
			})
			if rec.Decision.Reason.String() != row.reason || row.would != "" && rec.Decision.Would.String() != row.would {
				t.Errorf("%s, would %s", rec.Decision.Reason, rec.Decision.Would)
			}
		})
	}
}

// TestRedirectedReload takes the rule away under an open connection.
func TestRedirectedReload(t *testing.T) {
	tg := newTarget(t, nil)
	for _, row := range []struct {
		says string
		rule allowlists.Rule
		send string
	}{
		{"with a hello", rule("name.example:"+tg.port, requireTLS), string(helloBytes(t, func(c *tls.Config) { c.ServerName = "name.example" }))},
		{"by the book", rule("name.example:" + tg.port), "anything"},
	} {
		t.Run(row.says, func(t *testing.T) {
			g := newGateway(t, pool(row.rule), map[string]string{"127.0.0.1": "name.example"}, nil)
			c := g.to("127.0.0.1:" + tg.port)
			_, _ = io.WriteString(c.TCPConn, row.send)
			if _, err := io.ReadFull(c, make([]byte, len(row.send))); err != nil {
				t.Fatal(err)
			}
			g.set(pool(rule("another.example:443")))
			g.server.PolicyChanged()
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("the connection goes on")
			}
			if rec := g.phase(proxy.PhaseClose); rec.Decision.Reason != allowlists.PolicyChanged {
				t.Errorf("closed for %s", rec.Decision.Reason)
			}
		})
	}
}

// TestRedirectedProbe closes a probe of ours without a record.
func TestRedirectedProbe(t *testing.T) {
	g := newGateway(t, pool(rule("name.example:443")), nil, nil)
	at := netip.MustParseAddrPort("192.0.2.77:40123")
	g.probe.Store(&at)
	if _, err := g.to(at.String()).Read(make([]byte, 1)); err == nil {
		t.Error("the probe goes on")
	}
	g.to("192.0.2.78:40123")
	if rec := g.phase(proxy.PhaseRefused); rec.Addr.String() != "192.0.2.78" || len(g.all()) != 1 {
		t.Errorf("records: %s", g.dump())
	}
}
