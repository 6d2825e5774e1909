package proxy

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// TestParkingLot parks pairs of connections and wakes them in every way, each once.
func TestParkingLot(t *testing.T) {
	for says, wake := range map[string]func(lot *parkingLot, spot *parkingSpot, peer *net.TCPConn){
		"a byte":                func(_ *parkingLot, _ *parkingSpot, peer *net.TCPConn) { _, _ = io.WriteString(peer, "x") },
		"the end of the stream": func(_ *parkingLot, _ *parkingSpot, peer *net.TCPConn) { _ = peer.CloseWrite() },
		"a reset":               func(_ *parkingLot, _ *parkingSpot, peer *net.TCPConn) { _ = peer.SetLinger(0); _ = peer.Close() },
		"who parked it":         func(_ *parkingLot, spot *parkingSpot, _ *net.TCPConn) { spot.leave() },
		"the lot's end":         func(lot *parkingLot, _ *parkingSpot, _ *net.TCPConn) { lot.close() },
		"a byte, and who parked": func(_ *parkingLot, spot *parkingSpot, peer *net.TCPConn) {
			_, _ = io.WriteString(peer, "x")
			spot.leave()
		},
		"who parked it, twice":    func(_ *parkingLot, spot *parkingSpot, _ *net.TCPConn) { spot.leave(); spot.leave() },
		"a byte that was there":   nil,
		"an end that was reached": nil,
	} {
		t.Run(says, func(t *testing.T) {
			lot, err := newParkingLot()
			if err != nil {
				t.Fatal(err)
			}
			first, _ := connected(t)
			second, peer := connected(t)
			switch says {
			case "a byte that was there":
				_, _ = io.WriteString(peer, "x")
			case "an end that was reached":
				_ = peer.CloseWrite()
			}
			var woken atomic.Int32
			awake := make(chan struct{}, 8)
			spot, err := lot.park(func() { woken.Add(1); awake <- struct{}{} }, first, second)
			if err != nil {
				t.Fatal(err)
			}
			if wake != nil {
				wake(lot, spot, peer)
			}
			select {
			case <-awake:
			case <-time.After(10 * time.Second):
				t.Fatal("it sleeps on")
			}
			// It is watched no more: what comes now is the reader's.
			_, _ = io.WriteString(peer, "y")
			lot.close()
			if n := woken.Load(); n != 1 || lot.count() != 0 {
				t.Errorf("woken %d times, and %d are left", n, lot.count())
			}
			if _, err := lot.park(func() { t.Error("a closed lot wakes somebody") }, first); err == nil {
				t.Error("a closed lot takes more")
			}
		})
	}
}

// TestParkingLotKeepsTheOthers wakes one of two that are parked, and leaves
// out one whose connection is closed.
func TestParkingLotKeepsTheOthers(t *testing.T) {
	lot, err := newParkingLot()
	if err != nil {
		t.Fatal(err)
	}
	defer lot.close()
	quiet, _ := connected(t)
	loud, peer := connected(t)
	if _, err := lot.park(func() {}, quiet); err != nil {
		t.Fatal(err)
	}
	awake := make(chan struct{})
	if _, err := lot.park(func() { close(awake) }, loud); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(peer, "x")
	<-awake
	if n := lot.count(); n != 1 {
		t.Errorf("%d are parked, want the quiet one", n)
	}
	gone, _ := connected(t)
	_ = gone.Close()
	if _, err := lot.park(func() { t.Error("woken") }, loud, gone); err == nil || lot.count() != 1 {
		t.Errorf("a closed connection is parked: %v", err)
	}
}

// connected is a connection to oneself, both ends.
func connected(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near.(*net.TCPConn), far.(*net.TCPConn)
}
