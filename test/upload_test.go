package test

import (
	"io"
	"strings"
	"testing"
	"time"
)

const uploadPools = `
  build:
    sources: [127.0.0.0/8]
    allow: [{host: echo.example, ports: [%ECHO%], resolves_to: [127.0.0.0/8], upload_limit: 20kB}]
`

// TestUploadsEndAtTheLimit: all of the limit comes back from an echo, the next
// byte ends the tunnel, a second tunnel of the same client has nothing left,
// and a reload that raises the limit gives it more.
func TestUploadsEndAtTheLimit(t *testing.T) {
	w := newReasonWorld(t, uploadPools, "")
	target := "echo.example:" + w.echo.port
	r := connect(t, w.proxy, target)
	defer r.conn.Close()
	echoed := func(r *reply, n int) {
		t.Helper()
		if _, err := io.WriteString(r.conn, strings.Repeat("x", n)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, r.br, int64(n)); err != nil {
			t.Fatalf("of %d bytes not all came back: %v", n, err)
		}
	}
	echoed(r, 20_000)
	if err := writeAndRead(r.conn, "x"); err == nil || !isReset(err) {
		t.Errorf("the byte after the limit: %v", err)
	}
	closed := func(sent float64) event {
		return w.wait("the close with upload-limit", func(e event) bool {
			return e.text("phase") == "close" && e.text("reason") == "upload-limit" && e.number("sent") == sent
		})
	}
	if e := closed(20_000); e.text("verdict") != "deny" || e.number("received") != 20_000 || !strings.Contains(e.text("rule"), "sallyport.yaml:") {
		t.Errorf("the close is %v", e)
	}
	second := connect(t, w.proxy, target)
	defer second.conn.Close()
	if err := writeAndRead(second.conn, "x"); err == nil {
		t.Error("a second tunnel has an hour of its own")
	}
	closed(0)
	w.write(w.upstream.addr, strings.NewReplacer("%ECHO%", w.echo.port, "20kB", "30kB").Replace(uploadPools))
	w.wait("the reload", func(e event) bool { return e.text("event") == "reloaded" })
	third := connect(t, w.proxy, target)
	defer third.conn.Close()
	_ = third.conn.SetDeadline(time.Now().Add(patience))
	echoed(third, 10_000)
	if err := writeAndRead(third.conn, "x"); err == nil {
		t.Error("the raised limit does not hold")
	}
}
