package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// switcher answers upgrades, and echoes what follows in lines.
func switcher(first chan<- string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(w, "no upgrade: "+r.Header.Get("Connection"))
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		if first != nil {
			select {
			case <-earlyByte(rw.Reader):
				first <- "a byte came before the 101"
			default:
				first <- ""
			}
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\nSec-WebSocket-Accept: x\r\n\r\nhello\n")
		_, _ = io.Copy(conn, rw)
	})
}

// earlyByte gives at once if something is buffered already.
func earlyByte(r *bufio.Reader) <-chan struct{} {
	early := make(chan struct{}, 1)
	if r.Buffered() > 0 {
		early <- struct{}{}
	}
	return early
}

const upgradeA = "GET http://a.example/ws HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\n"

func TestForwardUpgrade(t *testing.T) {
	for _, protocol := range []string{"websocket", "tcp"} {
		first := make(chan string, 1)
		b := newBench(t, switcher(first), "a.example:80")
		c := b.dialClient()
		c.send(upgradeA + "Upgrade: " + protocol + "\r\n\r\nearly\n")
		if what := within(t, "the upgrade", first); what != "" {
			t.Errorf("%s: %s", protocol, what)
		}
		resp, err := http.ReadResponse(c.in, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != protocol || resp.Header.Get("Sec-WebSocket-Accept") != "x" {
			t.Fatalf("%s: %v %v", protocol, resp, err)
		}
		c.send("late\n" + getA) // after the 101 it is no HTTP
		_ = c.CloseWrite()
		if got, _ := io.ReadAll(c.in); string(got) != "hello\nearly\nlate\n"+getA {
			t.Errorf("%s: the client gets %q", protocol, got)
		}
		end := b.phases("close", 1)[0]
		if end.sent != int64(len("early\nlate\n"+getA)) || end.received != end.sent+6 || end.err != nil {
			t.Errorf("%s: the close record is %+v", protocol, end)
		}
		if opens := b.phases("open", 1); len(opens) != 1 {
			t.Errorf("%s: %d open records", protocol, len(opens))
		}
	}
}

func TestForwardUpgradeOnlyToTheAllowedHost(t *testing.T) {
	b := newBench(t, switcher(nil), "a.example:80")
	if status, _ := b.dialClient().do("GET http://a.example/ws HTTP/1.1\r\nHost: b.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); status != 403 {
		t.Errorf("an upgrade for another Host is answered %d", status)
	}
}

func TestForwardStripsUpgrades(t *testing.T) {
	rows := []struct{ rule, fields string }{
		{"h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"},
		{"h2c in capitals", "Connection: upgrade\r\nUpgrade: H2C\r\n"},
		{"HTTP itself", "Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n"},
		{"an upgrade that Connection does not name", "Upgrade: websocket\r\n"},
		{"an upgrade with a body", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n"},
	}
	b := newBench(t, switcher(nil), "a.example:80")
	for _, r := range rows {
		body := ""
		if r.rule == "an upgrade with a body" {
			body = "x"
		}
		if status, got := b.dialClient().do("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n" + r.fields + "\r\n" + body); status != 200 || got != "no upgrade: " {
			t.Errorf("%s: %d %q", r.rule, status, got)
		}
	}
	if status, _ := b.dialClient().do("GET http://a.example/ HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); status != 200 {
		t.Errorf("an upgrade in HTTP/1.0: %d", status)
	}
	if got := upgradeWanted(http.Header{"Connection": {"Upgrade"}, "Upgrade": {"h2c, websocket", "h2"}}); got != "websocket" {
		t.Errorf("of h2c and websocket %q is left", got)
	}
}

func TestForwardUpgradeDeclined(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80")
	c := b.dialClient()
	if status, body := c.do(upgradeA + "Upgrade: websocket\r\n\r\n"); status != 200 || body != "GET a.example /ws " {
		t.Errorf("%d %q", status, body)
	}
	if status, _ := c.do(getA); status != 200 {
		t.Errorf("the next request: %d", status)
	}
}

// TestADeadlineThatIsOverStays: what ends a switched connection is not undone by
// a read or a write that begins only then.
func TestADeadlineThatIsOverStays(t *testing.T) {
	for what, begin := range map[string]func(c *upstreamConn) error{
		"a read": func(c *upstreamConn) error { _, err := c.Read(make([]byte, 1)); return err },
		"a read behind a write": func(c *upstreamConn) error {
			c.bill = &bill{ctx: context.Background()}
			_, _ = c.Write([]byte("x"))
			_, err := c.Read(make([]byte, 1))
			return err
		},
	} {
		near, far := net.Pipe()
		c := &upstreamConn{Conn: near, idle: time.Minute, mayRead: -1}
		_ = c.SetDeadline(past)
		ended := make(chan error, 1)
		go func() { ended <- begin(c) }()
		select {
		case err := <-ended:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s waits", what)
		}
		near.Close()
		far.Close()
	}
}
