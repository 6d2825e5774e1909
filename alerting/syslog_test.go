package alerting_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leodido/go-syslog/v4/rfc5424"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// toSyslog is a configuration with that one sink.
func toSyslog(address string) allowlists.Alerts {
	return allowlists.Alerts{GroupInterval: 5 * time.Minute, Syslog: allowlists.Syslog{Address: address}}
}

func TestASyslogLineSaysWhatAProgramNeeds(t *testing.T) {
	links := allowlists.Links{Event: "https://sallyport.corp.example/events/{id}"}
	lines, err := alerting.SyslogLines("ddddeeeeffff", []alerting.SlackItem{anItem()}, links)
	if err != nil {
		t.Fatal(err)
	}
	read, err := rfc5424.NewParser().Parse([]byte(lines[0]))
	if err != nil {
		t.Fatalf("%v in %s", err, lines[0])
	}
	line := read.(*rfc5424.SyslogMessage)
	if *line.Priority != 4*8+4 || *line.Appname != "sallyport" || *line.MsgID != "denied-egress" || *line.Message != "evil.example was refused" {
		t.Errorf("%s", lines[0])
	}
	got := (*line.StructuredData)["sallyport@32473"]
	for name, want := range map[string]string{
		"alert": "denied-egress", "severity": "medium", "pool": "build", "group": "k3v9x2m4p7qa", "count": "7", "new": "3",
		"event": "aaaabbbbcccc", "destination": "evil.example:443", "job": "corp/app ci test 12", "suggest": "- evil.example",
		"delivery": "ddddeeeeffff", "link": "https://sallyport.corp.example/events/aaaabbbbcccc",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	// docs/alerts.md shows the fields in the order that they have.
	names := regexp.MustCompile(` ([a-z]+)="`)
	doc, err := os.ReadFile("../docs/alerts.md")
	_, example, _ := strings.Cut(string(doc), "denied-egress [sallyport@32473")
	example, _, found := strings.Cut(example, "]")
	var shown, have []string
	for _, m := range names.FindAllStringSubmatch(example, -1) {
		shown = append(shown, m[1])
	}
	for _, m := range names.FindAllStringSubmatch(lines[0], -1) {
		if slices.Contains(shown, m[1]) {
			have = append(have, m[1])
		}
	}
	if err != nil || !found || len(shown) < 8 || !slices.Equal(shown, have) {
		t.Errorf("docs/alerts.md shows the fields %q, and a line has %q", shown, have)
	}
}

// FuzzSyslog: no text of a job makes a second line, another field, or a line
// that does not parse or does not fit a datagram.
func FuzzSyslog(f *testing.F) {
	for _, text := range []string{
		"evil.example", "a\nb", "a\r\n<34>1 2026-11-23T12:00:00Z h sallyport - - - forged", `"] [x@1 pool="other"] `, `\`, `\\"`, "]", "\x00\x1b[31m\u2028\u202e",
		"\xff\xfe", "", strings.Repeat("\x00", 5000), strings.Repeat("𝕏", 3000), strings.Repeat(`\"]`, 2000),
	} {
		f.Add(text, text, text)
		f.Add(text, "build", "- x")
	}
	f.Fuzz(func(t *testing.T, host, pool, suggest string) {
		item := anItem()
		item.Host, item.Summary, item.Pool, item.Suggest, item.Alert.Alert = host, host+" was refused", pool, suggest, pool
		item.Evidence, item.Job = []string{suggest}, &allowlists.Job{Repo: host, Workflow: pool, RunID: suggest}
		lines, err := alerting.SyslogLines("ddddeeeeffff", []alerting.SlackItem{item, anItem()}, allowlists.Links{})
		if err != nil || len(lines) != 2 {
			t.Fatalf("%d lines, %v", len(lines), err)
		}
		for i := 0; i < len(lines[0]); i++ {
			if c := lines[0][i]; c < ' ' || c > '~' {
				t.Fatalf("byte %#x in %q", c, lines[0])
			}
		}
		if len(lines[0]) > 8<<10 {
			t.Fatalf("%d bytes", len(lines[0]))
		}
		read, err := rfc5424.NewParser().Parse([]byte(lines[0]))
		if err != nil {
			t.Fatalf("%v in %s", err, lines[0])
		}
		elements := *read.(*rfc5424.SyslogMessage).StructuredData
		if len(elements) != 1 || elements["sallyport@32473"]["group"] != "k3v9x2m4p7qa" {
			t.Fatalf("%v in %s", elements, lines[0])
		}
	})
}

// A receiver is rsyslog, which writes what it gets to a file: first the element
// of structured data, then the message.
type receiver struct{ program, config, dir string }

func newReceiver(t *testing.T, inputs string) *receiver {
	t.Helper()
	r := &receiver{program: needProgram(t, "rsyslogd"), dir: t.TempDir()}
	r.config = filepath.Join(r.dir, "rsyslog.conf")
	text := fmt.Sprintf("%s\ntemplate(name=\"all\" type=\"string\" string=\"%%pri%% %%app-name%% %%msgid%% %%structured-data%% | %%msg%%\\n\")\n"+
		"*.* action(type=\"omfile\" file=\"%s/out\" template=\"all\")\n", inputs, r.dir)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *receiver) run(t *testing.T) (stop func()) {
	return start(t, r.program, "-n", "-C", "-f", r.config, "-i", filepath.Join(r.dir, "pid"))
}

func (r *receiver) lines() []string {
	text, _ := os.ReadFile(filepath.Join(r.dir, "out"))
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " sallyport ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func (r *receiver) has(text string) bool {
	return strings.Contains(strings.Join(r.lines(), "\n"), text)
}

// TestARealRsyslog is told over TCP and UDP, before and after it was down.
func TestARealRsyslog(t *testing.T) {
	for _, c := range []struct{ network, inputs string }{
		{"tcp", `module(load="imtcp") input(type="imtcp" address="127.0.0.1" port="%s")`},
		{"udp", `module(load="imudp") input(type="imudp" address="127.0.0.1" port="%s")`},
	} {
		t.Run(c.network, func(t *testing.T) {
			t.Parallel()
			address := freeAddress(t)
			_, port, _ := net.SplitHostPort(address)
			receiver := newReceiver(t, fmt.Sprintf(c.inputs, port))
			r := runOutside(t, alerting.CorrelatorSetup{Alerts: toSyslog(c.network + "://" + address)})
			r.Take(now(connect("early.example", 443))) // before it listens
			inTime(t, "a try that does not work", func() bool { return strings.Contains(r.said.text(), "comes again") })
			stop := receiver.run(t)
			inTime(t, "the alert from before", func() bool { return receiver.has("early.example") })
			r.Take(now(connect("evil\n<34>1 - - sallyport - forged - x.example", 443, client("10.20.0.9"))))
			inTime(t, "the second alert", func() bool { return receiver.has("10.20.0.9") })
			stop()
			before := strings.Count(r.said.text(), "comes again")
			r.Take(now(connect("down.example", 443)))
			inTime(t, "a try while it is down", func() bool { return strings.Count(r.said.text(), "comes again") > before })
			receiver.run(t)
			inTime(t, "the alert from while it was down", func() bool { return receiver.has("down.example") })
			lines := receiver.lines()
			if len(lines) != 3 {
				t.Errorf("%d lines of three alerts:\n%s", len(lines), strings.Join(lines, "\n"))
			}
			for _, line := range lines {
				if !strings.HasPrefix(line, "36 sallyport denied-egress [sallyport@32473 ") || !strings.Contains(line, `pool="build"`) || !strings.Contains(line, `count="1"`) {
					t.Errorf("%s", line)
				}
			}
		})
	}
}

// readFrame reads one line by octet counting.
func readFrame(t *testing.T, conn net.Conn) string {
	t.Helper()
	in := bufio.NewReader(conn)
	var length int
	if _, err := fmt.Fscanf(in, "%d ", &length); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, length)
	if _, err := io.ReadFull(in, line); err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func TestALocalSocketTakesDatagrams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	r := runOutside(t, alerting.CorrelatorSetup{Alerts: toSyslog("unix:" + path)})
	r.Take(now(connect("evil.example", 443)))
	socket.SetReadDeadline(time.Now().Add(30 * time.Second))
	datagram := make([]byte, 4096)
	n, err := socket.Read(datagram)
	if err != nil {
		t.Fatal(err)
	}
	if line := string(datagram[:n]); !strings.HasPrefix(line, "<36>1 ") || !strings.Contains(line, "evil.example:443") {
		t.Errorf("%q", line)
	}
}

func TestSyslogOverTLSNeedsACertificateThatIsTrusted(t *testing.T) {
	certificate, _ := selfSigned(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	got := make(chan int, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		n, _ := conn.Read(make([]byte, 100))
		got <- n
	}()
	r := runOutside(t, alerting.CorrelatorSetup{Alerts: toSyslog("tls://" + listener.Addr().String())})
	r.Take(now(connect("evil.example", 443)))
	inTime(t, "the cause", func() bool { return strings.Contains(r.said.text(), "the certificate was not accepted") })
	if n := <-got; n > 0 {
		t.Errorf("%d bytes were sent", n)
	}
}

// selfSigned makes a certificate for 127.0.0.1, and a file to trust it by.
func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{netip.MustParseAddr("127.0.0.1").AsSlice()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}
