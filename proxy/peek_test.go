package proxy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// recorder is a net.Conn that keeps what a TLS client says first.
type recorder struct {
	net.Conn
	said bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) { return r.said.Write(p) }
func (r *recorder) Read([]byte) (int, error)    { return 0, io.EOF }

// helloBytes makes the record of a ClientHello.
func helloBytes(t testing.TB, change func(*tls.Config)) []byte {
	t.Helper()
	cfg := &tls.Config{ServerName: "tls.example", InsecureSkipVerify: true}
	if change != nil {
		change(cfg)
	}
	r := &recorder{}
	_ = tls.Client(r, cfg).Handshake()
	if r.said.Len() == 0 {
		t.Fatal("no ClientHello")
	}
	return r.said.Bytes()
}

// inRecords cuts a ClientHello into records of at most size bytes.
func inRecords(raw []byte, size int) []byte {
	var out []byte
	for body := raw[5:]; len(body) > 0; {
		n := min(size, len(body))
		out = append(out, 22, 3, 1, byte(n>>8), byte(n))
		out, body = append(out, body[:n]...), body[n:]
	}
	return out
}

// bigHello is a ClientHello of nearly 16 KiB.
func bigHello(t testing.TB) []byte {
	return helloBytes(t, func(c *tls.Config) {
		for range 56 {
			c.NextProtos = append(c.NextProtos, strings.Repeat("p", 250))
		}
	})
}

// withECH adds an encrypted_client_hello extension to a ClientHello.
func withECH(raw []byte) []byte {
	ext := []byte{0xfe, 0x0d, 0, 4, 0, 1, 2, 3}
	out := append(bytes.Clone(raw), ext...)
	grow := func(at, bytes int) {
		n := 0
		for i := range bytes {
			n = n<<8 | int(out[at+i])
		}
		n += len(ext)
		for i := range bytes {
			out[at+bytes-1-i] = byte(n >> (8 * i))
		}
	}
	grow(3, 2) // record
	grow(6, 3) // handshake
	at := 5 + 4 + 2 + 32
	at += 1 + int(out[at])                     // session
	at += 2 + int(out[at])<<8 + int(out[at+1]) // cipher suites
	at += 1 + int(out[at])                     // compression
	grow(at, 2)                                // extensions
	return out
}

// TestFirstBytes sends each kind of first bytes into a tunnel that wants TLS.
func TestFirstBytes(t *testing.T) {
	plain := helloBytes(t, nil)
	rows := []struct {
		says   string
		bytes  []byte
		ech    allowlists.ECHMode
		reason allowlists.Reason
	}{
		{"the right name passes", plain, 0, allowlists.Allowed},
		{"the right name in capitals passes", helloBytes(t, func(c *tls.Config) { c.ServerName = "TLS.Example" }), 0, allowlists.Allowed},
		{"records of one byte pass", inRecords(plain, 1), 0, allowlists.Allowed},
		{"16 KiB in records of one byte pass", inRecords(bigHello(t), 1), 0, allowlists.Allowed},
		{"ECH with the right outer name passes", withECH(plain), allowlists.ECHOuter, allowlists.Allowed},
		{"ECH is refused where the pool says so", withECH(plain), allowlists.ECHDeny, allowlists.ECHNotAllowed},
		{"a name that IDNA maps to the host", bytes.Replace(helloBytes(t, func(c *tls.Config) { c.ServerName = "tlsxx.example" }), []byte("tlsxx.example"), []byte("tls\xc2\xad.example"), 1), 0, allowlists.SNIMismatch},
		{"another allowed name", helloBytes(t, func(c *tls.Config) { c.ServerName = "other.example" }), 0, allowlists.SNIMismatch},
		{"a name below", helloBytes(t, func(c *tls.Config) { c.ServerName = "a.tls.example" }), 0, allowlists.SNIMismatch},
		{"a name that is none", helloBytes(t, func(c *tls.Config) { c.ServerName = "tls.example%00" }), 0, allowlists.SNIMismatch},
		{"no name", helloBytes(t, func(c *tls.Config) { c.ServerName = "" }), 0, allowlists.SNIMissing},
		{"DNS over TLS", helloBytes(t, func(c *tls.Config) { c.NextProtos = []string{"h2", "dot"} }), 0, allowlists.ResolverBypass},
		{"plain HTTP", []byte("GET / HTTP/1.1\r\nHost: tls.example\r\n\r\n"), 0, allowlists.NotTLS},
		{"SSH", []byte("SSH-2.0-OpenSSH_9.6\r\n"), 0, allowlists.NotTLS},
		{"a TLS alert", []byte{21, 3, 1, 0, 2, 2, 40}, 0, allowlists.NotTLS},
		{"records without end", bytes.Repeat([]byte{22, 3, 1, 0, 0}, 50000), 0, allowlists.NotTLS},
	}
	inTime := 0
	for _, row := range rows {
		t.Run(row.says, func(t *testing.T) {
			tg := newTarget(t, nil)
			p := pool(rule("tls.example:"+tg.port, requireTLS), rule("other.example:"+tg.port, requireTLS))
			p.ECH = row.ech
			w := newWorld(t, p)
			c := w.tunnel("tls.example:" + tg.port)
			go func() { _, _ = c.TCPConn.Write(row.bytes); _ = c.CloseWrite() }()
			got, err := io.ReadAll(c)
			closed := w.phase(proxy.PhaseClose)
			if closed.Decision.Reason != row.reason {
				t.Fatalf("closed as %v (%s), want %v", closed.Decision.Reason, closed.Err, row.reason)
			}
			if row.reason == allowlists.Allowed {
				if err != nil || !bytes.Equal(got, row.bytes) {
					t.Errorf("%d of %d bytes went through: %v", len(got), len(row.bytes), err)
				}
			} else {
				if closed.Sent+closed.Received != 0 {
					t.Errorf("bytes went through: %d and %d", closed.Sent, closed.Received)
				}
				if alert := []byte{21, 3, 3, 0, 2, 2, 49}; row.bytes[0] == 22 && row.says != "records without end" && !bytes.Equal(got, alert) || row.bytes[0] != 22 && len(got) != 0 {
					t.Errorf("the client was told %x", got)
				}
				if !errors.Is(err, io.EOF) && !ended(err) {
					t.Errorf("the tunnel is open: %v", err)
				}
			}
			open := w.phase(proxy.PhaseOpen)
			if !open.Decision.Allowed() || open.SNI != "" && open.SNI != closed.SNI {
				t.Errorf("the open record says %v %q, the close record %q", open.Decision.Reason, open.SNI, closed.SNI)
			}
			if open.SNI != "" { // else the machine was slow
				inTime++
			}
			w.checkRecords()
		})
	}
	if inTime == 0 {
		t.Error("no open record has a server name")
	}
}

// TestHelloInEverySplit cuts a ClientHello in two segments, and in two records,
// at every byte.
func TestHelloInEverySplit(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("tls.example:"+tg.port, requireTLS)))
	raw := helloBytes(t, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} })
	try := func(parts ...[]byte) {
		t.Helper()
		c := w.tunnel("tls.example:" + tg.port)
		_ = c.SetNoDelay(true)
		for _, part := range parts {
			_, _ = c.TCPConn.Write(part)
		}
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); !bytes.Equal(got, bytes.Join(parts, nil)) {
			t.Fatalf("cut at %d: %d bytes, %v%s", len(parts[0]), len(got), err, w.dump())
		}
		_ = c.Close()
	}
	for i := 1; i < len(raw); i++ {
		try(raw[:i], raw[i:])
	}
	for i := 6; i < len(raw); i++ {
		first := append([]byte{22, 3, 1, byte((i - 5) >> 8), byte(i - 5)}, raw[5:i]...)
		n := len(raw) - i
		try(first, append([]byte{22, 3, 1, byte(n >> 8), byte(n)}, raw[i:]...))
	}
}

// TestHelloComesWithTheConnect sends head, hello and more in one segment: what
// is read ahead of the hello's end must not be lost.
func TestHelloComesWithTheConnect(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("tls.example:"+tg.port, requireTLS)))
	target := "tls.example:" + tg.port
	follows := append(bytes.Clone(helloBytes(t, nil)), bytes.Repeat([]byte("0-RTT"), 400)...)
	c := w.dial()
	if r := c.send("CONNECT", "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n"+string(follows)); r.code != 200 {
		t.Fatal(r.line)
	}
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); !bytes.Equal(got, follows) {
		t.Errorf("%d of %d bytes: %v", len(got), len(follows), err)
	}
}

// TestHelloThatDoesNotCome waits for hello_timeout; the open record does not.
func TestHelloThatDoesNotCome(t *testing.T) {
	for says, said := range map[string][]byte{"silence": nil, "half a hello": helloBytes(t, nil)[:40]} {
		t.Run(says, func(t *testing.T) {
			tg := newTarget(t, nil)
			w := newWorld(t, pool(rule("tls.example:"+tg.port, requireTLS)), limits(func(l *allowlists.Limits) { l.HelloTimeout = time.Second }))
			c, began := w.tunnel("tls.example:"+tg.port), time.Now()
			_, _ = c.TCPConn.Write(said)
			if open := w.phase(proxy.PhaseOpen); time.Since(began) > 800*time.Millisecond {
				t.Errorf("the open record waited: it came after %v, and says %v", time.Since(began), open.Took)
			}
			if _, err := c.Read(make([]byte, 1)); !ended(err) {
				t.Errorf("the tunnel is open: %v", err)
			}
			if closed := w.phase(proxy.PhaseClose); closed.Decision.Reason != allowlists.TimedOut || closed.Sent != 0 {
				t.Errorf("closed as %v, %d sent", closed.Decision.Reason, closed.Sent)
			}
		})
	}
}

// TestSlowHelloStillPasses sends the hello after the open record was written.
func TestSlowHelloStillPasses(t *testing.T) {
	tg := newTarget(t, nil)
	w := newWorld(t, pool(rule("tls.example:"+tg.port, requireTLS)))
	c := w.tunnel("tls.example:" + tg.port)
	raw := helloBytes(t, nil)
	_, _ = c.TCPConn.Write(raw[:10])
	w.phase(proxy.PhaseOpen)
	_, _ = c.TCPConn.Write(raw[10:])
	if got := make([]byte, len(raw)); true {
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%v", err)
		}
	}
	_ = c.Close()
	if closed := w.phase(proxy.PhaseClose); closed.SNI != "tls.example" {
		t.Errorf("the close record has the name %q", closed.SNI)
	}
}

// TestAuditForwardsFirstBytes lets what enforce resets go on, once recorded.
func TestAuditForwardsFirstBytes(t *testing.T) {
	tg := newTarget(t, nil)
	p := pool(rule("tls.example:"+tg.port, requireTLS))
	p.Mode = allowlists.Audit
	w := newWorld(t, p)
	for would, raw := range map[allowlists.Reason][]byte{
		allowlists.SNIMismatch: helloBytes(t, func(c *tls.Config) { c.ServerName = "evil.example" }),
		allowlists.NotTLS:      []byte("hello?"),
	} {
		c := w.tunnel("tls.example:" + tg.port)
		_, _ = c.TCPConn.Write(raw)
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%v: %d bytes, %v", would, len(got), err)
		}
		w.wait(would.String(), func(r proxy.ConnRecord) bool {
			return r.Phase == proxy.PhaseOpen && r.Decision.Reason == allowlists.AllowedByAudit && r.Decision.Would == would
		})
	}
}

// TestUnderCIDRNothingIsRequired connects to an address that a cidr rule allows.
func TestUnderCIDRNothingIsRequired(t *testing.T) {
	greets := newTarget(t, func(c *net.TCPConn) { _, _ = c.Write([]byte("220 hello\r\n")); _, _ = io.Copy(io.Discard, c) })
	echo := newTarget(t, nil)
	p := pool(rule("127.0.0.0/8:*"))
	p.Deny = []allowlists.Rule{rule("denied.example:*")}
	w := newWorld(t, p)
	began := time.Now()
	c := w.tunnel("127.0.0.1:" + greets.port)
	if _, err := io.ReadFull(c, make([]byte, 11)); err != nil || time.Since(began) > 900*time.Millisecond {
		t.Errorf("a server that speaks first: %v after %v", err, time.Since(began))
	}
	_ = c.Close()
	for says, row := range map[string]struct {
		said   []byte
		passes bool
	}{
		"TLS for any name":                     {helloBytes(t, nil), true},
		"TLS for a denied name":                {helloBytes(t, func(c *tls.Config) { c.ServerName = "denied.example" }), false},
		"HTTP for any name":                    {[]byte("GET / HTTP/1.1\r\nHost: any.example\r\n\r\n"), true},
		"HTTP for a denied name":               {[]byte("GET / HTTP/1.1\r\nHost: denied.example\r\n\r\n"), false},
		"something else entirely":              {[]byte("EHLO me\r\n"), true},
		"a denied name in a warning's wake":    {append([]byte{21, 3, 1, 0, 2, 1, 90}, helloBytes(t, func(c *tls.Config) { c.ServerName = "denied.example" })...), false},
		"a denied name led by an empty line":   {[]byte("\r\nGET / HTTP/1.1\r\nHost: denied.example\r\n\r\n"), false},
		"a denied name by another method":      {[]byte("PROPFIND / HTTP/1.1\r\nHost: denied.example\r\n\r\n"), false},
		"a denied name with bare line feeds":   {[]byte("GET / HTTP/1.1\nHost: denied.example\n\n"), false},
		"a denied name in a folded field":      {[]byte("GET / HTTP/1.1\r\nHost:\r\n denied.example\r\n\r\n"), false},
		"a denied name as the second Host":     {[]byte("GET / HTTP/1.1\r\nHost: any.example\r\nHost: denied.example\r\n\r\n"), false},
		"a denied name in the URI":             {[]byte("GET http://me@denied.example:80/x HTTP/1.1\r\nHost: any.example\r\n\r\n"), false},
		"a denied name in the body":            {[]byte("POST / HTTP/1.1\r\nHost: any.example\r\n\r\nHost: denied.example\r\n"), true},
		"a ClientHello that does not parse":    {[]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 9}, false},
		"a first byte of TLS and nothing else": {[]byte{22, 9, 9, 9, 9, 9, 9, 9}, true},
	} {
		c := w.tunnel("127.0.0.1:" + echo.port)
		_, _ = c.TCPConn.Write(row.said)
		_ = c.CloseWrite()
		got, _ := io.ReadAll(c)
		if passed := bytes.Equal(got, row.said); passed != row.passes {
			t.Errorf("%s: came back %q", says, got)
		}
	}
	own := w.addr[strings.LastIndexByte(w.addr, ':')+1:]
	checkRefusal(t, w, w.dial().connect("127.0.0.1:"+own), 403, "special-address") // no rule opens that
	w.wait("denied-by-rule", func(r proxy.ConnRecord) bool {
		return r.Phase == proxy.PhaseClose && r.Decision.Reason == allowlists.DeniedByRule
	})
	w.wait("the name", func(r proxy.ConnRecord) bool { return r.Phase == proxy.PhaseClose && r.SNI == "tls.example" })
}

// TestUnderCIDRAHeadInPiecesIsReadWhole: a pause inside the method hides nothing.
func TestUnderCIDRAHeadInPiecesIsReadWhole(t *testing.T) {
	echo := newTarget(t, nil)
	p := pool(rule("127.0.0.0/8:*"))
	p.Deny = []allowlists.Rule{rule("denied.example:*")}
	w := newWorld(t, p)
	c := w.tunnel("127.0.0.1:" + echo.port)
	for _, piece := range []string{"G", "ET / HT", "TP/1.1\r\nHo", "st: denied.exam", "ple\r\n\r\n"} {
		if _, err := c.TCPConn.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
		<-time.After(20 * time.Millisecond)
	}
	_ = c.CloseWrite()
	if got, _ := io.ReadAll(c); len(got) > 0 {
		t.Errorf("came back %q", got)
	}
}
