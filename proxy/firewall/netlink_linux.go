package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// A connection talks to nf_tables in the network namespace of the thread that
// opened it. It is not safe for concurrent use.
//
// The library's own connection is not used: it acknowledges every message,
// which overflows the socket with a large plan, and reads rules into types that
// forget what they do not know, which would hide a difference.
type connection struct {
	fd       int
	sequence uint32
}

// answerTimeout is how long the kernel may take; it answers at once unless it
// waits for another's transaction.
const answerTimeout = 10

// bufferSize of the socket, in bytes: a transaction must fit.
const bufferSize = 16 << 20

func dial() (*connection, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	for _, option := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, bufferSize) // the default holds all but huge plans
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerTimeout}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("setting up a netlink socket: %w", err)
	}
	return &connection{fd: fd}, nil
}

func (c *connection) close() { unix.Close(c.fd) }

// headerLength is that of nlmsghdr, and of nfgenmsg behind it.
const headerLength, generalLength = 16, 4

// append puts one message behind others and gives its sequence number.
func (c *connection) append(buf []byte, kind, flags uint16, family byte, resource uint16, body []byte) ([]byte, uint32) {
	c.sequence++
	length := headerLength + generalLength + len(body)
	buf = binary.NativeEndian.AppendUint32(buf, uint32(length))
	buf = binary.NativeEndian.AppendUint16(buf, kind)
	buf = binary.NativeEndian.AppendUint16(buf, flags|unix.NLM_F_REQUEST)
	buf = binary.NativeEndian.AppendUint32(buf, c.sequence)
	buf = binary.NativeEndian.AppendUint32(buf, 0)
	buf = append(buf, family, unix.NFNETLINK_V0)
	buf = binary.BigEndian.AppendUint16(buf, resource)
	buf = append(buf, body...)
	return append(buf, make([]byte, -len(buf)&3)...), c.sequence
}

// subsystem is nf_tables among the users of netfilter's netlink.
const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8

// transact sends messages as one transaction: all take effect, or none. The
// error names the message that the kernel did not take.
func (c *connection) transact(messages []message) error { return c.batch(messages, true) }

// batch sends messages as a transaction; without its end the kernel checks them
// and takes none.
func (c *connection) batch(messages []message, commit bool) error {
	names := make(map[uint32]string, len(messages))
	buf, begin := c.append(nil, unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil)
	names[begin] = "committing the rules"
	var last uint32
	for i, m := range messages {
		flags := m.flags
		if i == len(messages)-1 {
			flags |= unix.NLM_F_ACK // one answer for all; errors come unasked
		}
		buf, last = c.append(buf, subsystem|uint16(m.kind), flags, m.family, 0, marshal(m.attrs))
		names[last] = m.what
	}
	if commit {
		buf, _ = c.append(buf, unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	if err := unix.Sendto(c.fd, buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending the rules: %w", err)
	}
	return c.outcome(names, begin, last)
}

// outcome reads the answers to a transaction. The first error is the cause, the
// others follow from it.
func (c *connection) outcome(names map[uint32]string, begin, last uint32) error {
	var failed error
	for {
		replies, err := c.receive()
		if err != nil {
			return errors.Join(failed, fmt.Errorf("reading the answer to the rules: %w", err))
		}
		for _, r := range replies {
			if r.kind != unix.NLMSG_ERROR || len(r.body) < 4 || names[r.sequence] == "" {
				continue
			}
			if errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(r.body))); errno != 0 && failed == nil {
				failed = fmt.Errorf("%s: %w", names[r.sequence], errno)
			}
			// A batch that is refused as a whole is answered at its begin only.
			if r.sequence == last || r.sequence == begin {
				return failed
			}
		}
	}
}

// A reply is one message of the kernel; body begins behind nlmsghdr.
type reply struct {
	kind, flags uint16
	sequence    uint32
	body        []byte
}

func (c *connection) receive() ([]reply, error) {
	buf := make([]byte, 1<<16)
	var n int
	for {
		var err error
		if n, _, err = unix.Recvfrom(c.fd, buf, 0); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
	var out []reply
	for buf = buf[:n]; len(buf) >= headerLength; {
		length := int(binary.NativeEndian.Uint32(buf))
		if length < headerLength || length > len(buf) {
			return nil, errors.New("the kernel's message is cut short")
		}
		out = append(out, reply{
			kind: binary.NativeEndian.Uint16(buf[4:]), flags: binary.NativeEndian.Uint16(buf[6:]),
			sequence: binary.NativeEndian.Uint32(buf[8:]), body: buf[headerLength:length],
		})
		buf = buf[min((length+3)&^3, len(buf)):]
	}
	return out, nil
}

// errChanged says that the rules changed while they were read.
var errChanged = errors.New("the rules change while they are read")

// dump reads every object of a kind, as its attributes.
func (c *connection) dump(kind int, family byte, body []byte) ([][]byte, error) {
	return c.ask(kind, unix.NLM_F_DUMP, family, body)
}

// ask sends one question and gives the attributes of every answer.
func (c *connection) ask(kind int, flags uint16, family byte, body []byte) ([][]byte, error) {
	buf, sequence := c.append(nil, subsystem|uint16(kind), flags|unix.NLM_F_ACK, family, 0, body)
	if err := unix.Sendto(c.fd, buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out [][]byte
	for {
		replies, err := c.receive()
		if err != nil {
			return nil, err
		}
		for _, r := range replies {
			switch {
			case r.sequence != sequence:
			case r.flags&unix.NLM_F_DUMP_INTR != 0:
				return nil, errChanged
			case r.kind == unix.NLMSG_DONE:
				return out, nil
			case r.kind == unix.NLMSG_ERROR:
				if errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(r.body))); errno != 0 {
					return nil, errno
				}
				return out, nil
			case len(r.body) >= generalLength:
				out = append(out, bytes.Clone(r.body[generalLength:]))
			}
		}
	}
}

// An attribute is one of the kernel's, without the flags of its type.
type attribute struct {
	kind   uint16
	nested bool
	data   []byte
}

// attributes takes a message's or a nested attribute's bytes apart; what is
// cut short is left out.
func attributes(b []byte) []attribute {
	var out []attribute
	for len(b) >= 4 {
		length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if length < 4 || length > len(b) {
			break
		}
		out = append(out, attribute{kind &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER), kind&unix.NLA_F_NESTED != 0, b[4:length]})
		b = b[min((length+3)&^3, len(b)):]
	}
	return out
}

// find gives the attribute of a kind, nil if there is none.
func find(b []byte, kind uint16) []byte {
	for _, a := range attributes(b) {
		if a.kind == kind {
			return a.data
		}
	}
	return nil
}

// findText and findNumber read strings and numbers of nf_tables; "" and 0 if
// there is none.
func findText(b []byte, kind uint16) string {
	return string(bytes.TrimRight(find(b, kind), "\x00"))
}

func findNumber(b []byte, kind uint16) uint32 {
	if data := find(b, kind); len(data) == 4 {
		return binary.BigEndian.Uint32(data)
	}
	return 0
}
