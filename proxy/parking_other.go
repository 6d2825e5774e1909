//go:build !linux

package proxy

import (
	"errors"
	"net"
)

// A parkingLot is for Linux: elsewhere a tunnel keeps its goroutines.
type parkingLot struct{}

type parkingSpot struct{}

func newParkingLot() (*parkingLot, error) { return nil, errors.ErrUnsupported }

func (*parkingLot) park(func(), ...*net.TCPConn) (*parkingSpot, error) {
	return nil, errors.ErrUnsupported
}

func (*parkingLot) count() int { return 0 }

func (*parkingLot) close() {}

func (*parkingSpot) leave() {}
