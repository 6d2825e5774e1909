package dnsfilter

import (
	"net"
	"time"

	"golang.org/x/net/ipv4"
)

// A reader reads the packets of one socket, and answers those at once that
// quick answers. It is used by one goroutine.
type reader struct {
	server  *Server
	bound   *bound
	conn    *ipv4.PacketConn // its batches are those of either family
	batch   []ipv4.Message
	buffers []*[]byte // of packetBuffers; nil where another has it now
	replies outbox
	record  QueryRecord
	// refusing collects refusals; nil where all room for them is on its way.
	refusing *refusing
}

func newReader(s *Server, b *bound) *reader {
	r := &reader{
		server: s, bound: b, conn: ipv4.NewPacketConn(b.udp),
		batch: make([]ipv4.Message, udpBatch), buffers: make([]*[]byte, udpBatch),
	}
	for i := range r.batch {
		r.batch[i].OOB = make([]byte, oobSize)
	}
	return r
}

// read waits for packets, and gives how many came into batch.
func (r *reader) read() (int, error) {
	for i := range r.batch {
		if r.buffers[i] == nil {
			r.buffers[i] = packetBuffers.Get().(*[]byte)
			r.batch[i].Buffers = [][]byte{*r.buffers[i]}
		}
	}
	if r.refusing == nil {
		select {
		case r.refusing = <-r.bound.spare:
		default:
		}
	}
	return r.conn.ReadBatch(r.batch, 0)
}

// quick answers a packet with what is ready, and reports false if it cannot.
func (r *reader) quick(p *packet, now time.Time) bool {
	raw := (*p.buffer)[:p.n]
	reply, made := r.server.quick(raw, &p.from, now, r.replies.room(), &r.record, r.refusing != nil)
	switch {
	case made == nil:
		return false
	case made.entry == nil:
		r.refusing.add(reply, p, made, &r.record)
	default:
		if !r.server.observe(made, &r.record) {
			reply = failure(reply, made)
		}
		r.replies.add(reply, p.client, p.reply)
	}
	return true
}

// send sends the replies, and has the refusals sent.
func (r *reader) send() {
	r.replies.send(r.conn)
	if r.refusing != nil && len(r.refusing.records) > 0 {
		r.bound.refused <- r.refusing // has room for all there are
		r.refusing = nil
	}
}

// An outbox holds replies that go out together. Its buffers are used again and
// again.
type outbox struct {
	messages []ipv4.Message
	rooms    [udpBatch][]byte
}

// room is an empty slice for the next reply.
func (o *outbox) room() []byte {
	room := &o.rooms[len(o.messages)]
	if *room == nil {
		*room = make([]byte, 0, maxUDPReply)
	}
	return (*room)[:0]
}

// add takes a reply that was made in room, or elsewhere.
func (o *outbox) add(reply []byte, to *net.UDPAddr, control []byte) {
	n := len(o.messages)
	o.rooms[n] = reply
	o.messages = append(o.messages, ipv4.Message{Buffers: o.rooms[n : n+1], OOB: control, Addr: to})
}

// send sends all there are.
func (o *outbox) send(conn *ipv4.PacketConn) {
	sendBatch(conn, o.messages)
	clear(o.messages)
	o.messages = o.messages[:0]
}
