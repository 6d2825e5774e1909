package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"sallyport/allowlists"
)

// readAll reads one head as if it came in a single segment.
func readText(text string, limit int) (*head, *headReader, error) {
	r := newHeadReader(strings.NewReader(text))
	h, err := r.readHead(limit)
	return h, r, err
}

// reasonOf is the reason of a denial, or internal-error for any other error.
func reasonOf(err error) allowlists.Reason {
	var denial *allowlists.DeniedError
	if errors.As(err, &denial) {
		return denial.Decision.Reason
	}
	return allowlists.InternalError
}

func TestHeadRefuses(t *testing.T) {
	const ok = "Host: a.example\r\n"
	badRequest := []struct{ rule, text string }{
		// Line ends: only CR LF, RFC 9112 section 2.2.
		{"a bare line feed ends no line", "GET http://a.example/ HTTP/1.1\nHost: a.example\r\n\r\n"},
		{"a bare line feed ends no head", "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\n"},
		{"a bare carriage return in a value", "GET http://a.example/ HTTP/1.1\r\n" + ok + "X: a\rb\r\n\r\n"},
		{"a bare carriage return in the line", "GET http://a.example/\r HTTP/1.1\r\n" + ok + "\r\n"},
		{"an empty line before the request", "\r\nGET http://a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"a TLS ClientHello", "\x16\x03\x01\x02\x00"},
		{"a SOCKS greeting", "\x05\x01\x00"},
		// The request line.
		{"two spaces before the target", "GET  http://a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"two spaces before the version", "GET http://a.example/  HTTP/1.1\r\n" + ok + "\r\n"},
		{"a space in the target", "GET http://a.example/a b HTTP/1.1\r\n" + ok + "\r\n"},
		{"a tab in the line", "GET\thttp://a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"a tab in the target", "GET http://a.example/a\tb HTTP/1.1\r\n" + ok + "\r\n"},
		{"a space after the version", "GET http://a.example/ HTTP/1.1 \r\n" + ok + "\r\n"},
		{"a line of two words", "GET http://a.example/\r\n" + ok + "\r\n"},
		{"HTTP/0.9", "GET http://a.example/ HTTP/0.9\r\n" + ok + "\r\n"},
		{"HTTP/1.2", "GET http://a.example/ HTTP/1.2\r\n" + ok + "\r\n"},
		{"HTTP/2.0", "GET http://a.example/ HTTP/2.0\r\n" + ok + "\r\n"},
		{"http in lower case", "GET http://a.example/ http/1.1\r\n" + ok + "\r\n"},
		{"HTTP/1.01", "GET http://a.example/ HTTP/1.01\r\n" + ok + "\r\n"},
		{"the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
		{"the preface in a disguise", "PRI http://a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"a method in lower case", "get http://a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"connect in lower case", "connect a.example:443 HTTP/1.1\r\n" + ok + "\r\n"},
		{"a method that is no token", "G(T http://a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		// Targets.
		{"https in the clear", "GET https://a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"ftp", "GET ftp://a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"a URN", "GET urn:a.example HTTP/1.1\r\n" + ok + "\r\n"},
		{"a URI with a user", "GET http://user@a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"a URI with a user and password", "GET http://b.example:80@a.example/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"a fragment", "GET http://a.example/#x HTTP/1.1\r\n" + ok + "\r\n"},
		{"a broken escape in the path", "GET http://a.example/%zz HTTP/1.1\r\n" + ok + "\r\n"},
		{"an escape cut short", "GET http://a.example/%4 HTTP/1.1\r\n" + ok + "\r\n"},
		{"port 0", "GET http://a.example:0/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"port 2^32+80", "GET http://a.example:4294967376/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"a port of letters", "GET http://a.example:http/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"an asterisk that is not for OPTIONS", "GET * HTTP/1.1\r\n" + ok + "\r\n"},
		{"CONNECT without a port", "CONNECT a.example HTTP/1.1\r\n" + ok + "\r\n"},
		{"CONNECT with a path", "CONNECT /a.example:443 HTTP/1.1\r\n" + ok + "\r\n"},
		{"CONNECT with a URI", "CONNECT http://a.example:443/ HTTP/1.1\r\n" + ok + "\r\n"},
		{"CONNECT with a user", "CONNECT u@a.example:443 HTTP/1.1\r\n" + ok + "\r\n"},
		{"CONNECT with a body", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 5\r\n\r\n"},
		{"CONNECT with a chunked body", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nTransfer-Encoding: chunked\r\n\r\n"},
		// Fields.
		{"a space before the colon", "GET http://a.example/ HTTP/1.1\r\nHost : a.example\r\n\r\n"},
		{"a tab before the colon", "GET http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length\t: 1\r\n\r\n"},
		{"a folded line", "GET http://a.example/ HTTP/1.1\r\n" + ok + "X: a\r\n b\r\n\r\n"},
		{"a fold in the first field", "GET http://a.example/ HTTP/1.1\r\n Host: a.example\r\n\r\n"},
		{"a line without a colon", "GET http://a.example/ HTTP/1.1\r\n" + ok + "X\r\n\r\n"},
		{"an empty name", "GET http://a.example/ HTTP/1.1\r\n" + ok + ": x\r\n\r\n"},
		{"a name that is no token", "GET http://a.example/ HTTP/1.1\r\n" + ok + "X(y): x\r\n\r\n"},
		{"a name with a byte above ASCII", "GET http://a.example/ HTTP/1.1\r\n" + ok + "X\xe4: x\r\n\r\n"},
		{"NUL in a value", "GET http://a.example/ HTTP/1.1\r\n" + ok + "X: a\x00b\r\n\r\n"},
		{"NUL in the target", "GET http://a.example/\x00 HTTP/1.1\r\n" + ok + "\r\n"},
		{"DEL in a value", "GET http://a.example/ HTTP/1.1\r\n" + ok + "X: a\x7fb\r\n\r\n"},
		{"no Host", "GET http://a.example/ HTTP/1.1\r\n\r\n"},
		{"two Hosts", "GET http://a.example/ HTTP/1.1\r\n" + ok + ok + "\r\n"},
		{"two Hosts in two cases", "GET http://a.example/ HTTP/1.1\r\n" + ok + "hOST: b.example\r\n\r\n"},
		// Framing, RFC 9112 section 6.
		{"two lengths", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n"},
		{"the same length twice", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"},
		{"a list of lengths", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length: 1, 1\r\n\r\n"},
		{"a length with a sign", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length: +1\r\n\r\n"},
		{"a negative length", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length: -1\r\n\r\n"},
		{"a length in hexadecimal", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length: 0x1\r\n\r\n"},
		{"an empty length", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length:\r\n\r\n"},
		{"a length of 2^64+1", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length: 18446744073709551617\r\n\r\n"},
		{"a length and a coding", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"a coding and a length", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"},
		{"chunked twice", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"a list of codings", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Transfer-Encoding: gzip, chunked\r\n\r\n"},
		{"identity", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Transfer-Encoding: identity\r\n\r\n"},
		{"xchunked", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Transfer-Encoding: xchunked\r\n\r\n"},
		{"chunked in capitals", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Transfer-Encoding: CHUNKED\r\n\r\n"},
		{"chunked after a vertical tab", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Transfer-Encoding: \x0bchunked\r\n\r\n"},
		{"a coding in HTTP/1.0", "POST http://a.example/ HTTP/1.0\r\n" + ok + "Transfer-Encoding: chunked\r\n\r\n"},
		{"an expectation we do not know", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Expect: 200-ok\r\n\r\n"},
		{"a trailer that frames", "POST http://a.example/ HTTP/1.1\r\n" + ok + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n"},
	}
	for _, c := range badRequest {
		t.Run(c.rule, func(t *testing.T) {
			h, _, err := readText(c.text, 65536)
			if reasonOf(err) != allowlists.BadRequest {
				t.Fatalf("readHead gives %v, want bad-request", err)
			}
			if h == nil {
				t.Fatal("there is no head for the record")
			}
		})
	}
}

func TestHeadRefusesDirtyHosts(t *testing.T) {
	for _, host := range []string{
		"", "a..example", ".example", "a.example..", "%61.example", "a.example%00", "a.example%2eb", "[a.example]",
		"[10.0.0.1]", "::1", "0x7f.1", "127.1", "2130706433", "[fe80::1%25eth0]", "[::1", "a_b.example\\c", "a.example,b.example",
		"ⓛocal.1", "a.example:80:80",
	} {
		for _, text := range []string{
			"GET http://" + host + "/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
			"GET http://a.example/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
			"CONNECT " + host + ":443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
		} {
			if _, _, err := readText(text, 65536); reasonOf(err) != allowlists.BadHost {
				t.Errorf("%q gives %v, want bad-host", text, err)
			}
		}
	}
}

func TestHeadUnderstands(t *testing.T) {
	h, r, err := readText("POST HTTP://A.Example.:8080/x%2Fy?q=%zz HTTP/1.1\r\nHost: a.example:8080\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\nabc", 65536)
	if err != nil {
		t.Fatal(err)
	}
	if h.form != formAbsolute || h.target.String() != "a.example:8080" || h.claimed != "A.Example.:8080" || h.path != "/x%2Fy?q=%zz" {
		t.Errorf("the target is %+v", h)
	}
	if !h.agrees(h.target) || h.contentLength != 3 || h.chunked || !h.expects || !h.hasBody() {
		t.Errorf("the framing is %+v", h)
	}
	if _, err := http.ReadRequest(r.Reader); err != nil {
		t.Errorf("net/http refuses what is left unread: %v", err)
	}

	rows := []struct{ rule, text, target string }{
		{"a URI without a port means port 80", "GET http://a.example HTTP/1.1\r\nHost: a.example:80\r\n\r\n", "a.example:80"},
		{"a query may follow the host", "GET http://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n", "a.example:80"},
		{"an address is a target", "GET http://[2001:db8::1]:81/ HTTP/1.1\r\nHost: [2001:db8::1]:81\r\n\r\n", "[2001:db8::1]:81"},
		{"CONNECT", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", "a.example:443"},
		{"CONNECT in HTTP/1.0 needs no Host", "CONNECT a.example:443 HTTP/1.0\r\n\r\n", "a.example:443"},
		{"an empty body is no body", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 0\r\n\r\n", "a.example:443"},
	}
	for _, c := range rows {
		h, _, err := readText(c.text, 65536)
		if err != nil || h.target.String() != c.target || !h.agrees(h.target) {
			t.Errorf("%s: target %v, host %v, %v", c.rule, h.target, h.host, err)
		}
	}
}

func TestHeadHostForgery(t *testing.T) {
	for _, host := range []string{"b.example", "a.example:81", "xa.example", "a.example.b.example"} {
		h, _, err := readText("GET http://a.example/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n", 65536)
		if err != nil || h.agrees(h.target) {
			t.Errorf("Host: %s agrees with a.example:80 (%v)", host, err)
		}
	}
}

func TestHeadKeepsSecretsOutOfTheRecord(t *testing.T) {
	h, _, _ := readText("GET http://user:secret@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 65536)
	if strings.Contains(h.claimed, "secret") {
		t.Errorf("claimed is %q", h.claimed)
	}
}

func TestHeadLimit(t *testing.T) {
	const limit = 20000
	frame := "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: \r\n\r\n"
	fits := strings.Replace(frame, "X: ", "X: "+strings.Repeat("x", limit-len(frame)), 1)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"at once":      func(r io.Reader) io.Reader { return r },
		"byte by byte": iotest.OneByteReader,
		"in halves":    iotest.HalfReader,
	} {
		r := newHeadReader(wrap(strings.NewReader(fits + "rest")))
		h, err := r.readHead(limit)
		if err != nil || h.size != limit {
			t.Fatalf("%s: a head of exactly the limit gives %v, %v", name, h, err)
		}
		if _, err := r.Discard(h.size); err != nil {
			t.Fatal(err)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "rest" {
			t.Errorf("%s: %q follows the head", name, rest)
		}
		r = newHeadReader(wrap(strings.NewReader(strings.Replace(fits, "xx", "xxx", 1))))
		h, err = r.readHead(limit)
		if reasonOf(err) != allowlists.LimitExceeded || !errors.Is(err, errHeadLarge) || h.claimed != "a.example" {
			t.Errorf("%s: a byte over the limit gives %v, %v", name, h, err)
		}
	}
}

func TestHeadEndsEarly(t *testing.T) {
	if _, _, err := readText("", 100); err != io.EOF {
		t.Errorf("silence gives %v", err)
	}
	if _, _, err := readText("GET http://a.example/ HT", 100); err != io.ErrUnexpectedEOF {
		t.Errorf("half a head gives %v", err)
	}
	broken := errors.New("broken")
	r := newHeadReader(io.MultiReader(strings.NewReader("GET "), iotest.ErrReader(broken)))
	if _, err := r.readHead(100); !errors.Is(err, broken) {
		t.Errorf("a failing read gives %v", err)
	}
}

// FuzzHead holds our reading of a head against that of net/http, the next
// parser it meets: what we accept it accepts, and means the same by it.
func FuzzHead(f *testing.F) {
	for _, seed := range []string{
		"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nProxy-Connection: keep-alive\r\n\r\n\x16\x03\x01",
		"POST http://a.example:8080/a?b HTTP/1.1\r\nHost: a.example:8080\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n0\r\n\r\n",
		"POST http://[2001:db8::1]/ HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
		"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET //b.example/%41%zz HTTP/1.1\r\nHost: xn--mnchen-3ya.example\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newHeadReader(bytes.NewReader(text))
		h, err := r.readHead(8192)
		if err != nil {
			return
		}
		if whole := r.Buffered(); whole < h.size {
			t.Fatalf("a head of %d bytes was accepted, %d are left unread", h.size, whole)
		}
		// Byte by byte it must read the same.
		slow, err := newHeadReader(iotest.OneByteReader(bytes.NewReader(text))).readHead(8192)
		if err != nil || slow.size != h.size || slow.target != h.target {
			t.Fatalf("in one segment %+v, byte by byte %+v, %v", h, slow, err)
		}
		left := bufio.NewReader(bytes.NewReader(text))
		req, err := http.ReadRequest(left)
		if err != nil {
			t.Fatalf("net/http refuses what we accept: %v", err)
		}
		if used := len(text) - left.Buffered(); len(text) < 4096 && used != h.size {
			t.Fatalf("our head is %d bytes, that of net/http %d", h.size, used)
		}
		sameMeaning(t, h, req)
	})
}

// sameMeaning fails if net/http understands a head differently.
func sameMeaning(t *testing.T, h *head, req *http.Request) {
	t.Helper()
	if req.Method != h.method || req.ProtoMajor != 1 || req.ProtoMinor != h.minor {
		t.Fatalf("%s HTTP/1.%d, net/http has %s %s", h.method, h.minor, req.Method, req.Proto)
	}
	length := max(h.contentLength, 0)
	if h.chunked {
		length = -1
	}
	if req.ContentLength != length || (len(req.TransferEncoding) == 1) != h.chunked {
		t.Fatalf("length %d, chunked %v; net/http has %d, %v", length, h.chunked, req.ContentLength, req.TransferEncoding)
	}
	if req.URL.User != nil || req.URL.Fragment != "" {
		t.Fatalf("net/http finds a user or a fragment in %s", req.URL)
	}
	claim, port := req.URL.Host, uint16(80)
	switch h.form {
	case formAbsolute:
		if req.URL.Scheme != "http" {
			t.Fatalf("net/http has the scheme %q", req.URL.Scheme)
		}
	case formAuthority:
		port = 0
	case formOrigin, formAsterisk:
		if req.URL.Host != "" || req.URL.Scheme != "" {
			t.Fatalf("net/http finds the host %q in a path", req.URL.Host)
		}
		if h.host == nil {
			return
		}
		claim = req.Host
	}
	want := h.target
	if h.form == formOrigin || h.form == formAsterisk {
		want = *h.host
	}
	if got, err := allowlists.ParseTarget(claim, port); err != nil || got != want {
		t.Fatalf("we judge %s, net/http would go to %q (%v)", want, claim, err)
	}
}
