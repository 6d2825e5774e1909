//go:build linux

package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// idleTunnels opens n tunnels, leaves them alone for a while, and says what each
// costs the subject in memory and descriptors. The subject must be freshly started.
func idleTunnels(c *client, n int, alone time.Duration) Sample {
	buffer := make([]byte, 4096)
	for range 20 { // what is allocated once is not counted
		if err := c.setUp(buffer); err != nil {
			return failed(err)
		}
	}
	time.Sleep(alone) // as long as below, so that what the start took is given back before as after
	memory, files := residentKiB(c.s.pid), openFiles(c.s.pid)
	conns, failures := c.openMany(n)
	time.Sleep(alone)
	s := newSample()
	s.Ops, s.Errors = float64(len(conns)), failures.Load()
	if len(conns) > 0 {
		s.Values[each] = float64(residentKiB(c.s.pid)-memory) / s.Ops
		s.Values[descriptor] = float64(openFiles(c.s.pid)-files) / s.Ops
		s.Values[rss] = float64(residentKiB(c.s.pid)) / 1024
	}
	for _, conn := range conns {
		conn.Close()
	}
	return s
}

// openMany opens n tunnels with a byte through each, 32 at once.
func (c *client) openMany(n int) ([]net.Conn, *atomic.Int64) {
	var mu sync.Mutex
	var conns []net.Conn // guarded by mu
	var next, failures atomic.Int64
	var openers sync.WaitGroup
	for range 32 {
		openers.Go(func() {
			buffer := make([]byte, 4096)
			for next.Add(1) <= int64(n) && failures.Load() < maxFailures {
				conn, err := c.open(buffer)
				if err == nil {
					err = c.greet(conn, buffer)
				}
				if err != nil {
					failures.Add(1)
					continue
				}
				mu.Lock()
				conns = append(conns, conn)
				mu.Unlock()
			}
		})
	}
	openers.Wait()
	return conns, &failures
}
