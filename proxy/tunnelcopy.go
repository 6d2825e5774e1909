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

// carry copies one way until the end of its stream, or as much as the meter
// lets pass, and counts what was written. An error of the reading side is a
// *readError; errParks if the relay is to be parked.
func (r *relay) carry(w *way) error {
	in, ok := w.src.(*net.TCPConn)
	out, both := w.dst.(*net.TCPConn)
	if !ok {
		return r.carryPlain(w)
	}
	raw, err := in.SyscallConn()
	if err != nil {
		return &readError{err}
	}
	for {
		// Small transfers go through a buffer that is only held while there is
		// something to carry: an idle tunnel holds neither buffer nor pipe.
		full, err := r.step(w, raw)
		if err == nil && full && both {
			err = r.splice(w, out, in)
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
func (r *relay) step(w *way, src syscall.RawConn) (full bool, err error) {
	var n int
	var buf *[copyBuffer]byte
	defer func() {
		if buf != nil {
			copyBuffers.Put(buf)
		}
	}()
	var readErr error
	w.state.Store(wayWaits)
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
	w.state.Store(wayMoves)
	switch {
	case errors.Is(waitErr, os.ErrDeadlineExceeded):
		return false, r.wokenEarly(waitErr)
	case r.parking.offered.Load():
		r.refuseParking()
	}
	switch {
	case waitErr != nil:
		return false, &readError{waitErr}
	case readErr != nil:
		return false, &readError{os.NewSyscallError("read", readErr)}
	case n == 0:
		return false, io.EOF
	}
	return n == len(buf), r.write(w, buf[:n])
}

// write writes what the meter lets pass of data, and counts it.
func (r *relay) write(w *way, data []byte) error {
	g, denied := w.meter.take(r.ctx, int64(len(data)))
	if g.bytes == 0 && denied != nil {
		return denied
	}
	n, err := w.dst.Write(data[:g.bytes])
	w.meter.settle(g, int64(n))
	r.count(w, n)
	if err != nil {
		return err
	}
	if denied == nil {
		denied = w.meter.passed()
	}
	return denied
}

// splice has the kernel move bytes, until none came for a while or the limit is
// near. The error is io.EOF at the end of the stream.
func (r *relay) splice(w *way, dst, src *net.TCPConn) error {
	defer r.setReadDeadline(src, time.Time{})
	m := w.meter
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
		r.count(w, int(n))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !r.stopped.Load():
			return nil
		case err != nil:
			return spliceError(err)
		case n < g.bytes:
			return io.EOF
		}
		if err := m.passed(); err != nil {
			return err
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
func (r *relay) carryPlain(w *way) error {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := w.src.Read(buf[:])
		if n > 0 {
			if writeErr := r.write(w, buf[:n]); writeErr != nil {
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
