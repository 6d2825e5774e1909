package dnsfilter

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gather has headers send packets, at most udpBatch: those to one peer together.
func (d *datagramIO) gather(batch []datagram) []mmsghdr {
	var taken [udpBatch]bool
	count, used := 0, 0
	for i := range batch {
		for mine := d.ofPeer(batch[i:], taken[i:]); len(mine) > 0; count++ {
			n := 1
			if d.segments {
				n = segmentsOf(mine)
			}
			vectors := d.vectors[used : used+n]
			for k := range vectors {
				vectors[k] = vector(mine[k].bytes)
			}
			control := mine[0].control
			if n > 1 {
				control = appendSegment(append(d.controls[count][:0], control...), len(mine[0].bytes))
			}
			point(&d.headers[count], mine[0], vectors, control)
			mine, used = mine[n:], used+n
		}
	}
	return d.headers[:count]
}

// ofPeer takes all packets that go where the first goes, by the same way, the
// longest first; none if the first is taken.
func (d *datagramIO) ofPeer(batch []datagram, taken []bool) []*datagram {
	mine := d.mine[:0]
	if taken[0] {
		return mine
	}
	for i := range batch {
		g := &batch[i]
		if taken[i] || i > 0 && (g.peer != batch[0].peer || !bytes.Equal(g.control, batch[0].control)) {
			continue
		}
		taken[i] = true
		at := len(mine)
		for mine = append(mine, g); at > 0 && len(mine[at-1].bytes) < len(g.bytes); at-- {
			mine[at] = mine[at-1]
		}
		mine[at] = g
	}
	return mine
}

// segmentsOf is how many of the first packets can go as one: those of the length
// of the first, and one behind them that is shorter. An empty one goes alone.
func segmentsOf(mine []*datagram) int {
	n, size := 1, len(mine[0].bytes)
	for n < len(mine) && len(mine[n].bytes) == size {
		n++
	}
	switch {
	case size == 0 || size > maxUDPReply:
		return 1
	case n < len(mine) && len(mine[n].bytes) > 0:
		return n + 1
	default:
		return n
	}
}

// flush sends what headers say. It reports false once the socket is closed.
func (d *datagramIO) flush(headers []mmsghdr) bool {
	for d.todo = headers; len(d.todo) > 0; {
		if d.conn.Write(d.send) != nil {
			return false
		}
		if rest := d.todo; d.errno == 0 {
			d.todo = rest[d.done:]
		} else if !d.apart(&rest[0]) {
			return false
		} else {
			d.todo = rest[1:]
		}
	}
	return true
}

// apart sends the packets of a header that could not be sent together, one by
// one: the way may not take them so. A single one is lost.
func (d *datagramIO) apart(h *mmsghdr) bool {
	parts := unsafe.Slice(h.Iov, h.Iovlen)
	if len(parts) == 1 {
		return true
	}
	if d.errno == unix.EIO {
		d.segments = false // a device that cannot
	}
	one := [1]mmsghdr{*h}
	one[0].SetIovlen(1)
	one[0].SetControllen(int(h.Controllen) - unix.CmsgSpace(segmentSize))
	if one[0].Controllen == 0 {
		one[0].Control = nil
	}
	for i := range parts {
		one[0].Iov = &parts[i]
		if d.todo = one[:]; d.conn.Write(d.send) != nil {
			return false
		}
	}
	return true
}

// What UDP_SEGMENT says is a 16-bit number; its control message takes no more
// than segmentSpace.
const (
	segmentSize  = 2
	segmentSpace = 24
)

// appendSegment appends the control message that has packets cut apart.
func appendSegment(control []byte, size int) []byte {
	at := len(control)
	control = control[:at+unix.CmsgSpace(segmentSize)]
	clear(control[at:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[at]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(segmentSize))
	binary.NativeEndian.PutUint16(control[at+unix.CmsgLen(0):], uint16(size))
	return control
}
