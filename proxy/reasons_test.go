package proxy_test

import (
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// TestEveryRefusalBeforeThe2xx produces each reason that has an HTTP answer:
// one record, one answer, not one dial.
func TestEveryRefusalBeforeThe2xx(t *testing.T) {
	tg := newTarget(t, nil)
	p := pool(
		rule("good.example:"+tg.port), rule("tls.example:443"), rule("web.example:80"),
		rule("private.example:443"), rule("meta.example:443"), rule("both.example:9", func(r *allowlists.Rule) { r.ResolvesTo = nil }),
		rule("gone.example:443"), rule("dead.example:9"), rule("self.example:*"),
		rule("old.example:443", func(r *allowlists.Rule) { r.Expires = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) }),
		rule("gist.example:443"),
	)
	p.Deny = []allowlists.Rule{rule("gist.example:*")}
	w := newWorld(t, p)
	w.resolver.lookup = answers(map[string]string{
		"good.example": "127.0.0.1", "tls.example": "127.0.0.1", "web.example": "127.0.0.1", "private.example": "10.1.2.3",
		"meta.example": "169.254.169.254", "both.example": "10.1.2.3 fd00::1", "dead.example": "127.0.0.1", "self.example": "127.0.0.1",
	})
	w.resolver.names = func(addr netip.Addr) []string {
		if addr == netip.MustParseAddr("140.82.121.4") {
			return []string{"tls.example"}
		}
		return nil
	}
	own := w.addr[strings.LastIndexByte(w.addr, ':')+1:]
	rows := []struct {
		says   string
		raw    string
		code   int
		reason string
		body   string // in the body
	}{
		{"a name without a rule", "CONNECT evil.example:443", 403, "not-in-allowlist", `"- evil.example"`},
		{"a name in capitals, with a final dot", "CONNECT EVIL.example.:8443", 403, "not-in-allowlist", `"- evil.example:8443"`},
		{"a port that no rule has", "CONNECT tls.example:22", 403, "port-not-allowed", "sallyport.yaml:14"},
		{"a rule that expired", "CONNECT old.example:443", 403, "expired-rule", "expired"},
		{"a name in deny", "CONNECT gist.example:443", 403, "denied-by-rule", "sallyport.yaml:14"},
		{"an address of an allowed name", "CONNECT 140.82.121.4:443", 403, "address-literal", "tls.example"},
		{"an address of no name", "CONNECT 140.82.121.5:443", 403, "address-literal", "cidr: 140.82.121.5/32"},
		{"a loopback address", "CONNECT 127.0.0.1:22", 403, "special-address", "loopback"},
		{"the metadata address", "CONNECT 169.254.169.254:80", 403, "special-address", "at 169.254.169.254 a cloud gives its credentials to whoever asks; a rule that names exactly this address would open it, which is rarely meant (decision "},
		{"the metadata address inside IPv6", "CONNECT [::ffff:169.254.169.254]:80", 403, "special-address", "credentials"},
		{"an address that nothing opens", "CONNECT 0.0.0.0:80", 403, "special-address", "the address is special (unspecified), and nothing opens it (decision "},
		{"a name with a private address", "CONNECT private.example:443", 403, "special-address", "10.1.2.3"},
		{"a name with the metadata address", "CONNECT meta.example:443", 403, "special-address", "at 169.254.169.254 a cloud gives its credentials"},
		{"a name with two private addresses", "CONNECT both.example:9", 403, "special-address", "resolves_to"},
		{"our own listener by name", "CONNECT self.example:" + own, 403, "special-address", "own listeners"},
		{"a resolver that no rule names", "CONNECT dns.google:443", 403, "resolver-bypass", ""},
		{"a number in disguise", "CONNECT 0x7f.1:443", 400, "bad-host", ""},
		{"brackets around a name", "CONNECT [tls.example]:443", 400, "bad-host", ""},
		{"a percent-escape in a name", "CONNECT tls%2eexample:443", 400, "bad-host", ""},
		{"a port out of range", "CONNECT tls.example:99999", 400, "bad-request", ""},
		{"no port", "CONNECT tls.example", 400, "bad-request", ""},
		{"a path to the proxy itself", "GET /", 400, "bad-request", ""},
		{"an https URI", "GET https://tls.example/", 400, "bad-request", "scheme"},
		{"an ftp URI", "GET ftp://tls.example/", 400, "bad-request", ""},
		{"a lower-case connect", "connect tls.example:443", 400, "bad-request", ""},
		{"the asterisk", "OPTIONS *", 400, "bad-request", ""},
		{"a URI without a rule", "GET http://evil.example/x", 403, "not-in-allowlist", ""},
		{"a URI with an address", "GET http://140.82.121.4/x", 403, "address-literal", ""},
		{"a name without an address", "CONNECT gone.example:443", 502, "no-such-host", ""},
		{"a port nobody listens on", "CONNECT dead.example:9", 502, "upstream-failed", "refused"},
	}
	for _, row := range rows {
		t.Run(row.says, func(t *testing.T) {
			method, _, _ := strings.Cut(row.raw, " ")
			host := "x.example"
			if strings.HasPrefix(row.raw, "GET http://") {
				host = strings.Split(row.raw, "/")[2]
			}
			c := w.dial()
			r := c.send(method, row.raw+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			checkRefusal(t, w, r, row.code, row.reason)
			if !strings.Contains(r.body, row.body) {
				t.Errorf("the body is %q, want %q in it", r.body, row.body)
			}
			if _, err := c.Read(make([]byte, 1)); !ended(err) {
				t.Errorf("the connection is open after the refusal: %v", err)
			}
		})
	}
	if n := tg.conns.Load(); n != 0 {
		t.Errorf("%d dials for refusals, want none", n)
	}
	w.checkRecords()
}

var statusLine = regexp.MustCompile(`^HTTP/1\.1 (\d{3}) Sallyport: [ -~]+ \(([a-z-]+), ([a-z2-9]{12})\)$`)

// checkRefusal holds an answer against DESIGN section 5, and its record against
// the answer.
func checkRefusal(t *testing.T, w *world, r reply, code int, reason string) {
	t.Helper()
	m := statusLine.FindStringSubmatch(r.line)
	if m == nil || len(r.line) > 120 {
		t.Fatalf("the status line is %q", r.line)
	}
	if m[1] != fmt.Sprint(code) || m[2] != reason || r.header.Get("Sallyport-Reason") != reason || r.header.Get("Sallyport-Id") != m[3] {
		t.Errorf("%s with %v, want %d %s", r.line, r.header, code, reason)
	}
	if r.header.Get("Content-Type") != "text/plain" || r.header.Get("Connection") != "close" && r.code < 600 && r.header.Get("Content-Length") == "" {
		t.Errorf("headers %v", r.header)
	}
	if retry := r.header.Get("Retry-After"); (retry != "") != (code == 429 || code == 503) {
		t.Errorf("Retry-After %q with %d", retry, code)
	}
	if !strings.Contains(r.body, "127.0.0.1") || !strings.Contains(r.body, m[3]) {
		t.Errorf("the body names no client or no decision: %q", r.body)
	}
	n := 0
	for _, rec := range w.all() { // the record came before the answer
		if rec.ID == m[3] {
			n++
			if rec.Phase != proxy.PhaseRefused || rec.Decision.Reason.String() != reason {
				t.Errorf("the record says %s %s", rec.Phase, rec.Decision.Reason)
			}
			if rec.Decision.Reason.Failure() != rec.Decision.Allowed() {
				t.Errorf("the record has the verdict %s", rec.Decision.Verdict)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d records of the decision, want 1", n)
	}
}

// TestMalformedHeadsLeaveOneRecord sends heads that net/http would answer by itself.
func TestMalformedHeadsLeaveOneRecord(t *testing.T) {
	w := newWorld(t, pool(rule("good.example:443")))
	for says, row := range map[string]struct {
		raw    string
		code   int
		reason string
	}{
		"the HTTP/2 preface":     {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad-request"},
		"a TLS ClientHello":      {"\x16\x03\x01\x02\x00\x01\x00", 400, "bad-request"},
		"a bare line feed":       {"CONNECT good.example:443 HTTP/1.1\nHost: x\n\n", 400, "bad-request"},
		"a NUL in the name":      {"CONNECT good.example\x00.evil.example:443 HTTP/1.1\r\n", 400, "bad-request"},
		"a body after CONNECT":   {"CONNECT good.example:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", 400, "bad-request"},
		"two lengths":            {"POST http://good.example/ HTTP/1.1\r\nHost: good.example\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "bad-request"},
		"a head that is too big": {"CONNECT good.example:443 HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 9000), 431, "limit-exceeded"},
	} {
		t.Run(says, func(t *testing.T) {
			checkRefusal(t, w, w.dial().send("GET", row.raw), row.code, row.reason)
		})
	}
	w.checkRecords()
}

// TestSilenceLeavesNoRecord opens connections that never say anything.
func TestSilenceLeavesNoRecord(t *testing.T) {
	w := newWorld(t, pool(), limits(func(l *allowlists.Limits) { l.HeaderTimeout = 50 * time.Millisecond }))
	c := w.dial()
	if _, err := c.Read(make([]byte, 1)); !ended(err) {
		t.Errorf("a silent connection stays open: %v", err)
	}
	checkRefusal(t, w, w.dial().send("GET", "CONNECT evil.example:443 HT"), 400, "bad-request")
	if n := len(w.all()); n != 1 {
		t.Errorf("%d records, want 1 for the head that stopped%s", n, w.dump())
	}
}

// TestGateRefusesNewWork holds not-ready, log-degraded and shutting-down.
func TestGateRefusesNewWork(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)))
	for _, reason := range []allowlists.Reason{allowlists.NotReady, allowlists.LogDegraded, allowlists.ShuttingDown} {
		w.gate.Store(uint32(reason))
		checkRefusal(t, w, w.dial().connect("good.example:"+tg.port), 503, reason.String())
		checkRefusal(t, w, w.dial().send("GET", "GET http://good.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n"), 503, reason.String())
	}
	if n := tg.conns.Load(); n != 0 {
		t.Errorf("%d dials", n)
	}
}

// TestNoPool asks as a client that no pool admits.
func TestNoPool(t *testing.T) {
	p := pool(rule("good.example:443"))
	p.Sources = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	w := newWorld(t, p)
	w.resolver.lookup = func(allowlists.Host) (allowlists.Answer, error) {
		t.Error("a lookup for nobody")
		return allowlists.Answer{}, nil
	}
	checkRefusal(t, w, w.dial().connect("good.example:443"), 403, "no-pool")
}

// TestSpecialAddressInAuditSaysWhichLine refuses a name that audit lets pass without
// a rule, for its address: there is no rule to name, but a line to write.
func TestSpecialAddressInAuditSaysWhichLine(t *testing.T) {
	p := pool(rule("good.example:443"))
	p.Mode = allowlists.Audit
	w := newWorld(t, p)
	w.resolver.lookup = answers(map[string]string{"near.example": "169.254.7.7"})
	r := w.dial().connect("near.example:443")
	checkRefusal(t, w, r, 403, "special-address")
	if want := `add the line "- {host: near.example, ports: [443], resolves_to: [169.254.7.7/32]}" (decision `; !strings.Contains(r.body, want) {
		t.Errorf("the body is %q, want %q in it", r.body, want)
	}
}

// TestLongNamesKeepReasonAndID holds the status line's 120 bytes.
func TestLongNamesKeepReasonAndID(t *testing.T) {
	w := newWorld(t, pool())
	long := strings.Repeat("a234567890.", 22) + "example"
	r := w.dial().connect(long + ":443")
	checkRefusal(t, w, r, 403, "not-in-allowlist")
	if !strings.Contains(r.line, "example:443 not in pool build") {
		t.Errorf("%q does not say whose name it is", r.line)
	}
}

// TestRefusalSurvivesEarlyBytes sends more than the refusal waits for, and
// expects the answer and then a clean end, which a reset could overtake.
func TestRefusalSurvivesEarlyBytes(t *testing.T) {
	w := newWorld(t, pool())
	c := w.dial()
	r := c.send("CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"+strings.Repeat("early", 20000))
	checkRefusal(t, w, r, 403, "not-in-allowlist")
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the answer: %v, want the end of the stream", err)
	}
}

// TestAuditForwardsAndRecords connects where enforce would not.
func TestAuditForwardsAndRecords(t *testing.T) {
	tg := newTarget(t, nil)
	p := pool(rule("good.example:9"))
	p.Mode, p.ResolvesTo = allowlists.Audit, loopback
	p.Deny = []allowlists.Rule{rule("gist.example:*")}
	w := newWorld(t, p)
	for host, would := range map[string]allowlists.Reason{"good.example": allowlists.PortNotAllowed, "evil.example": allowlists.NotInAllowlist} {
		c := w.tunnel(host + ":" + tg.port)
		open := w.wait(host, func(r proxy.ConnRecord) bool { return r.Phase == proxy.PhaseOpen && r.Host == host })
		if d := open.Decision; !d.Allowed() || d.Reason != allowlists.AllowedByAudit || d.Would != would {
			t.Errorf("%s: %v would %v", host, d.Reason, d.Would)
		}
		_ = c.Close()
	}
	checkRefusal(t, w, w.dial().connect("gist.example:443"), 403, "denied-by-rule")
	checkRefusal(t, w, w.dial().connect("127.0.0.1:"+tg.port), 403, "special-address")
}

// TestOverTheLimitIsAnswered fills the proxy and asks once more.
func TestOverTheLimitIsAnswered(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port)), limits(func(l *allowlists.Limits) { l.ConnectionsPerClient = 2 }))
	a, b := w.tunnel("good.example:"+tg.port), w.tunnel("good.example:"+tg.port)
	checkRefusal(t, w, w.dial().connect("good.example:"+tg.port), 429, "limit-exceeded")
	_ = a.Close()
	w.phase(proxy.PhaseClose)
	var c reply
	for late := time.Now().Add(patience); time.Now().Before(late); { // the place is given back after the record
		if c = w.dial().connect("good.example:" + tg.port); c.code == 200 {
			break
		}
	}
	if c.code != 200 {
		t.Errorf("after one left: %s", c.line)
	}
	_ = b.Close()
}

// TestPanicEndsItsConnectionAlone panics in a resolver.
func TestPanicEndsItsConnectionAlone(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("good.example:"+tg.port), rule("boom.example:*")))
	lookup := w.resolver.lookup
	w.resolver.lookup = func(h allowlists.Host) (allowlists.Answer, error) {
		if h.String() == "boom.example" {
			panic("boom")
		}
		return lookup(h)
	}
	other := w.tunnel("good.example:" + tg.port)
	checkRefusal(t, w, w.dial().connect("boom.example:443"), 500, "internal-error")
	checkRefusal(t, w, w.dial().send("GET", "GET http://boom.example/ HTTP/1.1\r\nHost: boom.example\r\n\r\n"), 500, "internal-error")
	if _, err := other.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := other.Read(make([]byte, 1)); err != nil {
		t.Errorf("another connection died of it: %v", err)
	}
	_ = other.Close()
	w.phase(proxy.PhaseClose)
	w.checkRecords()
}
