package proxy

import (
	"net/netip"
	"sync"
	"time"

	"sallyport/allowlists"
)

// The ways of packets that no listener takes.
const (
	ViaUDP   = "udp"
	ViaICMP  = "icmp"  // of both families
	ViaOther = "other" // any other protocol
)

// A Packet is one that a firewall refused, or let through because its pool is
// in audit, and logged.
type Packet struct {
	Time     time.Time
	Passed   bool   // let through
	Iface    string // that it came in by; "" where it was sent on this machine
	Protocol uint8  // IANA number of what IP carries; 0 is no IP
	// Src and Dst have port 0 where the protocol has none. Dst may be zero, for
	// what is no IP; without a Src nobody is known, and there is no record.
	Src, Dst netip.AddrPort
	Size     int // in bytes
}

// What becomes of a Packet.
type PacketOutcome string

// The outcomes. PacketLost is for packets that were never seen, see LostPackets.
const (
	PacketRecorded   PacketOutcome = "recorded"
	PacketRepeated   PacketOutcome = "repeated"   // one of a flow that has its record
	PacketUnrecorded PacketOutcome = "unrecorded" // beyond the bounds of what is remembered, or from nobody
	PacketLost       PacketOutcome = "lost"
)

// The bounds of packetFlows. A flow is a client, a protocol, an address and a
// port there; the client's own port does not tell flows apart.
const (
	packetWindow   = 10 * time.Second // a flow has one record in it
	maxPacketFlows = 32768            // flows with a record in the window, half for a pool
	maxClientFlows = 256              // of one client's
)

// ObservePacket writes the record of a packet: refused, or open and close at
// once where it was let through. Later packets of its flow are counted only,
// and so are those beyond the bounds. It is safe for concurrent use, and waits
// as Config.Observe does.
func (s *Server) ObservePacket(p Packet) PacketOutcome {
	policy := s.cfg.Policy()
	client := netip.AddrPortFrom(s.cfg.Client(plainAddr(p.Src.Addr())), p.Src.Port())
	sub, pool := policy.Subject(client.Addr(), p.Iface, "")
	sub.Machine = s.cfg.Machine(p.Iface, client.Addr())
	dst := netip.AddrPortFrom(plainAddr(p.Dst.Addr()), p.Dst.Port())
	outcome := PacketUnrecorded
	if client.IsValid() {
		outcome = s.packets.enter(packetFlow{sub.Pool, sub.Key(), p.Protocol, dst, p.Passed}, time.Now())
	}
	s.metrics.packets.WithLabelValues(string(outcome)).Inc()
	if outcome != PacketRecorded {
		return outcome
	}
	rec := ConnRecord{
		ID: allowlists.NewID(), Time: p.Time, Subject: sub, Generation: policy.Generation(), Phase: PhaseRefused,
		Via: packetVia(p.Protocol), Port: dst.Port(), Addr: dst.Addr(), ClientPort: client.Port(),
		Decision: s.decidePacket(pool, p.Protocol, dst),
	}
	if dst.IsValid() {
		rec.Names = s.cfg.Resolver.Names(sub, dst.Addr())
	}
	if p.Passed { // what was done is what is written, whatever the policy says by now
		rec.Phase = PhaseOpen
		rec.Decision = allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.AllowedByAudit, Would: rec.Decision.Reason}
	}
	s.metrics.decided(&rec)
	s.cfg.Observe(rec)
	if p.Passed {
		rec.Phase, rec.Sent = PhaseClose, int64(p.Size)
		s.cfg.Observe(rec)
	}
	return outcome
}

// LostPackets counts packets that were refused and could not be told of.
func (s *Server) LostPackets(n uint64) {
	s.metrics.packets.WithLabelValues(string(PacketLost)).Add(float64(n))
}

// packetVia is the way of an IANA protocol number.
func packetVia(protocol uint8) string {
	switch protocol {
	case 6:
		return ViaTCP
	case 17, 136: // UDP-Lite
		return ViaUDP
	case 1, 58:
		return ViaICMP
	default:
		return ViaOther
	}
}

// The ports of DNS, and of DNS over TLS and QUIC.
const (
	portDNS    = 53
	portDNSTLS = 853
)

// decidePacket says why enforce refuses a packet.
func (s *Server) decidePacket(pool *allowlists.Pool, protocol uint8, dst netip.AddrPort) allowlists.Decision {
	via := packetVia(protocol)
	asksResolver := (via == ViaUDP || via == ViaTCP) && (dst.Port() == portDNS || dst.Port() == portDNSTLS)
	reason := allowlists.ProtocolBlocked
	switch {
	case pool == nil:
		reason = allowlists.NoPool
	case !dst.IsValid():
	case s.cfg.IsOwn(dst), allowlists.IsMetadata(dst.Addr()):
		reason = allowlists.SpecialAddress
	case asksResolver:
		reason = allowlists.ResolverBypass
	case isClosed(pool, dst):
		reason = allowlists.SpecialAddress
	}
	return allowlists.Decision{Reason: reason}
}

// isClosed reports whether a pool's connections could not go to a destination
// because it is a special address.
func isClosed(pool *allowlists.Pool, dst netip.AddrPort) bool {
	allowed := allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed}
	byName := pool.DecideDial(allowed, dst.Addr(), dst.Port(), time.Now())
	if byName.Cause() != allowlists.SpecialAddress {
		return false
	}
	return dst.Port() == 0 || pool.DecideLiteral(dst.Addr(), dst.Port(), time.Now()).Cause() == allowlists.SpecialAddress
}

// plainAddr is addr unmapped and without zone.
func plainAddr(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// A packetFlow is what packets have in common that are one record.
type packetFlow struct {
	pool     string
	client   netip.Addr
	protocol uint8
	dst      netip.AddrPort
	passed   bool
}

// packetFlows are the flows that have a record in the window. Safe for
// concurrent use.
type packetFlows struct {
	mu      sync.Mutex
	known   map[packetFlow]struct{}
	queue   []flowEnd // of all known, in the order of their ends
	pools   map[string]int
	clients map[clientKey]int
}

type flowEnd struct {
	flow packetFlow
	at   time.Time
}

type clientKey struct {
	pool   string
	client netip.Addr
}

func newPacketFlows() *packetFlows {
	return &packetFlows{known: make(map[packetFlow]struct{}), pools: make(map[string]int), clients: make(map[clientKey]int)}
}

// enter says what becomes of a packet of a flow, and remembers the flow if it
// gets a record.
func (f *packetFlows) enter(flow packetFlow, now time.Time) PacketOutcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire(now)
	if _, ok := f.known[flow]; ok {
		return PacketRepeated
	}
	client := clientKey{flow.pool, flow.client}
	if len(f.known) >= maxPacketFlows || f.pools[flow.pool] >= maxPacketFlows/2 || f.clients[client] >= maxClientFlows {
		return PacketUnrecorded
	}
	f.known[flow] = struct{}{}
	f.queue = append(f.queue, flowEnd{flow, now.Add(packetWindow)})
	f.pools[flow.pool]++
	f.clients[client]++
	return PacketRecorded
}

// expire forgets the flows whose window is over. The caller holds mu.
func (f *packetFlows) expire(now time.Time) {
	for len(f.queue) > 0 && !now.Before(f.queue[0].at) {
		flow := f.queue[0].flow
		f.queue = f.queue[1:]
		delete(f.known, flow)
		leaveCount(f.pools, flow.pool)
		leaveCount(f.clients, clientKey{flow.pool, flow.client})
	}
}

// leaveCount counts one down, and forgets a count of nothing.
func leaveCount[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}
