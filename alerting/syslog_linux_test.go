package alerting_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/alerting"
)

// A receiver that goes away with a message unread resets the connection, and
// the message comes again.
func TestWhatAReceiverDidNotReadComesAgain(t *testing.T) {
	certificate, ca := selfSigned(t)
	for _, c := range []struct {
		scheme string
		wrap   func(net.Listener) net.Listener
	}{
		{"tcp", func(l net.Listener) net.Listener { return l }},
		{"tls", func(l net.Listener) net.Listener {
			return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
		}},
	} {
		t.Run(c.scheme, func(t *testing.T) {
			t.Parallel()
			plain, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			listener := c.wrap(plain)
			alerts := toSyslog(c.scheme + "://" + plain.Addr().String())
			if c.scheme == "tls" {
				alerts.Syslog.CAFile = ca
			}
			r := runOutside(t, alerting.CorrelatorSetup{Alerts: alerts})
			r.Take(now(connect("evil.example", 443)))
			first, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if secure, is := first.(*tls.Conn); is { // which reads ahead, so the reset is made
				if err := secure.Handshake(); err != nil {
					t.Fatal(err)
				}
				first = secure.NetConn()
				first.(*net.TCPConn).SetLinger(0)
			} else {
				inTime(t, "bytes that nobody reads", func() bool { return unread(t, first) })
			}
			first.Close() // with a reset, as not all was read
			inTime(t, "that it is known", func() bool { return strings.Contains(r.said.text(), "comes again") })
			second, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer second.Close()
			if line := readFrame(t, second); !strings.Contains(line, "evil.example:443") {
				t.Errorf("%q", line)
			}
		})
	}
}

// unread reports whether the kernel holds bytes of a connection for us.
func unread(t *testing.T, conn net.Conn) bool {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	waiting := 0
	if err := raw.Control(func(fd uintptr) { waiting, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); err != nil {
		t.Fatal(err)
	}
	return waiting > 0
}
