package firewall

import "net/netip"

// The model: what the tables hold, as data. text.go shows it, encode_linux.go
// turns it into the messages that the kernel takes and gives back.

// tableName is the name of both tables.
const tableName = "sallyport"

// A table is one table of the kernel, whole.
type table struct {
	family string // inet or netdev
	sets   []set
	chains []chain
}

// A set is a named, constant set: the kernel itself refuses to change it while
// a rule uses it.
type set struct {
	name string
	kind setKind
	// One of these, as the kind says.
	ports  []uint16
	names  []string
	types  []uint8 // of ICMP
	ranges []addrRange
}

// A setKind is the type of a set's elements, as nft calls it.
type setKind string

const (
	portSet  setKind = "inet_service"
	nameSet  setKind = "ifname"
	icmp4Set setKind = "icmp_type"
	icmp6Set setKind = "icmpv6_type"
	addr4Set setKind = "ipv4_addr"
	addr6Set setKind = "ipv6_addr"
)

// interval reports whether elements are ranges.
func (s *set) interval() bool { return s.kind == addr4Set || s.kind == addr6Set }

// A chain holds rules; one without a hook is entered from others only.
type chain struct {
	name     string
	hook     hook
	priority int32
	nat      bool
	drop     bool   // policy; else accept
	device   string // of an egress chain
	rules    []rule
}

// A hook is the place in the way of a packet at which a chain is asked.
type hook string

const (
	noHook     hook = ""
	prerouting hook = "prerouting"
	input      hook = "input"
	forward    hook = "forward"
	output     hook = "output"
	egress     hook = "egress"
)

// Priorities. Connections are known from -200 on, and the kernel's own
// translation of addresses is done at -100, so what looks before it sees where
// a job wanted to go.
const (
	beforeNAT   int32 = -150
	afterChecks int32 = -145
	// natPriority is ahead of Docker's rules for 127.0.0.11, at -100.
	natPriority int32 = -110
	filter      int32 = 0
)

// A rule is some matches, which must all hold, and then statements.
type rule struct {
	comment string // for people; shown by nft too
	parts   []part
}

// A part is one match or statement; text is what nft calls it.
type part interface{ text() string }

// Matches.
type (
	// matchDevice is the interface that a packet comes in by, or leaves by: one
	// name or a set.
	matchDevice struct {
		out, not  bool
		name, set string
	}
	// matchMember is the port of a virtual router (VRF) that a packet came in by.
	matchMember struct{ set string }
	// matchFamily is IPv4 or IPv6; frame says that it stands in a netdev table.
	matchFamily struct{ six, frame bool }
	matchProto  struct {
		not   bool
		proto uint8
	}
	// matchPort is the destination port of TCP or UDP: one or a set.
	matchPort struct {
		proto uint8
		port  uint16
		set   string
	}
	// matchAddr is the source or destination: one address or a set.
	matchAddr struct {
		six, source, not bool
		addr             netip.Addr
		set              string
	}
	matchICMP struct {
		six bool
		set string
	}
	// matchLocal is a destination, or a source, that is an address of this machine.
	matchLocal struct{ source, not bool }
	// matchMany is a destination that stands for several machines: broadcast,
	// anycast or multicast.
	matchMany struct{ kind manyKind }
	// matchSpoofed is a source that no answer would reach by the interface that
	// the packet came in by.
	matchSpoofed struct{}
	// matchRedirected is a connection whose destination was changed.
	matchRedirected struct{}
	// matchReply is a packet of the end that did not open the connection.
	matchReply struct{}
	// matchState is any of these states of a connection.
	matchState struct{ state connState }
	// matchMark is a connection that setMark has marked.
	matchMark struct{}
	// matchOpening is the first packet of TCP: SYN alone.
	matchOpening struct{}
	// matchPushed is a TCP segment that carries data, and is none of those with
	// which a connection begins or ends.
	matchPushed struct{}
	// matchUser is a packet of a socket, and of its user; what the kernel itself
	// sends, and what closed sockets leave behind, never match, not even with not.
	matchUser struct {
		not bool
		uid uint32
	}
	matchCgroup struct{ cgroup Cgroup }
	// matchRouting is an IPv6 routing header, of any type.
	matchRouting struct{}
)

// A manyKind is a kind of route (rtnetlink(7)) to several machines.
type manyKind string

const (
	toBroadcast manyKind = "broadcast"
	toAnycast   manyKind = "anycast"
	toMulticast manyKind = "multicast"
)

// Statements.
type (
	count struct{}
	// logTo hands the packet to the nflog group, at most so many a second.
	logTo struct {
		prefix string
		group  uint16
		rate   uint32 // packets a second, and at once
	}
	setMark    struct{}
	redirectTo struct{ port uint16 }
	// resetTCP and unreachable refuse so that a client fails at once.
	resetTCP    struct{}
	unreachable struct{}
	accept      struct{}
	drop        struct{}
	goTo        struct{ chain string }
)

// A connState is a set of the kernel's bits of a connection's state.
type connState uint32

const (
	stateNew     connState = 8
	stateReplied connState = 2 | 4 // established, related
)

// Protocols by their number.
const (
	protoICMP  = 1
	protoTCP   = 6
	protoUDP   = 17
	protoICMP6 = 58
)

// ownMark marks connections that we ourselves opened, in the kernel's table of
// connections, where no socket option reaches.
const ownMark uint32 = 0x5a117907

// logLength is how much of a packet the log gets, in bytes: every header, and
// the start of what it carries.
const logLength = 256
