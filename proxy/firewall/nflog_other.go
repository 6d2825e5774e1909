//go:build !linux

package firewall

import "context"

// A PacketLog needs Linux.
type PacketLog struct{}

// OpenPacketLog needs Linux.
func OpenPacketLog(uint16, func(Packet)) (*PacketLog, error) { return nil, ErrUnsupported }

// Serve needs Linux.
func (*PacketLog) Serve(context.Context) error { return ErrUnsupported }

// Drain needs Linux.
func (*PacketLog) Drain() {}

// Lost needs Linux.
func (*PacketLog) Lost() uint64 { return 0 }

// Close needs Linux.
func (*PacketLog) Close() error { return nil }
