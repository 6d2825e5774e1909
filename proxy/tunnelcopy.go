package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Bounds of one step of a relay.
const (
	copyBuffer = 32 << 10
	// spliceBytes is how much the kernel moves before it is counted. A peer
	// that takes longer than idle_timeout for so much counts as idle.
	spliceBytes = 256 << 10
	// spliceMost is the same for a peer that takes spliceBytes within spliceFast,
	// and then twice as much, and so on: each count costs the kernel's batches.
	spliceMost = 4 << 20
	spliceFast = 50 * time.Millisecond
	// spliceHold is how long a splice may wait for more, holding its pipe.
	spliceHold = time.Second
)

// copyBuffers are lent for the moment between a read and a write.
var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// carry copies from src to dst until the end of src's stream, or as much as the
// meter lets pass, and calls wrote after each write. An error of the reading
// side is a *readError.
func (r *relay) carry(dst, src net.Conn, m *meter, wrote func(int)) error {
	in, ok := src.(*net.TCPConn)
	out, both := dst.(*net.TCPConn)
	if !ok {
		return r.carryPlain(dst, src, m, wrote)
	}
	raw, err := in.SyscallConn()
	if err != nil {
		return &readError{err}
	}
	for {
		// Small transfers go through a buffer that is only held while there is
		// something to carry: an idle tunnel holds neither buffer nor pipe.
		full, err := r.step(dst, raw, m, wrote)
		if err == nil && full && both {
			err = r.splice(out, in, m, wrote)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// step moves what is readable, at most a buffer's worth. full is set if there
// may well be more. The error is io.EOF at the end of the stream.
func (r *relay) step(dst net.Conn, src syscall.RawConn, m *meter, wrote func(int)) (full bool, err error) {
	var n int
	var buf *[copyBuffer]byte
	defer func() {
		if buf != nil {
			copyBuffers.Put(buf)
		}
	}()
	var readErr error
	waitErr := src.Read(func(fd uintptr) bool {
		buf = copyBuffers.Get().(*[copyBuffer]byte)
		for {
			n, readErr = syscall.Read(int(fd), buf[:])
			if readErr != syscall.EINTR {
				break
			}
		}
		if readErr == syscall.EAGAIN {
			copyBuffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	switch {
	case waitErr != nil:
		return false, &readError{waitErr}
	case readErr != nil:
		return false, &readError{os.NewSyscallError("read", readErr)}
	case n == 0:
		return false, io.EOF
	}
	return n == len(buf), r.write(dst, buf[:n], m, wrote)
}

// write writes what the meter lets pass of data, and calls wrote.
func (r *relay) write(dst net.Conn, data []byte, m *meter, wrote func(int)) error {
	g, denied := m.take(r.ctx, int64(len(data)))
	if g.bytes == 0 && denied != nil {
		return denied
	}
	n, err := dst.Write(data[:g.bytes])
	m.settle(g, int64(n))
	wrote(n)
	if err != nil {
		return err
	}
	return denied
}

// splice has the kernel move bytes, until none came for a while or the limit is
// near. The error is io.EOF at the end of the stream.
func (r *relay) splice(dst, src *net.TCPConn, m *meter, wrote func(int)) error {
	defer r.setReadDeadline(src, time.Time{})
	if m != nil {
		r.setSplicing(true)
		defer r.setSplicing(false)
	}
	size := int64(spliceBytes)
	for {
		terms := m.changes()
		g := m.speculate(size)
		if g.bytes == 0 {
			return nil
		}
		began := time.Now()
		r.setReadDeadline(src, began.Add(spliceHold))
		if m.changes() != terms { // and wakeSplice came before the deadline
			_ = src.SetReadDeadline(past)
		}
		n, err := dst.ReadFrom(&io.LimitedReader{R: src, N: g.bytes})
		m.settle(g, n)
		wrote(int(n))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !r.stopped.Load():
			return nil
		case err != nil:
			return spliceError(err)
		case n < g.bytes:
			return io.EOF
		}
		if size = min(2*size, spliceMost); time.Since(began) > spliceFast {
			size = spliceBytes
		}
	}
}

// spliceError tells a failure to read from one to write: net wraps them alike,
// but for the system call.
func spliceError(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return err
	}
	return &readError{err}
}

// wakeSplice ends a splice that waits for the client, so that what its meter
// holds is settled. It is safe for concurrent use.
func (r *relay) wakeSplice() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.splicing {
		_ = r.client.SetReadDeadline(past)
	}
}

func (r *relay) setSplicing(splicing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.splicing = splicing
}

// setReadDeadline sets a deadline, unless stop has set the last one.
func (r *relay) setReadDeadline(conn net.Conn, at time.Time) {
	_ = conn.SetReadDeadline(at)
	if r.stopped.Load() {
		_ = conn.SetReadDeadline(past)
	}
}

// carryPlain is carry for connections that are no sockets of their own.
func (r *relay) carryPlain(dst, src net.Conn, m *meter, wrote func(int)) error {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if writeErr := r.write(dst, buf[:n], m, wrote); writeErr != nil {
				return writeErr
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &readError{err}
		}
	}
}
