//go:build linux

package main

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// bulk moves a number of GB through some tunnels at once: from the origin, or
// to it if up. An operation is a MB, so CPU per 1,000 of them is CPU per GB.
func bulk(c *client, streams int, gigabytes float64, up bool) Sample {
	per := int64(gigabytes * 1e9 / float64(streams))
	conns := make([]*net.TCPConn, streams)
	buffer := make([]byte, 4096)
	for i := range conns {
		conn, err := c.open(buffer)
		if err != nil {
			return failed(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(3 * patience)); err != nil {
			return failed(err)
		}
		conns[i] = conn
	}
	errs := make([]error, streams)
	var movers sync.WaitGroup
	w := openWindow(c.s.pid)
	for i, conn := range conns {
		movers.Go(func() {
			if up {
				errs[i] = c.upload(conn, per)
			} else {
				errs[i] = c.download(conn, per)
			}
		})
	}
	movers.Wait()
	s := newSample()
	for _, err := range errs {
		if err != nil {
			s.Errors++
			s.FirstError = err.Error()
		}
	}
	if s.Errors == 0 {
		s.Ops = float64(per) * float64(streams) / 1e6
	}
	w.closeInto(&s)
	s.Values[rate] = s.Ops / 1e3 / s.Seconds
	return s
}

func (c *client) download(conn *net.TCPConn, n int64) error {
	if err := c.command(conn, binary.BigEndian.AppendUint64([]byte{'S'}, uint64(n))...); err != nil {
		return err
	}
	return take(conn, n)
}

func (c *client) upload(conn *net.TCPConn, n int64) error {
	if err := c.command(conn, binary.BigEndian.AppendUint64([]byte{'K'}, uint64(n))...); err != nil {
		return err
	}
	if err := give(conn, n); err != nil {
		return err
	}
	var done [1]byte
	_, err := io.ReadFull(conn, done[:])
	return err
}
