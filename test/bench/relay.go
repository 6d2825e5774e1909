//go:build linux

package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net"
)

// relayMain is a CONNECT relay that checks nothing, logs nothing, resolves
// nothing (it always dials -target) and copies with io.Copy, which splices on
// Linux. It marks what a Go relay can reach before it does any real work. A
// target with "blocked" in its request is refused.
func relayMain(args []string) error {
	flags := flag.NewFlagSet("relay", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address")
	target := flags.String("target", "", "HOST:PORT that is always dialled")
	if err := flags.Parse(args); err != nil {
		return err
	}
	to, err := net.ResolveTCPAddr("tcp", *target)
	if err != nil {
		return err
	}
	var listening net.ListenConfig
	l, err := listening.Listen(context.Background(), "tcp", *listen)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go relay(c.(*net.TCPConn), to)
	}
}

// relay serves one client.
func relay(c *net.TCPConn, to *net.TCPAddr) {
	defer c.Close()
	var head [1024]byte
	n := 0
	for !bytes.HasSuffix(head[:n], []byte("\r\n\r\n")) {
		m, err := c.Read(head[n:])
		n += m
		if err != nil || n == len(head) {
			return
		}
	}
	if !bytes.HasPrefix(head[:n], []byte("CONNECT ")) || bytes.Contains(head[:n], []byte("blocked")) {
		_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return
	}
	up, err := net.DialTCP("tcp", nil, to)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer up.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(up, c)
		_ = up.CloseWrite()
	}()
	_, _ = io.Copy(c, up)
	_ = c.CloseWrite()
}
