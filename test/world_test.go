package test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log" //nolint:depguard // to silence it
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A zone is an upstream resolver that answers what a test tells it, over UDP
// and TCP on one port, and counts what it is asked.
type zone struct {
	addr string

	mu      sync.Mutex
	asked   []string // "name TYPE" of each question, lower case, without the final dot
	records map[string][]dns.RR
	answer  func(q dns.Question) []dns.RR // asked first, maybe nil
}

// newZone serves records, each in zone file form, until the test ends.
func newZone(t *testing.T, records ...string) *zone {
	t.Helper()
	return newZoneAt(t, "127.0.0.1:0", records...)
}

func newZoneAt(t *testing.T, addr string, records ...string) *zone {
	t.Helper()
	z := &zone{records: make(map[string][]dns.RR)}
	for _, text := range records {
		z.add(t, text)
	}
	udp, tcp := listenBoth(t, addr)
	z.addr = udp.LocalAddr().String()
	for _, server := range []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { _ = server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = server.Shutdown() })
	}
	return z
}

// listenBoth binds one port for UDP and TCP; port 0 takes one that is free for both.
func listenBoth(t *testing.T, addr string) (net.PacketConn, net.Listener) {
	t.Helper()
	var lastErr error
	for range 20 {
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		udp.Close()
		lastErr = err
	}
	t.Fatal(lastErr)
	return nil, nil
}

// setAnswer makes f answer instead of the records, where it gives any.
func (z *zone) setAnswer(f func(q dns.Question) []dns.RR) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.answer = f
}

// add puts one more record into the zone.
func (z *zone) add(t *testing.T, text string) {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	name := strings.ToLower(rr.Header().Name)
	z.records[name] = append(z.records[name], rr)
}

// ServeDNS answers with the records of the name and type, and of the CNAMEs on
// the way; NXDOMAIN for a name without records.
func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	z.asked = append(z.asked, strings.TrimSuffix(name, ".")+" "+dns.TypeToString[question.Qtype])
	reply := new(dns.Msg).SetReply(q)
	if z.answer != nil {
		reply.Answer = z.answer(question)
	}
	for range 8 {
		if len(reply.Answer) > 0 && reply.Answer[len(reply.Answer)-1].Header().Rrtype != dns.TypeCNAME {
			break
		}
		next := ""
		for _, rr := range z.records[name] {
			switch rr := rr.(type) {
			case *dns.CNAME:
				next = strings.ToLower(rr.Target)
				reply.Answer = append(reply.Answer, rr)
			default:
				if rr.Header().Rrtype == question.Qtype {
					reply.Answer = append(reply.Answer, rr)
				}
			}
		}
		if name = next; next == "" {
			break
		}
	}
	if len(reply.Answer) == 0 && len(z.records[name]) == 0 {
		reply.Rcode = dns.RcodeNameError
	}
	z.mu.Unlock()
	_ = w.WriteMsg(reply)
}

// questions lists what was asked so far.
func (z *zone) questions() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return append([]string(nil), z.asked...)
}

// A testCA signs certificates for origins; clients trust file.
type testCA struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
	pool *x509.CertPool
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sallyport test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{t: t, key: key, pool: x509.NewCertPool(), file: filepath.Join(t.TempDir(), "ca.pem")}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	ca.pool.AddCert(ca.cert)
	if err := os.WriteFile(ca.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue makes a certificate for the names, which may be addresses.
func (ca *testCA) issue(names ...string) tls.Certificate {
	ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// An origin is a server that a job wants to reach. It counts connections and
// requests, so that a test can say that none came.
type origin struct {
	addr netip.AddrPort
	ip   string
	port string

	mu       sync.Mutex
	accepted int
	requests []string // "METHOD host path"
	files    http.Handler
}

// serveFiles makes the origin serve a directory below /repo.git/.
func (o *origin) serveFiles(dir string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files = http.StripPrefix("/repo.git/", http.FileServer(http.Dir(dir)))
}

func (o *origin) counts() (accepted int, requests []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted, append([]string(nil), o.requests...)
}

// countingListener counts what it accepts.
type countingListener struct {
	net.Listener
	o *origin
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.o.mu.Lock()
		l.o.accepted++
		l.o.mu.Unlock()
	}
	return conn, err
}

func newOrigin(t *testing.T, addr string) (*origin, net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	o := &origin{addr: netip.MustParseAddrPort(l.Addr().String())}
	o.ip, o.port, _ = net.SplitHostPort(l.Addr().String())
	return o, countingListener{l, o}
}

// httpOrigin serves HTTP at addr, over TLS (HTTP/1.1 and HTTP/2) where a
// certificate is given. Its answer says what it saw.
func httpOrigin(t *testing.T, addr string, cert *tls.Certificate) *origin {
	t.Helper()
	o, l := newOrigin(t, addr)
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.requests = append(o.requests, r.Method+" "+r.Host+" "+r.URL.Path)
		files := o.files
		o.mu.Unlock()
		if files != nil {
			files.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen-Protocol", r.Proto)
		fmt.Fprintf(w, "origin %s %s %s %d bytes\n", r.Method, r.Host, r.URL.Path, len(body))
	})}
	if cert == nil {
		go func() { _ = server.Serve(l) }()
	} else {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
		go func() { _ = server.ServeTLS(l, "", "") }()
	}
	t.Cleanup(func() { server.Close() })
	return o
}

// echoOrigin sends back what it gets, line by line or not.
func echoOrigin(t *testing.T, addr string) *origin {
	t.Helper()
	o, l := newOrigin(t, addr)
	go serveEach(l, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
	return o
}

// serveEach has handle serve each connection, and closes it then, until the
// listener is closed.
func serveEach(l net.Listener, handle func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			handle(conn)
		}()
	}
}

// A reply is what the proxy said to one request head.
type reply struct {
	status string // the whole status line
	code   int
	header http.Header
	body   string
	conn   net.Conn
	br     *bufio.Reader
}

// send writes raw bytes to a proxy and reads one response. For a 2xx to
// CONNECT the connection stays open, as reply.conn; the caller closes it.
func send(t *testing.T, proxy, raw string) *reply {
	t.Helper()
	conn, err := net.DialTimeout("tcp", proxy, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	br := bufio.NewReader(io.TeeReader(conn, &seen))
	method, _, _ := strings.Cut(raw, " ")
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("after %q: %v (%q)", raw, err, seen.String())
	}
	line, _, _ := strings.Cut(seen.String(), "\r\n")
	r := &reply{status: line, code: resp.StatusCode, header: resp.Header, conn: conn, br: br}
	seenReasons.Store(resp.Header.Get("Sallyport-Reason"), true)
	if method != "CONNECT" || resp.StatusCode/100 != 2 {
		body, _ := io.ReadAll(resp.Body)
		r.body = string(body)
	}
	return r
}

// connect asks for a tunnel.
func connect(t *testing.T, proxy, target string) *reply {
	t.Helper()
	return send(t, proxy, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
}

// ask puts one question to a resolver over UDP.
func ask(t *testing.T, server, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(1232, false)
	return exchange(t, "udp", server, m)
}

func exchange(t *testing.T, network, server string, m *dns.Msg) *dns.Msg {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: patience}
	reply, _, err := client.Exchange(m, server)
	if err != nil {
		t.Fatalf("asking %v: %v", m.Question, err)
	}
	return reply
}
