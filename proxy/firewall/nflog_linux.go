package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages and attributes of nflog, linux/netfilter/nfnetlink_log.h.
const (
	nflogPacket = unix.NFNL_SUBSYS_ULOG << 8
	nflogConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	attrHeader    = 1 // protocol of the frame, big endian, and the hook
	attrTimestamp = 3 // seconds and microseconds, 64 bits each
	attrIn        = 4
	attrOut       = 5
	attrPayload   = 9
	attrPrefix    = 10
	attrUID       = 11
	attrSequence  = 12

	configCommand   = 1
	configMode      = 2
	configThreshold = 5
	configFlags     = 6

	commandBind  = 1
	copyPacket   = 2
	flagSequence = 1
)

const (
	// headBytes is how much of a packet is copied: an IPv6 header, some
	// extension headers, and ports.
	headBytes = 128
	// logBuffer is the room in the kernel for what was not read yet, in bytes.
	logBuffer = 4 << 20
	// drainMost bounds the messages that one Drain reads.
	drainMost = 512
	// netdevFamily is NFPROTO_NETDEV: such packets come with their frame's header.
	netdevFamily = 5
	frameHeader  = 14 // of Ethernet
)

// A PacketLog reads the packets of one nflog group of this network namespace.
// Opening it takes CAP_NET_ADMIN, reading it none. Each packet is handed over
// before the kernel sends it on to a socket of this machine can be seen there:
// see Drain. It is safe for concurrent use.
//
// It uses the socket itself rather than a library for nflog, as none lets the
// resolver read on from another goroutine, or counts what was lost.
type PacketLog struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	take func(Packet)

	mu      sync.Mutex // guards reading, take, and what follows
	buffer  []byte
	devices map[uint32]device
	next    uint32 // the sequence number to come
	counts  bool   // next is known
	overrun uint64 // overruns counted as one loss each, until a gap shows how many each was
	lost    uint64
}

// A device is the name of an interface, and when it was asked for.
type device struct {
	name  string
	asked time.Time
}

// Bounds on remembered names of interfaces.
const (
	maxDevices = 1024
	deviceAge  = 10 * time.Second
)

// OpenPacketLog binds the group, which only one program may have. take is
// called with one packet at a time and must not block.
func OpenPacketLog(group uint16, take func(Packet)) (*PacketLog, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening nflog: %w", err)
	}
	l := &PacketLog{conn: conn, take: take, buffer: make([]byte, 64<<10), devices: make(map[uint32]device)}
	if l.raw, err = conn.SyscallConn(); err == nil {
		err = l.bind(group)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

// bind makes the kernel send us the group: each packet at once, its head, and a
// sequence number that shows gaps.
func (l *PacketLog) bind(group uint16) error {
	err := l.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, logBuffer)
	})
	for _, attrs := range [][]netlink.Attribute{
		{{Type: configCommand, Data: []byte{commandBind}}},
		{
			{Type: configMode, Data: append(binary.BigEndian.AppendUint32(nil, headBytes), copyPacket, 0)},
			{Type: configThreshold, Data: binary.BigEndian.AppendUint32(nil, 1)},
			{Type: configFlags, Data: binary.BigEndian.AppendUint16(nil, flagSequence)},
		},
	} {
		var body []byte
		if err == nil {
			body, err = netlink.MarshalAttributes(attrs)
		}
		if err == nil {
			_, err = l.conn.Execute(netlink.Message{
				Header: netlink.Header{Type: nflogConfig, Flags: netlink.Request | netlink.Acknowledge},
				Data:   append(binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, group), body...),
			})
		}
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("binding nflog group %d: %w; it takes CAP_NET_ADMIN, and no other program may have the group", group, err)
	}
	if err != nil {
		return fmt.Errorf("binding nflog group %d: %w", group, err)
	}
	return nil
}

// Serve reads until ctx ends.
func (l *PacketLog) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		var failed error
		err := l.raw.Read(func(fd uintptr) bool {
			var n int
			n, failed = l.read(int(fd), drainMost)
			return n > 0 || failed != nil
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case failed != nil:
			return fmt.Errorf("reading nflog: %w", failed)
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("reading nflog: %w", err)
		}
	}
}

// Drain hands over what the kernel has logged so far. A rule logs a packet
// before it sends it on, so whoever has read that packet from another socket
// finds that it was handed over once Drain returns.
func (l *PacketLog) Drain() {
	_ = l.raw.Control(func(fd uintptr) { _, _ = l.read(int(fd), drainMost) })
}

// Lost counts the packets that the kernel could not hand over since the start.
func (l *PacketLog) Lost() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// Close gives the group back.
func (l *PacketLog) Close() error { return l.conn.Close() }

// read takes at most so many messages that are there, without waiting, and says
// how many there were.
func (l *PacketLog) read(fd, most int) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n < most {
		size, from, err := unix.Recvfrom(fd, l.buffer, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			return n, nil
		case err == unix.EINTR:
			continue
		case err == unix.ENOBUFS:
			l.overrun++
			l.lost++
		case err != nil:
			return n, err
		default:
			if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 {
				l.messages(l.buffer[:size])
			}
		}
		n++
	}
	return n, nil
}

// messages hands over every packet of one datagram. The caller holds mu.
func (l *PacketLog) messages(data []byte) {
	messages, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return // what is missing shows as a gap
	}
	for _, m := range messages {
		if m.Header.Type != nflogPacket {
			continue
		}
		if p, sequence, ok := l.packet(m.Data); ok {
			l.count(sequence)
			l.take(p)
		}
	}
}

// count finds how many were lost before the message with this number.
func (l *PacketLog) count(sequence uint32) {
	if l.counts {
		gap := uint64(sequence - l.next)
		known := min(gap, l.overrun)
		l.lost += gap - known
		l.overrun -= known
	}
	l.next, l.counts = sequence+1, true
}

// packet reads one message: nfgenmsg, then attributes.
func (l *PacketLog) packet(data []byte) (p Packet, sequence uint32, ok bool) {
	if len(data) < 4 {
		return Packet{}, 0, false
	}
	attrs, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return Packet{}, 0, false
	}
	attrs.ByteOrder = binary.BigEndian
	p.Time = time.Now()
	var payload, header []byte
	for attrs.Next() {
		switch attrs.Type() {
		case attrHeader:
			header = attrs.Bytes()
		case attrTimestamp:
			if b := attrs.Bytes(); len(b) == 16 {
				p.Time = time.Unix(int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))*1000)
			}
		case attrIn:
			p.In = l.device(attrs.Uint32())
		case attrOut:
			p.Out = l.device(attrs.Uint32())
		case attrPayload:
			payload = attrs.Bytes()
		case attrPrefix:
			p.Prefix = strings.TrimRight(string(attrs.Bytes()), "\x00")
		case attrUID:
			p.UID, p.HasUID = attrs.Uint32(), true
		case attrSequence:
			sequence = attrs.Uint32()
		}
	}
	if data[0] == netdevFamily {
		payload = withoutFrame(payload, header)
	}
	p.parseHead(payload)
	return p, sequence, attrs.Err() == nil
}

// withoutFrame cuts the Ethernet header off, where there is one before the
// protocol that the kernel says.
func withoutFrame(payload, header []byte) []byte {
	if len(payload) > frameHeader && len(header) >= 2 && string(payload[frameHeader-2:frameHeader]) == string(header[:2]) {
		return payload[frameHeader:]
	}
	return payload
}

// device is the name of an interface. The caller holds mu.
func (l *PacketLog) device(index uint32) string {
	now := time.Now()
	known, ok := l.devices[index]
	if ok && now.Sub(known.asked) < deviceAge {
		return known.name
	}
	if !ok && len(l.devices) >= maxDevices {
		clear(l.devices)
	}
	if found, err := net.InterfaceByIndex(int(index)); err == nil {
		known.name = found.Name
	}
	known.asked = now
	l.devices[index] = known
	return known.name
}
