package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"sallyport/allowlists"
)

// maxPeek is how many bytes are looked at for a ClientHello: 16 KiB of it, each
// byte in a record of its own, with some room for what came after it.
const maxPeek = 16<<10*6 + 8<<10

// extensionECH is encrypted_client_hello, RFC 9849 section 5.
const extensionECH = 0xfe0d

var (
	errPeeked   = errors.New("the ClientHello is read")
	errPeekFull = errors.New("the ClientHello is larger than anyone's")
)

// A hello is what a ClientHello claims. The zero hello is none: the first bytes
// were something else.
type hello struct {
	tls  bool
	sni  string // perhaps dirty; "" without one
	alpn []string
	ech  bool
}

// peekConn lets crypto/tls read a ClientHello: it keeps what was read, and
// sends nothing.
type peekConn struct {
	io.Reader
	raw   []byte
	hello hello
}

// Read reads and remembers, up to maxPeek.
func (c *peekConn) Read(p []byte) (int, error) {
	room := maxPeek - len(c.raw)
	if room <= 0 {
		return 0, errPeekFull
	}
	n, err := c.Reader.Read(p[:min(len(p), room)])
	c.raw = append(c.raw, p[:n]...)
	return n, err
}

func (c *peekConn) Write(p []byte) (int, error)    { return len(p), nil }
func (*peekConn) Close() error                     { return nil }
func (*peekConn) LocalAddr() net.Addr              { return nil }
func (*peekConn) RemoteAddr() net.Addr             { return nil }
func (*peekConn) SetDeadline(time.Time) error      { return nil }
func (*peekConn) SetReadDeadline(time.Time) error  { return nil }
func (*peekConn) SetWriteDeadline(time.Time) error { return nil }

// peekConfig stops a handshake as soon as the ClientHello is understood.
var peekConfig = &tls.Config{
	MinVersion:                  tls.VersionTLS10, // what is refused is the server's to say
	SessionTicketsDisabled:      true,
	GetConfigForClient:          func(info *tls.ClientHelloInfo) (*tls.Config, error) { return nil, capture(info) },
	GetEncryptedClientHelloKeys: func(info *tls.ClientHelloInfo) ([]tls.EncryptedClientHelloKey, error) { return nil, capture(info) },
}

// capture keeps what the ClientHello says.
func capture(info *tls.ClientHelloInfo) error {
	c := info.Conn.(*peekConn)
	c.hello = hello{
		tls: true, sni: info.ServerName, alpn: info.SupportedProtos,
		ech: slices.Contains(info.Extensions, extensionECH),
	}
	return errPeeked
}

// peekHello reads a ClientHello from src, in any number of records. raw is all
// that was read, which may be more than the ClientHello. A nil error with
// hello.tls unset means that the bytes are no ClientHello; any other error is
// that of src.
func peekHello(src io.Reader) (h hello, raw []byte, err error) {
	fault := &faultReader{Reader: src}
	c := &peekConn{Reader: fault, raw: make([]byte, 0, 2048)}
	_ = tls.Server(c, peekConfig).Handshake()
	if !c.hello.tls && fault.err != nil {
		return hello{}, c.raw, fault.err
	}
	return c.hello, c.raw, nil
}

// faultReader remembers the error that reading ended with.
type faultReader struct {
	io.Reader
	err error
}

func (r *faultReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.err = err
	return n, err
}

// looksLikeTLS reports whether bytes begin with a TLS handshake record.
func looksLikeTLS(raw []byte) bool { return len(raw) > 0 && raw[0] == 22 }

// judge holds the first bytes against the host that by allowed. It gives by
// where they agree, or where audit recorded an earlier reason already.
func (h *hello) judge(pool *allowlists.Pool, by allowlists.Decision, target allowlists.Target) allowlists.Decision {
	reason, ok := h.fault(pool, target)
	if ok {
		return by
	}
	d := pool.Refuse(reason, by.Rule)
	if d.Allowed() && by.Reason == allowlists.AllowedByAudit {
		return by
	}
	return d
}

// fault names what is wrong with the first bytes; ok if nothing is.
func (h *hello) fault(pool *allowlists.Pool, target allowlists.Target) (reason allowlists.Reason, ok bool) {
	switch {
	case !h.tls:
		return allowlists.NotTLS, false
	case h.sni == "":
		return allowlists.SNIMissing, false
	}
	name, err := allowlists.ParseHost(h.sni)
	switch {
	// RFC 6066 section 3: a server_name is ASCII. What IDNA would map to the host
	// goes to the origin as it is, and there it is another name.
	case err != nil, name != target.Host, !isASCII(h.sni):
		return allowlists.SNIMismatch, false
	case h.ech && pool.ECH() == allowlists.ECHDeny:
		return allowlists.ECHNotAllowed, false
	case slices.Contains(h.alpn, "dot"):
		return allowlists.ResolverBypass, false
	default:
		return allowlists.Allowed, true
	}
}

// isASCII reports whether text has no byte beyond 7 bits.
func isASCII(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r > 0x7f }) < 0
}

// describe puts what the ClientHello claims into a record.
func (h *hello) describe(rec *ConnRecord) {
	rec.SNI, rec.ECH = clip(h.sni, maxHostKept), h.ech
	alpn := strings.Join(h.alpn, ",")
	rec.ALPN = clip(alpn, maxHostKept)
}
