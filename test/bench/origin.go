//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// originMain serves what jobs reach: commands over TCP, and plain HTTP.
//
// A client of the command port may first send one TLS record, such as a
// ClientHello for a gate that insists on one; it is swallowed. Then comes
//
//	'E'             and this and everything after it is echoed
//	'S', 8 bytes N  and N bytes come back
//	'K', 8 bytes N  then N bytes; once they have arrived, 'k' comes back
func originMain(args []string) error {
	flags := flag.NewFlagSet("origin", flag.ContinueOnError)
	commands := flags.String("commands", "127.0.0.1:0", "address for commands")
	web := flags.String("http", "127.0.0.1:0", "address for plain HTTP")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var listening net.ListenConfig
	l, err := listening.Listen(context.Background(), "tcp", *commands)
	if err != nil {
		return err
	}
	go serveCommands(l)
	l, err = listening.Listen(context.Background(), "tcp", *web)
	if err != nil {
		return err
	}
	body := make([]byte, 128)
	server := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{"text/plain"}
		_, _ = w.Write(body)
	})}
	return server.Serve(l)
}

func serveCommands(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "accepting:", err)
			time.Sleep(5 * time.Millisecond) // descriptors may come back
			continue
		}
		go func() {
			defer c.Close()
			obey(c.(*net.TCPConn))
		}()
	}
}

// obey does what one connection asks for.
func obey(c *net.TCPConn) {
	in := bufio.NewReaderSize(c, 2048)
	command, err := in.ReadByte()
	if err == nil && command == 0x16 {
		command, err = swallowRecord(in)
	}
	if err != nil {
		return
	}
	if command == 'E' {
		echo(c, in)
		return
	}
	var size [8]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return
	}
	n := int64(binary.BigEndian.Uint64(size[:]))
	switch command {
	case 'S':
		_ = give(c, n)
	case 'K':
		early := int64(in.Buffered())
		_, _ = in.Discard(int(early))
		if take(c, n-early) == nil {
			_, _ = c.Write([]byte{'k'})
		}
	}
	// The client closes first, as clients mostly do.
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, _ = in.Peek(1)
}

// swallowRecord reads the TLS record whose first byte was read, and one byte.
func swallowRecord(in *bufio.Reader) (byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, err
	}
	if _, err := in.Discard(int(binary.BigEndian.Uint16(head[2:]))); err != nil {
		return 0, err
	}
	return in.ReadByte()
}

func echo(c *net.TCPConn, in *bufio.Reader) {
	if in.UnreadByte() != nil {
		return
	}
	var buffer [2048]byte
	for {
		n, err := in.Read(buffer[:])
		if n > 0 {
			if _, err := c.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// block is what bulk data is made of.
var block = make([]byte, 256<<10)

// give writes n bytes.
func give(c *net.TCPConn, n int64) error {
	for n > 0 {
		written, err := c.Write(block[:min(n, int64(len(block)))])
		if err != nil {
			return err
		}
		n -= int64(written)
	}
	return nil
}

// take discards n bytes inside the kernel (MSG_TRUNC, tcp(7)), so that the
// load does not pay for a copy and stays cheaper than what it measures.
func take(c *net.TCPConn, n int64) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	for n > 0 {
		var got int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			got, failed = discard(fd, min(n, 4<<20))
			return failed != syscall.EAGAIN
		})
		switch {
		case err != nil:
			return err
		case failed == syscall.EINTR:
		case failed != nil:
			return failed
		case got == 0:
			return io.ErrUnexpectedEOF
		}
		n -= int64(got)
	}
	return nil
}

// discard drops up to n bytes that a socket has received.
func discard(fd uintptr, n int64) (int, error) {
	var scratch byte
	got, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&scratch)), uintptr(n),
		syscall.MSG_TRUNC|syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), nil
}
