package alerting

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"sallyport/allowlists"
)

// The times and bounds of the syslog sink.
const (
	syslogMost   = 50                     // groups in a message, each a line of its own
	syslogClosed = 2 * time.Second        // how long a receiver may take to close after it read everything
	syslogNoted  = 200 * time.Millisecond // how long a host may take to say that no one listens (ICMP)
)

// syslog sends alerts as lines of RFC 5424. There is no acknowledgement in
// syslog, so over TCP and TLS each message has a connection of its own: a
// receiver that closes it after our end was closed has read everything before.
type syslog struct {
	network, address string // of net.Dial
	tls              *tls.Config
	writer           syslogWriter
}

// newSyslog checks the address. A CAFile is read here.
func newSyslog(config allowlists.Syslog, links allowlists.Links) (*syslog, error) {
	s := &syslog{writer: newSyslogWriter(links)}
	if path, local := strings.CutPrefix(config.Address, "unix:"); local {
		s.network, s.address = "unixgram", path
		return s, nil
	}
	u, err := url.Parse(config.Address)
	if err != nil || u.Hostname() == "" || u.Port() == "" {
		return nil, fmt.Errorf("address %q is not one of udp://, tcp://, tls:// with a host and a port, or unix:", config.Address)
	}
	s.network, s.address = u.Scheme, u.Host
	switch u.Scheme {
	case "udp", "tcp":
	case "tls":
		s.network = "tcp"
		s.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
		if config.CAFile != "" {
			s.tls.RootCAs, err = readCertificates(config.CAFile)
		}
	default:
		err = fmt.Errorf("address has the scheme %q; it is udp, tcp, tls or unix", u.Scheme)
	}
	return s, err
}

// readCertificates reads the certificates of a file.
func readCertificates(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading ca_file %s: %w", path, withoutPath(err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading ca_file %s: no certificate is in it", path)
	}
	return pool, nil
}

func (s *syslog) post(ctx context.Context, m *message) delivery {
	lines, err := s.writer.lines(m)
	if err != nil {
		return delivery{stop: true, cause: "the message cannot be written as RFC 5424"}
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	conn, err := s.dial(ctx)
	if err != nil {
		return delivery{cause: postError(err)}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if s.network == "tcp" {
		err = sendStream(conn, lines)
	} else {
		err = sendDatagrams(conn, lines, s.network == "udp")
	}
	if err != nil {
		return delivery{cause: postError(err)}
	}
	return delivery{arrived: true}
}

func (s *syslog) close() {}

// dial connects to the receiver.
func (s *syslog) dial(ctx context.Context) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: postTimeout / 2, Resolver: new(net.Resolver)}
	if s.tls != nil {
		return (&tls.Dialer{NetDialer: dialer, Config: s.tls}).DialContext(ctx, s.network, s.address)
	}
	return dialer.DialContext(ctx, s.network, s.address)
}

// sendStream writes lines by octet counting (RFC 6587 section 3.4.1, RFC 5425
// section 4.3), closes our end, and waits for the receiver to close its own.
// One that lets the connection stand is believed after syslogClosed; one that
// resets it had not read everything.
func sendStream(conn net.Conn, lines []string) error {
	var frames strings.Builder
	for _, line := range lines {
		frames.WriteString(strconv.Itoa(len(line)))
		frames.WriteByte(' ')
		frames.WriteString(line)
	}
	if _, err := io.WriteString(conn, frames.String()); err != nil {
		return err
	}
	if err := closeWrite(conn); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(syslogClosed)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, io.LimitReader(conn, postReplyRead))
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // it let the connection stand, or closed without TLS's farewell
	}
	return err
}

// closeWrite ends what we send, in TLS and below it.
func closeWrite(conn net.Conn) error {
	if secure, is := conn.(*tls.Conn); is {
		if err := secure.CloseWrite(); err != nil {
			return err
		}
		conn = secure.NetConn()
	}
	if half, is := conn.(interface{ CloseWrite() error }); is {
		return half.CloseWrite()
	}
	return nil
}

// sendDatagrams writes each line as a datagram (RFC 5426). Where a host may
// answer that nobody listens, it waits a moment for that.
func sendDatagrams(conn net.Conn, lines []string, answers bool) error {
	for _, line := range lines {
		if _, err := io.WriteString(conn, line); err != nil {
			return err
		}
	}
	if !answers {
		return nil
	}
	if err := conn.SetReadDeadline(time.Now().Add(syslogNoted)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
