package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// segments gives bytes in pieces, as a network would.
type segments struct {
	data  []byte
	split []byte // lengths of the pieces less one; then the rest
}

func (s *segments) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := len(s.data)
	if len(s.split) > 0 {
		n, s.split = int(s.split[0])+1, s.split[1:]
	}
	n = copy(p, s.data[:min(n, len(s.data))])
	s.data = s.data[n:]
	return n, nil
}

// pipeSide is a net.Conn for crypto/tls that reads from a reader.
type pipeSide struct{ io.Reader }

func (pipeSide) Write(p []byte) (int, error)      { return len(p), nil }
func (pipeSide) Close() error                     { return nil }
func (pipeSide) LocalAddr() net.Addr              { return nil }
func (pipeSide) RemoteAddr() net.Addr             { return nil }
func (pipeSide) SetDeadline(time.Time) error      { return nil }
func (pipeSide) SetReadDeadline(time.Time) error  { return nil }
func (pipeSide) SetWriteDeadline(time.Time) error { return nil }

// serverSees asks a plain crypto/tls server, given all bytes at once, which
// name it would serve.
func serverSees(data []byte) (name string, alpn []string, ok bool) {
	errEnough := errors.New("enough")
	_ = tls.Server(pipeSide{bytes.NewReader(data)}, &tls.Config{
		MinVersion: tls.VersionTLS10,
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			name, alpn, ok = info.ServerName, info.SupportedProtos, true
			return nil, errEnough
		},
	}).Handshake()
	return name, alpn, ok
}

// sniOf finds the server name of a ClientHello with a parser of its own, in
// the fewest words; ok only if there is exactly one name in a whole hello.
func sniOf(data []byte) (name string, ok bool) {
	var hello []byte
	for len(data) >= 5 && data[0] == 22 {
		n := int(data[3])<<8 | int(data[4])
		if len(data) < 5+n {
			break
		}
		hello, data = append(hello, data[5:5+n]...), data[5+n:]
	}
	take := func(lengthBytes int) []byte {
		n := 0
		if len(hello) < lengthBytes {
			hello = nil
			return nil
		}
		for _, b := range hello[:lengthBytes] {
			n = n<<8 | int(b)
		}
		if n > len(hello)-lengthBytes {
			hello = nil
			return nil
		}
		part := hello[lengthBytes : lengthBytes+n]
		hello = hello[lengthBytes+n:]
		return part
	}
	if len(hello) < 4+34 || hello[0] != 1 {
		return "", false
	}
	hello = hello[1:]
	if hello = take(3); len(hello) < 34 {
		return "", false
	}
	hello = hello[34:]
	take(1)
	take(2)
	take(1)
	hello = take(2)
	for len(hello) >= 4 {
		kind := int(hello[0])<<8 | int(hello[1])
		hello = hello[2:]
		if ext := take(2); kind == 0 && len(ext) > 5 && ext[2] == 0 {
			return string(ext[5:]), true
		}
	}
	return "", false
}

// FuzzPeek holds our reading of a ClientHello, in any segments, against a
// crypto/tls server that gets it whole and against a second parser; and no
// byte is lost on the way.
func FuzzPeek(f *testing.F) {
	for _, name := range []string{"tls.example", "a.tls.example", ""} {
		hello := firstFlight(f, &tls.Config{ServerName: name, NextProtos: []string{"h2", "dot"}, InsecureSkipVerify: true})
		f.Add(hello, []byte{})
		f.Add(hello, []byte{0, 0, 0, 0, 0, 0})
		f.Add(hello, []byte{4, 3, 31, 200})
		f.Add(append(hello, "and more"...), []byte{255, 255})
		f.Add(hello[:len(hello)/2], []byte{17})
	}
	endless := []byte{22, 3, 1, 0, 4, 1, 0, 0xea, 0x60} // 60,000 bytes to come
	for range maxPeek / 6 {
		endless = append(endless, 22, 3, 1, 0, 1, 0)
	}
	f.Add(append(endless, endless...), []byte{})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), []byte{1})
	f.Add([]byte{21, 3, 1, 0, 2, 2, 40}, []byte{})
	f.Add(bytes.Repeat([]byte{22, 3, 1, 0, 0}, 100), []byte{2})
	f.Fuzz(func(t *testing.T, data, split []byte) {
		src := &segments{data: bytes.Clone(data), split: split}
		got, raw, err := peekHello(src)
		if !bytes.Equal(append(slices.Clone(raw), src.data...), data) {
			t.Fatalf("%d bytes read and %d left, of %d", len(raw), len(src.data), len(data))
		}
		if len(raw) > maxPeek {
			t.Fatalf("%d bytes are held", len(raw))
		}
		name, alpn, ok := serverSees(data[:min(len(data), maxPeek)])
		if got.tls != ok || got.sni != name || !slices.Equal(got.alpn, alpn) {
			// Malformed ECH alone stops crypto/tls, and only after its hello is known to us.
			if !(got.tls && got.ech && !ok) {
				t.Fatalf("%+v, but crypto/tls sees %v %q %q", got, ok, name, alpn)
			}
		}
		if got.tls && err != nil {
			t.Fatalf("a hello, and %v", err)
		}
		if got.tls && got.sni != "" {
			if second, ok := sniOf(data); !ok || second != got.sni {
				t.Fatalf("the name is %q, but a second parser says %q", got.sni, second)
			}
		}
	})
}

// keeper keeps what a TLS client says first.
type keeper struct {
	pipeSide
	said bytes.Buffer
}

func (k *keeper) Write(p []byte) (int, error) { return k.said.Write(p) }

// firstFlight makes the record of a ClientHello.
func firstFlight(tb testing.TB, cfg *tls.Config) []byte {
	tb.Helper()
	k := &keeper{pipeSide: pipeSide{bytes.NewReader(nil)}}
	_ = tls.Client(k, cfg).Handshake()
	if k.said.Len() == 0 {
		tb.Fatal("no ClientHello")
	}
	return k.said.Bytes()
}

// BenchmarkPeek reads one ClientHello of a usual size.
// Last: see docs/decisions/0003-connect-outside-goproxy.md.
func BenchmarkPeek(b *testing.B) {
	hello := firstFlight(b, &tls.Config{ServerName: "tls.example", NextProtos: []string{"h2", "http/1.1"}})
	b.ReportAllocs()
	for b.Loop() {
		if h, _, err := peekHello(bytes.NewReader(hello)); err != nil || h.sni != "tls.example" {
			b.Fatal(h, err)
		}
	}
}
