package dnsfilter

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
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

// A datagram is one packet of a socket.
type datagram struct {
	bytes    []byte // that are sent, or room for what is read
	n        int    // bytes read
	control  []byte // control messages, or room for them
	controls int    // bytes of them read
	peer     peer
}

// udpBatch is how many packets one system call reads or writes, at most.
const udpBatch = 32

// serveUDP reads packets until the socket is stopped. A packet that cannot be
// read ends nothing.
func (s *Server) serveUDP(b *bound) error {
	at := b.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	r, err := newReader(s, b)
	if err != nil {
		return err
	}
	for {
		n, err := r.read()
		switch {
		case err == nil:
		case s.stopping.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			s.pause(err, "reading a DNS packet")
			continue
		}
		now := time.Now()
		for i := range r.batch[:n] {
			g := &r.batch[i]
			client := g.peer.addrPort()
			if !client.IsValid() {
				continue // there is nobody to answer
			}
			local, reply := destination(g.control[:g.controls], at)
			p := packet{bound: b, buffer: r.buffers[i], n: g.n, client: g.peer, reply: reply}
			if p.from = s.originOf(b, client, local); !r.quick(&p, now) && s.takePacket(&p) {
				r.buffers[i] = nil
			}
		}
		r.send()
	}
}

// A packet is a datagram of a client, and the way back.
type packet struct {
	bound  *bound
	buffer *[]byte // of packetBuffers
	n      int
	client peer
	from   origin
	by     account // that it is worked on for
	reply  []byte  // control message
}

// originOf says where a packet came from, and to which address of ours.
func (s *Server) originOf(b *bound, client, local netip.AddrPort) origin {
	from := origin{client: s.known(client), local: plain(local), pool: b.Pool, iface: b.Iface, udp: true, peer: plain(client)}
	from.machine = s.cfg.Machine(from.iface, from.client.Addr())
	return from
}

// idlePackets is how many goroutines wait for the next packet, as their stacks
// have grown already.
const idlePackets = 64

// takePacket has a packet answered, and its buffer given back. It reports false,
// and has done neither, where the client or its pool has its share worked on: the
// packet is dropped, as whoever reads packets waits for nobody.
func (s *Server) takePacket(p *packet) bool {
	sub, _ := s.cfg.Policy().Subject(p.from.client.Addr(), p.from.iface, p.from.pool)
	sub.Machine = p.from.machine
	p.by = account{sub.Pool, sub.Key()}
	if !s.working.enter(p.by) {
		s.metrics.dropped.WithLabelValues(p.by.pool).Inc()
		return false
	}
	s.taken.Store(true)
	taken := *p
	select {
	case s.idle <- taken:
	default:
		s.handlers.Go(func() { s.answerPackets(taken) })
	}
	return true
}

// answerPackets answers a packet, and then others, while there is need.
func (s *Server) answerPackets(p packet) {
	for more := true; more; {
		s.answerPacket(&p)
		if s.idlers.Add(1) > idlePackets {
			s.idlers.Add(-1)
			return
		}
		p = <-s.idle // the zero packet says to go
		more = p.bound != nil
		s.idlers.Add(-1)
	}
}

// packetRest is how long no packet comes before nobody waits for one.
const packetRest = 5 * time.Second

// restPackets lets the goroutines go that wait for packets when none come,
// until ctx ends.
func (s *Server) restPackets(ctx context.Context) {
	look := time.NewTicker(packetRest)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		for quiet := !s.taken.Swap(false); quiet; {
			select {
			case s.idle <- packet{}:
			default:
				quiet = false
			}
		}
	}
}

// answerPacket answers one packet and gives its share and buffer back.
func (s *Server) answerPacket(p *packet) {
	defer s.working.leave(p.by)
	if answer := s.handle(s.ctx, (*p.buffer)[:p.n], p.from); answer != nil {
		p.bound.replies <- datagram{bytes: answer, control: p.reply, peer: p.client}
	}
	packetBuffers.Put(p.buffer)
}

// sendReplies writes what comes in replies until they are closed, those that
// come together by one system call. A reply that cannot be sent is lost: the
// client asks again.
func (b *bound) sendReplies() {
	out, err := newDatagramIO(b.udp)
	if err != nil {
		for range b.replies { // nobody shall wait to hand one on
		}
		return
	}
	batch := make([]datagram, 0, udpBatch)
	for first := range b.replies {
		batch = append(batch[:0], first)
		runtime.Gosched() // what is about to be answered goes with it
		for more := true; more && len(batch) < udpBatch; {
			select {
			case next, ok := <-b.replies:
				if more = ok; ok {
					batch = append(batch, next)
				}
			default:
				more = false
			}
		}
		out.write(batch)
		clear(batch)
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
