package test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// reasonWorld is one daemon with an origin for each kind of refusal.
type reasonWorld struct {
	*daemon
	upstream *zone
	ca       *testCA
	tls      *origin
	web      *origin // nil unless root
	echo     *origin
}

// newReasonWorld builds the world; %TLS%, %ECHO% in pools stand for ports.
func newReasonWorld(t *testing.T, pools, rest string) *reasonWorld {
	t.Helper()
	d := prepare(t, config{rest: rest})
	w := &reasonWorld{daemon: d, ca: newCA(t)}
	ip := d.neighbour(2)
	cert := w.ca.issue("tls.example", "other.example", "front.example")
	w.tls = httpOrigin(t, ip+":0", &cert)
	w.echo = echoOrigin(t, ip+":0")
	if os.Geteuid() == 0 {
		w.web = httpOrigin(t, ip+":80", nil)
	}
	w.upstream = newZone(t)
	for _, name := range []string{"tls.example", "other.example", "web.example", "echo.example", "noech.example", "srv.example"} {
		w.upstream.add(t, name+". 60 IN A "+ip)
	}
	w.upstream.add(t, "private.example. 60 IN A 10.1.2.3")
	w.upstream.add(t, "meta.example. 60 IN A 169.254.169.254")
	w.upstream.add(t, "dead.example. 60 IN A "+ip)
	w.upstream.add(t, "self.example. 60 IN A "+d.ip)
	d.write(w.upstream.addr, strings.NewReplacer("%TLS%", w.tls.port, "%ECHO%", w.echo.port).Replace(pools))
	d.run()
	return w
}

const reasonPools = `
  build:
    sources: [127.0.0.0/8]
    allow:
      - {host: tls.example, ports: [%TLS%], tls: require, resolves_to: [127.0.0.0/8]}
      - {host: other.example, ports: [%TLS%], tls: require, resolves_to: [127.0.0.0/8]}
      - {host: web.example, ports: [80], resolves_to: [127.0.0.0/8]}
      - {host: echo.example, ports: [%ECHO%], resolves_to: [127.0.0.0/8]}
      - {host: dead.example, ports: [9], resolves_to: [127.0.0.0/8]}
      - {host: self.example, ports: [3128, 5300, 9180], resolves_to: [127.0.0.0/8]}
      - private.example
      - meta.example
      - nosuch.example
      - {host: old.example, expires: 2020-01-01}
    deny: [gist.example]
`

// TestEveryReasonBeforeThe2xx produces each reason that has an HTTP answer and
// holds answer, event and record count against DESIGN sections 5 and 6.
func TestEveryReasonBeforeThe2xx(t *testing.T) {
	w := newReasonWorld(t, reasonPools, "")
	for _, c := range []struct {
		raw    string
		code   int
		reason string
	}{
		{"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 403, "not-in-allowlist"},
		{"CONNECT tls.example:22 HTTP/1.1\r\nHost: tls.example:22\r\n\r\n", 403, "port-not-allowed"},
		{"CONNECT old.example:443 HTTP/1.1\r\nHost: old.example:443\r\n\r\n", 403, "expired-rule"},
		{"CONNECT gist.example:443 HTTP/1.1\r\nHost: gist.example:443\r\n\r\n", 403, "denied-by-rule"},
		{"CONNECT 140.82.121.4:443 HTTP/1.1\r\nHost: 140.82.121.4:443\r\n\r\n", 403, "address-literal"},
		{"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", 403, "special-address"},
		{"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n", 403, "special-address"},
		{"CONNECT [::ffff:169.254.169.254]:80 HTTP/1.1\r\nHost: x\r\n\r\n", 403, "special-address"},
		{"CONNECT private.example:443 HTTP/1.1\r\nHost: private.example:443\r\n\r\n", 403, "special-address"},
		{"CONNECT meta.example:443 HTTP/1.1\r\nHost: meta.example:443\r\n\r\n", 403, "special-address"},
		{"CONNECT self.example:3128 HTTP/1.1\r\nHost: self.example:3128\r\n\r\n", 403, "special-address"},
		{"CONNECT self.example:9180 HTTP/1.1\r\nHost: self.example:9180\r\n\r\n", 403, "special-address"},
		{"CONNECT dns.google:443 HTTP/1.1\r\nHost: dns.google:443\r\n\r\n", 403, "resolver-bypass"},
		{"CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: 0x7f.1:443\r\n\r\n", 400, "bad-host"},
		{"CONNECT tls.example\x00.evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""},
		{"CONNECT tls.example:99999 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"},
		{"CONNECT tls.example HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-request"},
		{"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n", 400, "bad-request"},
		{"GET https://tls.example/ HTTP/1.1\r\nHost: tls.example\r\n\r\n", 400, "bad-request"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad-request"},
		{"GET http://web.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n", 403, "host-mismatch"},
		{"GET http://web.example/ HTTP/1.1\nHost: web.example\n\n", 400, "bad-request"},
		{"GET http://web.example/ HTTP/1.1\r\nHost: web.example\r\nX: " + strings.Repeat("a", 70000) + "\r\n\r\n", 431, "limit-exceeded"},
		{"CONNECT nosuch.example:443 HTTP/1.1\r\nHost: nosuch.example:443\r\n\r\n", 502, "no-such-host"},
		{"CONNECT dead.example:9 HTTP/1.1\r\nHost: dead.example:9\r\n\r\n", 502, "upstream-failed"},
	} {
		what := c.raw[:min(len(c.raw), 60)]
		r := send(t, w.proxy, c.raw)
		reason, id := r.header.Get("Sallyport-Reason"), r.header.Get("Sallyport-Id")
		if r.code != c.code || c.reason != "" && reason != c.reason {
			t.Errorf("%q: %s (%s), want %d %s", what, r.status, reason, c.code, c.reason)
			continue
		}
		if len(r.status) > 120 || !strings.Contains(r.status, "("+reason+", "+id+")") || !strings.HasPrefix(r.status, fmt.Sprintf("HTTP/1.1 %d Sallyport: ", c.code)) {
			t.Errorf("%q: the status line is %q", what, r.status)
		}
		if r.header.Get("Content-Type") != "text/plain" || len(r.body) < 20 {
			t.Errorf("%q: %v %q", what, r.header, r.body)
		}
		if c.code >= 502 { // allowed traffic that failed: its line may wait a little
			w.wait("the line of "+id, func(e event) bool { return e.text("id") == id })
		}
		phases := 0
		for _, e := range w.events() { // a refusal's line is written before the answer
			if e.text("id") == id && e.text("kind") == "conn" && (e.text("phase") == "refused" || e.text("phase") == "open") {
				phases++
				if e.text("reason") != reason {
					t.Errorf("%q: the event says %s", what, e.text("reason"))
				}
			}
		}
		if phases != 1 {
			t.Errorf("%q: %d events with phase refused or open, want 1\n%s", what, phases, w.dump())
		}
	}
	if n, _ := w.tls.counts(); n != 0 {
		t.Errorf("the TLS origin was dialled %d times", n)
	}
}

// TestRefusalsByFirstBytes opens tunnels whose first bytes are wrong: none of
// them reaches the origin, and the open line is closed with the reason.
func TestRefusalsByFirstBytes(t *testing.T) {
	w := newReasonWorld(t, reasonPools, "\nlimits: {hello_timeout: 2s}\n")
	target := "tls.example:" + w.tls.port
	hello := func(conf *tls.Config) func(net.Conn) error {
		return func(conn net.Conn) error { return tls.Client(conn, conf).Handshake() }
	}
	for what, c := range map[string]struct {
		speak  func(net.Conn) error
		reason string
	}{
		"another allowed name": {hello(&tls.Config{ServerName: "other.example", RootCAs: w.ca.pool}), "sni-mismatch"},
		"a foreign name":       {hello(&tls.Config{ServerName: "evil.example", InsecureSkipVerify: true}), "sni-mismatch"},
		"no name":              {hello(&tls.Config{InsecureSkipVerify: true}), "sni-missing"},
		"plain HTTP":           {func(c net.Conn) error { return writeAndRead(c, "GET / HTTP/1.1\r\nHost: tls.example\r\n\r\n") }, "not-tls"},
		"SSH":                  {func(c net.Conn) error { return writeAndRead(c, "SSH-2.0-OpenSSH_9.6\r\n") }, "not-tls"},
		"silence":              {func(c net.Conn) error { return writeAndRead(c, "") }, "timed-out"},
		"DNS over TLS":         {hello(&tls.Config{ServerName: "tls.example", RootCAs: w.ca.pool, NextProtos: []string{"dot"}}), "resolver-bypass"},
	} {
		r := connect(t, w.proxy, target)
		if r.code != 200 {
			t.Errorf("%s: %s", what, r.status)
			continue
		}
		if err := c.speak(r.conn); err == nil {
			t.Errorf("%s passed", what)
		} else if c.reason != "timed-out" && !isReset(err) && !strings.Contains(err.Error(), "access denied") {
			t.Errorf("%s ended with %v, want a reset or the TLS alert access_denied", what, err)
		}
		r.conn.Close()
		w.wait(what+" closed as "+c.reason, func(e event) bool { return e.text("phase") == "close" && e.text("reason") == c.reason })
	}
	if _, requests := w.tls.counts(); len(requests) != 0 {
		t.Errorf("bytes reached the origin: %v", requests)
	}
	conn := connect(t, w.proxy, target).conn
	client := tls.Client(conn, &tls.Config{ServerName: "tls.example", RootCAs: w.ca.pool})
	if err := client.Handshake(); err != nil {
		t.Errorf("the right name is refused: %v", err)
	}
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE)
}

// writeAndRead speaks first and waits for the other side, which must hang up.
func writeAndRead(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := c.Read(make([]byte, 1))
	return err
}

// TestAuditForwardsAndRecords holds the audit column of DESIGN section 5.
func TestAuditForwardsAndRecords(t *testing.T) {
	w := newReasonWorld(t, strings.Replace(reasonPools, "build:", "build:\n    mode: audit", 1), "")
	r := connect(t, w.proxy, "echo.example:"+w.tls.port) // a port that no rule has; the answer is loopback
	if r.code != 200 {
		t.Errorf("port-not-allowed in audit: %s", r.status)
	}
	w.wait("port-not-allowed as would", func(e event) bool {
		return e.text("reason") == "allowed-by-audit" && e.text("would") == "port-not-allowed" && e.text("verdict") == "allow"
	})
	for raw, reason := range map[string]string{
		"CONNECT gist.example:443 HTTP/1.1\r\nHost: x\r\n\r\n":           "denied-by-rule",
		"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n":         "special-address",
		"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n":               "special-address",
		"CONNECT meta.example:443 HTTP/1.1\r\nHost: x\r\n\r\n":           "special-address",
		"CONNECT self.example:3128 HTTP/1.1\r\nHost: x\r\n\r\n":          "special-address",
		"CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: x\r\n\r\n":                 "bad-host",
		"GET https://tls.example/ HTTP/1.1\r\nHost: tls.example\r\n\r\n": "bad-request",
	} {
		if r := send(t, w.proxy, raw); r.header.Get("Sallyport-Reason") != reason {
			t.Errorf("%q in audit: %s, want %s", raw, r.status, reason)
		}
	}
	conn := connect(t, w.proxy, "tls.example:"+w.tls.port).conn
	if err := tls.Client(conn, &tls.Config{ServerName: "other.example", RootCAs: w.ca.pool}).Handshake(); err != nil {
		t.Errorf("sni-mismatch is not forwarded in audit: %v", err)
	}
	w.wait("sni-mismatch as would", func(e event) bool { return e.text("would") == "sni-mismatch" })
}

// TestDNSAnswers holds the DNS paragraph of DESIGN section 5.
func TestDNSAnswers(t *testing.T) {
	w := newReasonWorld(t, reasonPools, "")
	query := func(change func(*dns.Msg)) *dns.Msg {
		m := new(dns.Msg)
		m.SetQuestion("tls.example.", dns.TypeA)
		change(m)
		return exchange(t, "udp", w.dns, m)
	}
	if r := ask(t, w.dns, "evil.example", dns.TypeA); r.Rcode != dns.RcodeNameError || len(r.Ns) != 1 || r.Ns[0].(*dns.SOA).Minttl != 5 {
		t.Errorf("a refused name: %v", r)
	}
	if r := ask(t, w.dns, "private.example", dns.TypeA); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 {
		t.Errorf("a name left without addresses: %v", r)
	}
	if r := ask(t, w.dns, "tls.example", dns.TypeTXT); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 {
		t.Errorf("a blocked type: %v", r)
	}
	for what, change := range map[string]func(*dns.Msg){
		"ANY":  func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeANY },
		"AXFR": func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR },
		"CH":   func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
	} {
		if r := query(change); r.Rcode != dns.RcodeRefused {
			t.Errorf("%s: %s, want REFUSED", what, dns.RcodeToString[r.Rcode])
		}
	}
	if r := query(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }); r.Rcode != dns.RcodeNotImplemented {
		t.Errorf("NOTIFY: %s, want NOTIMP", dns.RcodeToString[r.Rcode])
	}
	if r := query(func(*dns.Msg) {}); r.AuthenticatedData || !r.RecursionAvailable || len(r.Answer) != 1 {
		t.Errorf("an allowed name: %v", r)
	}
	if r := exchange(t, "tcp", w.dns, new(dns.Msg).SetQuestion("tls.example.", dns.TypeA)); len(r.Answer) != 1 {
		t.Errorf("over TCP: %v", r)
	}
	garbage, err := net.Dial("udp", w.dns)
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	fmt.Fprint(garbage, "\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x03www")
	for _, reason := range []string{"dns-malformed", "dns-type-blocked", "special-address", "not-in-allowlist"} {
		w.wait("a dns line with "+reason, func(e event) bool { return e.text("kind") == "dns" && e.text("reason") == reason })
	}
	for _, question := range w.upstream.questions() {
		if strings.HasPrefix(question, "evil.") {
			t.Errorf("a refused name went upstream: %s", question)
		}
	}
}

// TestEncryptedHello: a pool with ech: deny refuses a ClientHello with an
// encrypted part, the default passes it by its outer name; the inner name is
// never seen.
func TestEncryptedHello(t *testing.T) {
	for mode, want := range map[string]string{"deny": "ech-not-allowed", "outer": "allowed"} {
		w := newReasonWorld(t, strings.Replace(reasonPools, "build:", "build:\n    ech: "+mode, 1), "")
		conn := connect(t, w.proxy, "tls.example:"+w.tls.port).conn
		client := tls.Client(conn, &tls.Config{
			ServerName: "inner.example", MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: echConfigList(t, "tls.example"),
			RootCAs: w.ca.pool, EncryptedClientHelloRejectionVerify: func(tls.ConnectionState) error { return nil },
		})
		err := client.Handshake() // the origin has no ECH key, so it is refused or rejected by name
		var rejected *tls.ECHRejectionError
		if passed := errors.As(err, &rejected); passed != (want == "allowed") {
			t.Errorf("ech: %s: the handshake ended with %v", mode, err)
		}
		conn.Close()
		e := w.wait("the close", func(e event) bool { return e.text("phase") == "close" })
		if e.text("reason") != want || e.text("sni") != "tls.example" || e["ech"] != true {
			t.Errorf("ech: %s: %v", mode, e)
		}
	}
}

// echConfigList makes an ECHConfigList for a public name (RFC 9849 section 4).
func echConfigList(t *testing.T, publicName string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sized := func(p []byte) []byte { return append([]byte{byte(len(p) >> 8), byte(len(p))}, p...) }
	contents := []byte{7, 0x00, 0x20}                              // config_id; DHKEM(X25519, HKDF-SHA256)
	contents = append(contents, sized(key.PublicKey().Bytes())...) // public_key
	contents = append(contents, sized([]byte{0, 1, 0, 1})...)      // HKDF-SHA256 with AES-128-GCM
	contents = append(contents, 32, byte(len(publicName)))         // maximum_name_length
	contents = append(append(contents, publicName...), 0, 0)       // no extensions
	return sized(append([]byte{0xfe, 0x0d}, sized(contents)...))
}

// TestNoPoolGetsNothing asks from an address that no pool admits.
func TestNoPoolGetsNothing(t *testing.T) {
	w := newReasonWorld(t, strings.Replace(reasonPools, "127.0.0.0/8]\n    allow", "192.168.99.0/24]\n    allow", 1), "")
	r := connect(t, w.proxy, "tls.example:"+w.tls.port)
	if r.code != 403 || r.header.Get("Sallyport-Reason") != "no-pool" {
		t.Errorf("CONNECT: %s", r.status)
	}
	question := new(dns.Msg).SetQuestion("tls.example.", dns.TypeA)
	answer := exchange(t, "udp", w.dns, question)
	if answer.Rcode != dns.RcodeRefused || answer.Len() > question.Len() {
		t.Errorf("DNS: %v, %d bytes for %d", answer, answer.Len(), question.Len())
	}
	if n := len(w.upstream.questions()); n != 0 {
		t.Errorf("%d questions went upstream", n)
	}
}
