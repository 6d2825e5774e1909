package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A parkingLot watches connections that nobody reads from, so that a tunnel on
// which nothing moves needs no goroutine: two of them, with their stacks, are
// most of the memory that a tunnel takes. It is an epoll instance, itself watched by Go's
// own; see epoll(7). It is safe for concurrent use.
type parkingLot struct {
	file *os.File // the epoll instance
	raw  syscall.RawConn
	over chan struct{} // closed when watch is over

	mu     sync.Mutex // guards all below
	spots  map[int32]*parkingSpot
	last   int32
	closed bool
}

// A parkingSpot is where the connections of one tunnel wait.
type parkingSpot struct {
	lot    *parkingLot
	number int32
	conns  []*net.TCPConn
	wake   func()
}

// parkedEvents are what a parked connection is woken by, once: bytes, the end of
// the stream, and what epoll reports unasked, a reset.
const parkedEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT

var errLotClosed = errors.New("the parking lot is closed")

// newParkingLot opens a lot, whose close must be called.
func newParkingLot() (*parkingLot, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Non-blocking is what has os wait for it by Go's own epoll.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	lot := &parkingLot{file: os.NewFile(uintptr(fd), "parked tunnels"), over: make(chan struct{}), spots: make(map[int32]*parkingSpot)}
	if lot.raw, err = lot.file.SyscallConn(); err != nil {
		_ = lot.file.Close()
		return nil, err
	}
	go lot.watch()
	return lot, nil
}

// park has wake called once, on a goroutine of the lot, when something comes
// from one of conns or it breaks, or for leave. wake must not wait. It may be
// called before park returns. On an error it is not called.
func (lot *parkingLot) park(wake func(), conns ...*net.TCPConn) (*parkingSpot, error) {
	lot.mu.Lock()
	defer lot.mu.Unlock()
	if lot.closed {
		return nil, errLotClosed
	}
	for lot.last++; lot.spots[lot.last] != nil; lot.last++ { // the numbers may have gone round
	}
	spot := &parkingSpot{lot: lot, number: lot.last, conns: conns, wake: wake}
	for i, conn := range conns {
		err := lot.control(conn, unix.EPOLL_CTL_ADD, &unix.EpollEvent{Events: parkedEvents, Fd: spot.number})
		if err != nil {
			lot.forget(conns[:i])
			return nil, err
		}
	}
	lot.spots[spot.number] = spot
	return spot, nil
}

// leave wakes the tunnel, unless something else has.
func (spot *parkingSpot) leave() {
	if spot.lot.take(spot.number) == spot {
		spot.wake()
	}
}

// take empties a spot; nil if it is empty.
func (lot *parkingLot) take(number int32) *parkingSpot {
	lot.mu.Lock()
	defer lot.mu.Unlock()
	spot := lot.spots[number]
	if spot != nil {
		delete(lot.spots, number)
		lot.forget(spot.conns)
	}
	return spot
}

// forget no longer watches conns. Closed ones are forgotten already.
func (lot *parkingLot) forget(conns []*net.TCPConn) {
	for _, conn := range conns {
		_ = lot.control(conn, unix.EPOLL_CTL_DEL, nil)
	}
}

// control calls epoll_ctl(2), while conn cannot be closed.
func (lot *parkingLot) control(conn *net.TCPConn, operation int, event *unix.EpollEvent) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner, failed error
	err = lot.raw.Control(func(epoll uintptr) {
		inner = raw.Control(func(fd uintptr) {
			failed = os.NewSyscallError("epoll_ctl", unix.EpollCtl(int(epoll), operation, int(fd), event))
		})
	})
	return errors.Join(err, inner, failed)
}

// watch wakes the tunnels that something comes for, until the lot is closed.
func (lot *parkingLot) watch() {
	defer close(lot.over)
	var events [64]unix.EpollEvent
	for {
		n := 0
		err := lot.raw.Read(func(epoll uintptr) bool {
			var err error
			for n, err = unix.EpollWait(int(epoll), events[:], 0); err == unix.EINTR; {
				n, err = unix.EpollWait(int(epoll), events[:], 0)
			}
			return n > 0
		})
		if err != nil {
			return
		}
		for i := range n {
			if spot := lot.take(events[i].Fd); spot != nil {
				spot.wake()
			}
		}
	}
}

// count says how many tunnels are parked.
func (lot *parkingLot) count() int {
	if lot == nil {
		return 0
	}
	lot.mu.Lock()
	defer lot.mu.Unlock()
	return len(lot.spots)
}

// close wakes all who are parked and lets nobody in. It returns when nothing
// runs any more.
func (lot *parkingLot) close() {
	if lot == nil {
		return
	}
	lot.mu.Lock()
	lot.closed = true
	left := make([]*parkingSpot, 0, len(lot.spots))
	for _, spot := range lot.spots {
		left = append(left, spot)
	}
	lot.mu.Unlock()
	for _, spot := range left {
		spot.leave()
	}
	_ = lot.file.Close()
	<-lot.over
}
