//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"syscall"
)

// The DNS types that the authority has data for (RFC 1035, RFC 3596).
const (
	typeA    = 1
	typeAAAA = 28
)

// authorityMain answers every name over UDP: A 127.0.0.1, AAAA ::1, for 300 s,
// no data for other types. It is upstream of the resolvers that are measured.
// With -echo it only makes each question an answer, the least that looks like
// a resolver, with one system call per packet each way as those have.
func authorityMain(args []string) error {
	flags := flag.NewFlagSet("authority", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:5300", "address")
	echo := flags.Bool("echo", false, "only echo")
	if err := flags.Parse(args); err != nil {
		return err
	}
	fd, err := udpSocket(*listen, "")
	if err != nil {
		return err
	}
	size := 32
	if *echo {
		size = 1
	}
	for b := newBatch(size, 1500); ; {
		n, err := b.receive(fd, true)
		if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			return err
		}
		for i := range n {
			packet, length := b.buffers[i], len(b.packet(i))
			if *echo {
				packet[2] |= 0x80
			} else {
				length = answer(packet, length)
			}
			b.setLength(i, length)
		}
		if err := b.send(fd, n); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
	}
}

// answer turns the question in packet[:n] into its answer, in place, and
// returns the length.
func answer(packet []byte, n int) int {
	end := questionEnd(packet[:n])
	if end == 0 {
		return n
	}
	packet[2] = 0x84 | packet[2]&0x01 // an authoritative answer, RD as asked
	packet[3] = 0
	clear(packet[6:12])
	record := []byte{0xc0, 12, 0, 0, 0, 1, 0, 0, 1, 44, 0, 0}
	switch kind := binary.BigEndian.Uint16(packet[end-4:]); kind {
	case typeA:
		record[3], record[11] = typeA, 4
		record = append(record, 127, 0, 0, 1)
	case typeAAAA:
		record[3], record[11] = typeAAAA, 16
		record = append(record, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
	default:
		return end
	}
	packet[7] = 1
	return end + copy(packet[end:], record)
}

// questionEnd is where the one question ends, 0 if there is none.
func questionEnd(packet []byte) int {
	if len(packet) < 17 || binary.BigEndian.Uint16(packet[4:]) != 1 {
		return 0
	}
	i := 12
	for i < len(packet) && packet[i] != 0 {
		if packet[i] >= 64 {
			return 0
		}
		i += int(packet[i]) + 1
	}
	if i+5 > len(packet) {
		return 0
	}
	return i + 5
}
