package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"
)

// relay passes a 101 on and then bytes both ways, the client's early ones
// first. Neither connection carries HTTP again.
func (x *exchange) relay() error {
	x.stopReading()
	x.res.began = true
	protocol := x.switched.Header.Get("Upgrade")
	fields := x.switched.Header
	stripHopByHop(fields)
	fields.Set("Connection", "Upgrade")
	fields.Set("Upgrade", protocol)
	_ = x.f.conn.SetWriteDeadline(time.Now().Add(x.f.limits.idleTimeout))
	out := bufio.NewWriterSize(x.f.conn, responseBuffer)
	_, _ = out.WriteString("HTTP/1.1 101 " + http.StatusText(http.StatusSwitchingProtocols) + "\r\n")
	_ = fields.Write(out)
	_, _ = out.WriteString("\r\n")
	if err := out.Flush(); err != nil {
		return err
	}
	_ = x.f.conn.SetDeadline(time.Time{})
	client := &switchedConn{Conn: x.f.conn, in: x.f.in}
	up := &switchedConn{Conn: x.f.up, in: x.f.up.in}
	return x.f.relay(x.ctx, client, up,
		func(n int) { x.sent.Add(int64(n)) }, func(n int) { x.received.Add(int64(n)) })
}

// A switchedConn reads what was read ahead first, and then its connection.
type switchedConn struct {
	net.Conn
	in io.Reader
}

// Read reads through what was read ahead.
func (c *switchedConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// CloseWrite closes the sending side, if the connection knows how to.
func (c *switchedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
