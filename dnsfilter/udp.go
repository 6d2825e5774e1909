package dnsfilter

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// longAgo as a deadline ends what waits.
var longAgo = time.Unix(1, 0)

// oobSize is room for the control messages that tell a packet's destination:
// a socket for both families gets one of each.
const oobSize = 128

// packetBuffers are for one datagram each, and a byte to tell a longer one.
var packetBuffers = sync.Pool{New: func() any { b := make([]byte, maxQuery+1); return &b }}

// wantDestination asks the kernel to say which of our addresses a packet was
// sent to: at a wildcard address the reply must come from there.
func wantDestination(udp *net.UDPConn) error {
	if !udp.LocalAddr().(*net.UDPAddr).IP.IsUnspecified() {
		return nil
	}
	err6 := ipv6.NewPacketConn(udp).SetControlMessage(ipv6.FlagDst, true)
	err4 := ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagDst, true)
	if err6 != nil && err4 != nil {
		return errors.Join(err6, err4)
	}
	return nil
}

// serveUDP reads packets until the socket is stopped. A packet that cannot be
// read ends nothing.
func (s *Server) serveUDP(b *bound) error {
	at := b.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	for {
		buffer := packetBuffers.Get().(*[]byte)
		oob := make([]byte, oobSize)
		n, oobn, _, client, err := b.udp.ReadMsgUDPAddrPort(*buffer, oob)
		switch {
		case err == nil:
		case s.stopping.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			packetBuffers.Put(buffer)
			s.pause(err, "reading a DNS packet")
			continue
		}
		local, reply := destination(oob[:oobn], at)
		from := origin{client: s.known(client), local: plain(local), pool: b.Pool, iface: b.Iface, udp: true, peer: plain(client)}
		s.slots <- struct{}{}
		s.handlers.Go(func() {
			defer func() { <-s.slots }()
			from.machine = s.cfg.Machine(from.iface, from.client.Addr())
			if answer := s.handle(s.ctx, (*buffer)[:n], from); answer != nil {
				_, _, _ = b.udp.WriteMsgUDPAddrPort(answer, reply, client) // the client asks again
			}
			packetBuffers.Put(buffer)
		})
	}
}

// destination reads from a control message which of our addresses a packet was
// sent to, and makes the one that has the reply come from there; nil where the
// socket's own address does.
func destination(oob []byte, at netip.AddrPort) (local netip.AddrPort, reply []byte) {
	if len(oob) == 0 {
		return at, nil
	}
	var six ipv6.ControlMessage
	if six.Parse(oob) == nil && six.Dst != nil && six.Dst.To4() == nil {
		addr, _ := netip.AddrFromSlice(six.Dst)
		return netip.AddrPortFrom(addr, at.Port()), (&ipv6.ControlMessage{Src: six.Dst}).Marshal()
	}
	dst := six.Dst
	var four ipv4.ControlMessage
	if dst == nil && four.Parse(oob) == nil {
		dst = four.Dst
	}
	if dst == nil {
		return at, nil
	}
	addr, _ := netip.AddrFromSlice(dst.To4())
	return netip.AddrPortFrom(addr, at.Port()), (&ipv4.ControlMessage{Src: dst}).Marshal()
}
