package test

import (
	endian "encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A sniffer records every IP packet that comes in to a namespace, whatever its
// protocol, but for the talk of IPv6 neighbours.
type sniffer struct {
	t  *testing.T
	fd int

	mu      sync.Mutex
	packets []sniffed
	markers int // seen
}

// A sniffed packet; payload is what follows the IP header, cut.
type sniffed struct {
	src, dst netip.Addr
	proto    uint8 // of an IPv6 packet: its first next header
	payload  []byte
}

func (p sniffed) String() string {
	return fmt.Sprintf("%s > %s protocol %d %q", p.src, p.dst, p.proto, p.payload)
}

// markerPort is where markers go, UDP datagrams that show that all sent before
// them has arrived.
const markerPort = 9

const marker = "sallyport test marker"

// newSniffer opens the eye of a namespace until the test ends.
func newSniffer(s *space, device string) *sniffer {
	t := s.t
	t.Helper()
	sn := &sniffer{t: t}
	s.do(func() {
		var err error
		if sn.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0); err != nil {
			t.Fatal(err)
		}
		var index int
		if device != "" {
			req, err := unix.NewIfreq(device)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.IoctlIfreq(sn.fd, unix.SIOCGIFINDEX, req); err != nil {
				t.Fatal(err)
			}
			index = int(req.Uint32())
		}
		_ = unix.SetsockoptInt(sn.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		everything := endian.NativeEndian.Uint16(endian.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if err := unix.Bind(sn.fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: index}); err != nil {
			t.Fatal(err)
		}
	})
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		sn.watch(done)
	}()
	t.Cleanup(func() {
		close(done)
		<-ended
		stats, err := unix.GetsockoptTpacketStats(sn.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil || stats.Drops > 0 {
			t.Errorf("the sniffer missed packets: %+v, %v", stats, err)
		}
		unix.Close(sn.fd)
	})
	return sn
}

func (sn *sniffer) watch(done chan struct{}) {
	buffer := make([]byte, 65536)
	for {
		select {
		case <-done:
			return
		default:
		}
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(sn.fd), Events: unix.POLLIN}}, 100); n <= 0 {
			continue
		}
		n, from, err := unix.Recvfrom(sn.fd, buffer, unix.MSG_DONTWAIT)
		if err != nil {
			continue
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		sn.record(buffer[:n])
	}
}

func (sn *sniffer) record(raw []byte) {
	p, ok := parseSniffed(raw)
	if !ok {
		return
	}
	sn.mu.Lock()
	defer sn.mu.Unlock()
	switch {
	case strings.HasSuffix(string(p.payload), marker):
		sn.markers++
	case len(sn.packets) < 10_000:
		sn.packets = append(sn.packets, p)
	}
}

// parseSniffed reads the IP header; packets of neighbours and of no IP are not ok.
func parseSniffed(raw []byte) (p sniffed, ok bool) {
	switch {
	case len(raw) >= 20 && raw[0]>>4 == 4:
		p.src, p.dst = netip.AddrFrom4([4]byte(raw[12:16])), netip.AddrFrom4([4]byte(raw[16:20]))
		p.proto, raw = raw[9], raw[min(len(raw), int(raw[0]&15)*4):]
	case len(raw) >= 40 && raw[0]>>4 == 6:
		p.src, p.dst = netip.AddrFrom16([16]byte(raw[8:24])), netip.AddrFrom16([16]byte(raw[24:40]))
		hops := raw[7] // 255 cannot have come by a router
		p.proto, raw = raw[6], raw[40:]
		if p.proto == unix.IPPROTO_ICMPV6 && len(raw) > 0 && raw[0] >= 130 && raw[0] <= 143 && hops == 255 || p.dst.IsMulticast() {
			return p, false
		}
	default:
		return p, false
	}
	p.payload = append(p.payload, raw[:min(len(raw), 96)]...)
	return p, true
}

// all gives what was recorded from the index from on and fits; nil fits all.
func (sn *sniffer) all(from int, fits func(sniffed) bool) (found []sniffed) {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	for _, p := range sn.packets[min(from, len(sn.packets)):] {
		if fits == nil || fits(p) {
			found = append(found, p)
		}
	}
	return found
}

func (sn *sniffer) count() int {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	return len(sn.packets)
}

func (sn *sniffer) marked() int {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	return sn.markers
}
