//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A client opens tunnels through one subject, or connections to the origin if
// the subject is direct. Safe for concurrent use.
type client struct {
	s       *subject
	connect []byte // CONNECT for the allowed target
	refused []byte // CONNECT for one that is not allowed
	hello   []byte // a ClientHello that names the target
	next    atomic.Uint32
}

func newClient(s *subject) (*client, error) {
	request := func(target string) []byte {
		return fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	}
	host, _, err := net.SplitHostPort(s.target)
	if err != nil {
		return nil, err
	}
	hello, err := clientHello(host)
	if err != nil {
		return nil, err
	}
	return &client{s: s, connect: request(s.target), refused: request(s.refused), hello: hello}, nil
}

// clientHello is the first record that Go's TLS client sends.
func clientHello(name string) ([]byte, error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}).Handshake() }()
	head := make([]byte, 5)
	if _, err := io.ReadFull(b, head); err != nil {
		return nil, err
	}
	rest := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(b, rest); err != nil {
		return nil, err
	}
	return append(head, rest...), nil
}

// sources is how many addresses, 127.1.0.1 and up, connections come from. One
// would run out of ports: the kernel takes some 14,000 first, and one in
// TIME-WAIT is not taken again within a second.
const sources = 64

// patience bounds every wait for a subject.
const patience = 20 * time.Second

// dial connects to the subject.
func (c *client) dial() (*net.TCPConn, error) {
	dialer := net.Dialer{
		Timeout:   patience,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 0, byte(1+c.next.Add(1)%sources))},
		Control:   choosePortLate,
	}
	conn, err := dialer.Dial("tcp", c.s.addr)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), conn.SetDeadline(time.Now().Add(patience))
}

// choosePortLate leaves the port to connect(2), which can share it between
// destinations (IP_BIND_ADDRESS_NO_PORT, ip(7)).
func choosePortLate(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, 24, 1) })
	return errors.Join(err, failed)
}

// open returns a tunnel on which the origin waits for a command.
func (c *client) open(buffer []byte) (*net.TCPConn, error) {
	conn, err := c.dial()
	if err != nil || c.s.direct {
		return conn, err
	}
	status, err := ask(conn, c.connect, buffer)
	if err == nil && status != 200 {
		err = fmt.Errorf("CONNECT was answered with %d", status)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// ask sends a request and returns the status of the answer.
func ask(conn *net.TCPConn, request, buffer []byte) (int, error) {
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	n := 0
	for {
		m, err := conn.Read(buffer[n:])
		n += m
		whole := bytes.Contains(buffer[:n], []byte("\r\n\r\n")) || n == len(buffer)
		if whole || (err != nil && n >= 12) {
			return parseStatus(buffer[:n])
		}
		if err != nil {
			return 0, err
		}
	}
}

// parseStatus reads the status of an answer's head.
func parseStatus(head []byte) (int, error) {
	if len(head) < 12 || !bytes.HasPrefix(head, []byte("HTTP/1.")) {
		return 0, fmt.Errorf("%q is no HTTP answer", head[:min(len(head), 40)])
	}
	return int(head[9]-'0')*100 + int(head[10]-'0')*10 + int(head[11]-'0'), nil
}

// command sends the ClientHello and a command, in one write.
func (c *client) command(conn *net.TCPConn, command ...byte) error {
	_, err := conn.Write(append(slices.Clip(c.hello), command...))
	return err
}

// greet sends one byte to the origin and waits until it comes back.
func (c *client) greet(conn *net.TCPConn, buffer []byte) error {
	if err := c.command(conn, 'E'); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, buffer[:1]); err != nil {
		return err
	}
	if buffer[0] != 'E' {
		return fmt.Errorf("the origin echoed %q", buffer[0])
	}
	return nil
}

// setUp opens one tunnel, sees a byte through it and closes it.
func (c *client) setUp(buffer []byte) error {
	conn, err := c.open(buffer)
	if err != nil {
		return err
	}
	defer conn.Close()
	return c.greet(conn, buffer)
}

// beRefused asks for a target that is not allowed.
func (c *client) beRefused(buffer []byte) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	status, err := ask(conn, c.refused, buffer)
	if err == nil && (status < 400 || status == 502 || status == 504) {
		err = fmt.Errorf("a target that is not allowed got %d", status)
	}
	return err
}

// maxFailures ends a repetition that goes wrong.
const maxFailures = 200

// hammer runs op on n workers until the time is over, and keeps how long each
// took.
func hammer(pid, n int, length time.Duration, op func(buffer []byte) error) Sample {
	var failures atomic.Int64
	var first atomic.Value
	took := make([][]int64, n)
	var workers sync.WaitGroup
	w := openWindow(pid)
	end := time.Now().Add(length)
	for i := range n {
		workers.Go(func() {
			buffer := make([]byte, 4096)
			for {
				began := time.Now()
				if began.After(end) {
					return
				}
				if err := op(buffer); err != nil {
					first.CompareAndSwap(nil, err.Error())
					if failures.Add(1) > maxFailures {
						return
					}
					continue
				}
				took[i] = append(took[i], int64(time.Since(began)))
			}
		})
	}
	workers.Wait()
	s := newSample()
	all := slices.Concat(took...)
	s.Ops, s.Errors = float64(len(all)), failures.Load()
	s.FirstError, _ = first.Load().(string)
	w.closeInto(&s)
	s.Values[rate] = s.Ops / s.Seconds
	s.latencies(all)
	return s
}

// failed is a sample of nothing but an error.
func failed(err error) Sample {
	s := newSample()
	s.Errors, s.FirstError = 1, err.Error()
	return s
}

// ping sends 64 bytes to and fro through one tunnel.
func ping(c *client, times int) Sample {
	buffer := make([]byte, 4096)
	conn, err := c.open(buffer)
	if err != nil {
		return failed(err)
	}
	defer conn.Close()
	if err := c.greet(conn, buffer); err != nil {
		return failed(err)
	}
	took := make([]int64, 0, times)
	w := openWindow(c.s.pid)
	for range times {
		began := time.Now()
		if _, err := conn.Write(buffer[:64]); err != nil {
			return failed(err)
		}
		if _, err := io.ReadFull(conn, buffer[:64]); err != nil {
			return failed(err)
		}
		took = append(took, int64(time.Since(began)))
	}
	s := newSample()
	s.Ops = float64(len(took))
	w.closeInto(&s)
	s.Values[rate] = s.Ops / s.Seconds
	s.latencies(took)
	return s
}
