package firewall

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The lists of sockets that take NET_RAW to open, under /proc/PID/net, and the
// column that has their user.
//
//	packet: sk RefCnt Type Proto Iface R Rmem User Inode
//	raw:    sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid ...
var rawLists = map[string]int{"packet": 7, "raw": 7, "raw6": 7}

// frameSockets tells of sockets for raw frames and packets in our network
// namespace that are not ours: whoever has one has NET_RAW, though nobody may
// see his process. On a machine of its own its services, such as a DHCP client,
// may have some.
func (j *Jobs) frameSockets(machine bool) []string {
	users := make(map[uint64]bool)
	for list, column := range rawLists {
		j.collectUsers(users, j.path(j.Self, "net/"+list), column)
	}
	var faults []string
	for _, user := range slices.Sorted(maps.Keys(users)) {
		if user == uint64(j.Own.UID) || machine && user < firstPerson || len(faults) == maxJobFaults {
			continue
		}
		faults = append(faults, fmt.Sprintf("user %d has a socket for raw packets here: drop NET_RAW from whatever it runs", user))
	}
	return faults
}

// collectUsers reads the column of users of one list; the first line is its head.
func (j *Jobs) collectUsers(users map[uint64]bool, path string, column int) {
	file, err := os.Open(path)
	if err != nil {
		return // the kernel has no such sockets
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) <= column {
			continue
		}
		if user, err := strconv.ParseUint(fields[column], 10, 32); err == nil {
			users[user] = true
		}
	}
}

// HiddenDoors are the TCP listeners at the addresses of this machine's resolvers,
// but that of port 53, which is redirected: Docker's resolver has one at a port
// of its own choice. process is a directory of proc(5) in this network namespace.
// Only IPv4 is looked at.
func HiddenDoors(process string, resolvers []netip.Addr) []netip.AddrPort {
	file, err := os.Open(filepath.Join(process, "net/tcp"))
	if err != nil {
		return nil
	}
	defer file.Close()
	var doors []netip.AddrPort
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// sl local_address rem_address st ...; st 0A is TCP_LISTEN
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != "0A" {
			continue
		}
		if at, ok := parseLocal(fields[1]); ok && at.Port() != dnsPort && slices.Contains(resolvers, at.Addr()) {
			doors = append(doors, at)
		}
	}
	return doors
}

// parseLocal reads an address as /proc/net/tcp has it: the IPv4 address as a
// number in the machine's byte order, the port in the network's.
func parseLocal(text string) (at netip.AddrPort, ok bool) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	number, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(raw) != 4 {
		return at, false
	}
	var addr [4]byte
	binary.NativeEndian.PutUint32(addr[:], binary.BigEndian.Uint32(raw))
	return netip.AddrPortFrom(netip.AddrFrom4(addr), uint16(number)), true
}
