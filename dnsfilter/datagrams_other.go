//go:build !linux

package dnsfilter

import (
	"net"
	"net/netip"
)

// A peer is the address of a packet.
type peer struct{ addr netip.AddrPort }

func (p *peer) addrPort() netip.AddrPort { return p.addr }

// datagramIO reads and writes the packets of a socket, one by one.
type datagramIO struct{ udp *net.UDPConn }

func newDatagramIO(udp *net.UDPConn) (*datagramIO, error) { return &datagramIO{udp}, nil }

// read waits for a packet.
func (d *datagramIO) read(batch []datagram) (int, error) {
	g := &batch[0]
	var err error
	g.n, g.controls, _, g.peer.addr, err = d.udp.ReadMsgUDPAddrPort(g.bytes, g.control)
	if err != nil {
		return 0, err
	}
	return 1, nil
}

// write sends packets, and passes those by that cannot be sent.
func (d *datagramIO) write(batch []datagram) {
	for i := range batch {
		_, _, _ = d.udp.WriteMsgUDPAddrPort(batch[i].bytes, batch[i].control, batch[i].peer.addr)
	}
}
