package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// readNeighbours reads the kernel's neighbour table, which takes no privilege:
// entries with an Ethernet address. RTM_GETNEIGH of rtnetlink(7).
func readNeighbours() ([]neighbour, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	names := make(map[int]string, len(interfaces))
	for _, i := range interfaces {
		names[i.Index] = i.Name
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	defer conn.Close()
	entries, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofNdMsg), // of every family
	})
	if err != nil {
		return nil, fmt.Errorf("reading the neighbour table: %w", err)
	}
	var all []neighbour
	for _, entry := range entries {
		if n, ok := parseNeighbour(entry.Data, names); ok {
			all = append(all, n)
		}
	}
	return all, nil
}

// parseNeighbour reads one entry: struct ndmsg of linux/neighbour.h, and its
// attributes. False for one that was not resolved, or that needs no resolving.
func parseNeighbour(raw []byte, names map[int]string) (n neighbour, ok bool) {
	if len(raw) < unix.SizeofNdMsg {
		return n, false
	}
	const unresolved = unix.NUD_INCOMPLETE | unix.NUD_FAILED | unix.NUD_NOARP
	if binary.NativeEndian.Uint16(raw[8:])&unresolved != 0 {
		return n, false
	}
	n.iface = names[int(int32(binary.NativeEndian.Uint32(raw[4:])))]
	attributes, err := netlink.NewAttributeDecoder(raw[unix.SizeofNdMsg:])
	if err != nil {
		return n, false
	}
	for attributes.Next() {
		switch value := attributes.Bytes(); attributes.Type() {
		case unix.NDA_DST:
			addr, _ := netip.AddrFromSlice(value)
			n.addr = addr.Unmap()
		case unix.NDA_LLADDR:
			if len(value) == len(n.link) {
				n.link, ok = linkAddr(value), true
			}
		}
	}
	return n, ok && n.iface != "" && n.addr.IsValid() && attributes.Err() == nil
}
