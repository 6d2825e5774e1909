//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// A kept connection is used for one plain HTTP request after another.
type kept struct {
	conn net.Conn
	in   *bufio.Reader
	used bool // once at least, so that the other side may have closed it
	last bool // the other side closes it
}

// requests sends plain HTTP GETs over n connections that are kept.
func requests(c *client, n int, length time.Duration) Sample {
	form := "GET http://%[1]s/ HTTP/1.1\r\nHost: %[1]s\r\n\r\n"
	addr := c.s.addr
	if c.s.direct {
		form, addr = "GET / HTTP/1.1\r\nHost: %[1]s\r\n\r\n", c.s.web
	}
	request := fmt.Appendf(nil, form, c.s.web)
	idle := make(chan *kept, n)
	for range n {
		idle <- nil
	}
	s := hammer(c.s.pid, n, length, func([]byte) error {
		k, err := getOnce(<-idle, addr, request)
		idle <- k
		return err
	})
	for range n {
		if k := <-idle; k != nil {
			k.conn.Close()
		}
	}
	return s
}

// getOnce sends a request over k, or over a new connection if k is nil or was
// closed while it was idle. It returns the connection to use next, or nil.
func getOnce(k *kept, addr string, request []byte) (*kept, error) {
	for {
		if k == nil {
			conn, err := net.DialTimeout("tcp", addr, patience)
			if err != nil {
				return nil, err
			}
			k = &kept{conn: conn, in: bufio.NewReaderSize(conn, 4096)}
		}
		err := k.get(request)
		if err == nil && !k.last {
			return k, nil
		}
		k.conn.Close()
		if err == nil || !k.used {
			return nil, err
		}
		k = nil
	}
}

// get sends a request and reads the whole answer.
func (k *kept) get(request []byte) error {
	if err := k.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := k.conn.Write(request); err != nil {
		return err
	}
	r, err := http.ReadResponse(k.in, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	n, err := io.Copy(io.Discard, r.Body)
	if err == nil && (r.StatusCode != http.StatusOK || n == 0) {
		err = fmt.Errorf("GET was answered with %d and %d bytes", r.StatusCode, n)
	}
	k.used, k.last = true, r.Close
	return err
}
