package dnsfilter

import "time"

// A reader reads the packets of one socket, and answers those at once that
// quick answers. It is used by one goroutine.
type reader struct {
	server  *Server
	bound   *bound
	io      *datagramIO
	batch   []datagram
	buffers []*[]byte // of packetBuffers; nil where another has it now
	replies outbox
	record  QueryRecord
	// refusing collects refusals; nil where all room for them is on its way.
	refusing *refusing
}

func newReader(s *Server, b *bound) (*reader, error) {
	io, err := newDatagramIO(b.udp)
	if err != nil {
		return nil, err
	}
	r := &reader{
		server: s, bound: b, io: io, batch: make([]datagram, udpBatch), buffers: make([]*[]byte, udpBatch),
	}
	for i := range r.batch {
		r.batch[i].control = make([]byte, oobSize)
	}
	return r, nil
}

// read waits for packets, and gives how many came into batch.
func (r *reader) read() (int, error) {
	for i := range r.batch {
		if r.buffers[i] == nil {
			r.buffers[i] = packetBuffers.Get().(*[]byte)
			r.batch[i].bytes = *r.buffers[i]
		}
	}
	if r.refusing == nil {
		select {
		case r.refusing = <-r.bound.spare:
		default:
		}
	}
	return r.io.read(r.batch)
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
		r.replies.add(reply, &p.client, p.reply)
	}
	return true
}

// send sends the replies, and has the refusals sent.
func (r *reader) send() {
	r.replies.send(r.io)
	if r.refusing != nil && len(r.refusing.records) > 0 {
		r.bound.refused <- r.refusing // has room for all there are
		r.refusing = nil
	}
}

// An outbox holds replies that go out together. Its buffers are used again and
// again.
type outbox struct {
	packets [udpBatch]datagram
	n       int
}

// room is an empty slice for the next reply.
func (o *outbox) room() []byte {
	room := &o.packets[o.n].bytes
	if *room == nil {
		*room = make([]byte, 0, maxUDPReply)
	}
	return (*room)[:0]
}

// add takes a reply that was made in room, or elsewhere.
func (o *outbox) add(reply []byte, to *peer, control []byte) {
	p := &o.packets[o.n]
	p.bytes, p.control, p.peer = reply, control, *to
	o.n++
}

// send sends all there are.
func (o *outbox) send(io *datagramIO) {
	io.write(o.packets[:o.n])
	o.n = 0
}
