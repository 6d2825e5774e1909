package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A message is one request of nf_tables (linux/netfilter/nf_tables.h).
type message struct {
	what   string // for people, after "adding" or the like
	kind   int    // NFT_MSG_*
	flags  uint16 // beside NLM_F_REQUEST
	family byte
	attrs  []netlink.Attribute
}

// encode turns the model into the messages that make it.
func encode(tables []table) ([]message, error) {
	var out []message
	for _, t := range tables {
		list, err := encodeTable(&t)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// encodeTable makes one table: chains before the rules that go to them, sets
// with their elements before the rules that look into them, as constant sets
// take none later.
func encodeTable(t *table) ([]message, error) {
	family := familyOf(t.family)
	name := text(unix.NFTA_TABLE_NAME, tableName)
	out := []message{{what: "adding " + t.title(), kind: unix.NFT_MSG_NEWTABLE, flags: unix.NLM_F_CREATE, family: family, attrs: []netlink.Attribute{name}}}
	for i := range t.chains {
		out = append(out, encodeChain(t, &t.chains[i]))
	}
	for i := range t.sets {
		out = append(out, encodeSet(t, &t.sets[i], uint32(i+1))...)
	}
	for i := range t.chains {
		c := &t.chains[i]
		for n := range c.rules {
			m, err := encodeRule(t, c, n)
			if err != nil {
				return nil, err
			}
			out = append(out, m)
		}
	}
	return out, nil
}

func (t *table) title() string { return fmt.Sprintf("table %s %s", t.family, tableName) }

func familyOf(family string) byte {
	if family == "netdev" {
		return unix.NFPROTO_NETDEV
	}
	return unix.NFPROTO_INET
}

func encodeChain(t *table, c *chain) message {
	m := message{
		what: fmt.Sprintf("adding chain %s of %s", c.name, t.title()), kind: unix.NFT_MSG_NEWCHAIN, flags: unix.NLM_F_CREATE, family: familyOf(t.family),
		attrs: []netlink.Attribute{text(unix.NFTA_CHAIN_TABLE, tableName), text(unix.NFTA_CHAIN_NAME, c.name)},
	}
	if c.hook == noHook {
		return m
	}
	if c.hook == egress {
		m.what = fmt.Sprintf("adding the egress hook of device %q", c.device)
	}
	at := []netlink.Attribute{number(unix.NFTA_HOOK_HOOKNUM, hookNumber(c.hook)), number(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))}
	if c.device != "" {
		at = append(at, text(unix.NFTA_HOOK_DEV, c.device))
	}
	m.attrs = append(m.attrs, nested(unix.NFTA_CHAIN_HOOK, at...), number(unix.NFTA_CHAIN_POLICY, policyNumber(c.drop)), text(unix.NFTA_CHAIN_TYPE, c.kind()))
	return m
}

// hookNumber is the kernel's number of a hook (linux/netfilter.h).
func hookNumber(h hook) uint32 {
	switch h {
	case prerouting:
		return unix.NF_INET_PRE_ROUTING
	case input:
		return unix.NF_INET_LOCAL_IN
	case forward:
		return unix.NF_INET_FORWARD
	case output:
		return unix.NF_INET_LOCAL_OUT
	default:
		return unix.NF_NETDEV_EGRESS
	}
}

// policyNumber is NF_DROP or NF_ACCEPT.
func policyNumber(drop bool) uint32 {
	if drop {
		return 0
	}
	return 1
}

// Types of set keys, as nft numbers them (nftables, include/datatype.h); the
// kernel keeps them for nft only.
var keyTypes = map[setKind]struct{ number, length uint32 }{
	portSet: {13, 2}, nameSet: {41, 16}, icmp4Set: {14, 1}, icmp6Set: {29, 1}, addr4Set: {7, 4}, addr6Set: {8, 16},
}

// elementsAtOnce keeps one message within what an attribute can hold, 64 KiB.
const elementsAtOnce = 1000

func encodeSet(t *table, s *set, id uint32) []message {
	key := keyTypes[s.kind]
	family := familyOf(t.family)
	add := message{
		what: fmt.Sprintf("adding set %s of %s", s.name, t.title()), kind: unix.NFT_MSG_NEWSET, flags: unix.NLM_F_CREATE, family: family,
		attrs: []netlink.Attribute{
			text(unix.NFTA_SET_TABLE, tableName), text(unix.NFTA_SET_NAME, s.name), number(unix.NFTA_SET_FLAGS, s.flags()),
			number(unix.NFTA_SET_KEY_TYPE, key.number), number(unix.NFTA_SET_KEY_LEN, key.length), number(unix.NFTA_SET_ID, id),
		},
	}
	if s.kind == nameSet {
		// So that nft lists the names; the kernel keeps it for nft only.
		add.attrs = append(add.attrs, netlink.Attribute{
			Type: unix.NFTA_SET_USERDATA, Data: userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, hostByteOrder),
		})
	}
	out := []message{add}
	elements := s.elements()
	for len(elements) > 0 {
		n := min(len(elements), elementsAtOnce)
		var list []netlink.Attribute
		for _, e := range elements[:n] {
			attrs := []netlink.Attribute{nested(unix.NFTA_SET_ELEM_KEY, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: []byte(e.key)})}
			if e.end {
				attrs = append(attrs, number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END))
			}
			list = append(list, nested(unix.NFTA_LIST_ELEM, attrs...))
		}
		out = append(out, message{
			what: fmt.Sprintf("filling set %s of %s", s.name, t.title()), kind: unix.NFT_MSG_NEWSETELEM, flags: unix.NLM_F_CREATE, family: family,
			attrs: []netlink.Attribute{
				text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName), text(unix.NFTA_SET_ELEM_LIST_SET, s.name),
				number(unix.NFTA_SET_ELEM_LIST_SET_ID, id), nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list...),
			},
		})
		elements = elements[n:]
	}
	return out
}

// hostByteOrder is BYTEORDER_HOST_ENDIAN of nft (include/datatype.h).
const hostByteOrder = 1

// flags are those of the kernel's set.
func (s *set) flags() uint32 {
	if s.interval() {
		return unix.NFT_SET_CONSTANT | unix.NFT_SET_INTERVAL
	}
	return unix.NFT_SET_CONSTANT
}

// An element is a key of a set; in a set of ranges the first address of one,
// or, as end, the one behind its last.
type element struct {
	key string
	end bool
}

// elements are a set's, as the kernel holds them.
func (s *set) elements() []element {
	var out []element
	for _, port := range s.ports {
		out = append(out, element{key: string(binary.BigEndian.AppendUint16(nil, port))})
	}
	for _, name := range s.names {
		out = append(out, element{key: string(deviceBytes(name))})
	}
	for _, t := range s.types {
		out = append(out, element{key: string([]byte{t})})
	}
	for _, r := range s.ranges {
		out = append(out, element{key: string(r.first.AsSlice())})
		if behind := r.last.Next(); behind.IsValid() {
			out = append(out, element{key: string(behind.AsSlice()), end: true})
		}
	}
	return out
}

// deviceBytes is a name of an interface as the kernel compares it.
func deviceBytes(name string) []byte {
	out := make([]byte, unix.IFNAMSIZ)
	copy(out, name)
	return out
}

func encodeRule(t *table, c *chain, n int) (message, error) {
	r := &c.rules[n]
	list, err := encodeParts(familyOf(t.family), r.parts)
	if err != nil {
		return message{}, fmt.Errorf("encoding rule %d of chain %s: %w", n+1, c.name, err)
	}
	m := message{
		what: fmt.Sprintf("adding %q to chain %s of %s", r.text(), c.name, t.title()), kind: unix.NFT_MSG_NEWRULE,
		flags: unix.NLM_F_CREATE | unix.NLM_F_APPEND, family: familyOf(t.family),
		attrs: []netlink.Attribute{
			text(unix.NFTA_RULE_TABLE, tableName), text(unix.NFTA_RULE_CHAIN, c.name), nested(unix.NFTA_RULE_EXPRESSIONS, list...),
		},
	}
	if r.comment != "" {
		m.attrs = append(m.attrs, netlink.Attribute{Type: unix.NFTA_RULE_USERDATA, Data: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
	}
	return m, nil
}

// encodeParts makes the expressions of a rule, in the very order of nft.
func encodeParts(family byte, parts []part) ([]netlink.Attribute, error) {
	e := &encoder{netdev: family == unix.NFPROTO_NETDEV}
	for _, p := range parts {
		e.part(p)
	}
	var list []netlink.Attribute
	for _, x := range e.out {
		data, err := expr.Marshal(family, x)
		if err != nil {
			return nil, err
		}
		list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: data})
	}
	return list, nil
}

// An encoder collects a rule's expressions. It remembers what was asked of the
// packet already, as nft does.
type encoder struct {
	out           []expr.Any
	netdev        bool
	family, proto byte // 0: not asked yet
}

func (e *encoder) add(list ...expr.Any) { e.out = append(e.out, list...) }

// metaMemberName is NFT_META_SDIFNAME, Linux 5.6.
const metaMemberName expr.MetaKey = 34

// register is the one that every load goes through.
const register = unix.NFT_REG_1

func (e *encoder) compare(not bool, data []byte) {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	e.add(&expr.Cmp{Op: op, Register: register, Data: data})
}

// compareOrLook compares with a value, or looks it up in a set.
func (e *encoder) compareOrLook(not bool, value []byte, set string) {
	if set == "" {
		e.compare(not, value)
		return
	}
	e.add(&expr.Lookup{SourceRegister: register, SetName: set, Invert: not})
}

func (e *encoder) meta(key expr.MetaKey) { e.add(&expr.Meta{Key: key, Register: register}) }

func (e *encoder) needFamily(six bool) {
	want := byte(unix.NFPROTO_IPV4)
	if six {
		want = unix.NFPROTO_IPV6
	}
	if e.family == want {
		return
	}
	e.family = want
	if !e.netdev {
		e.meta(expr.MetaKeyNFPROTO)
		e.compare(false, []byte{want})
		return
	}
	ether := uint16(unix.ETH_P_IP)
	if six {
		ether = unix.ETH_P_IPV6
	}
	e.meta(expr.MetaKeyPROTOCOL)
	e.compare(false, binary.BigEndian.AppendUint16(nil, ether))
}

func (e *encoder) needProto(proto byte) {
	if e.proto != proto {
		e.meta(expr.MetaKeyL4PROTO)
		e.compare(false, []byte{proto})
		e.proto = proto
	}
}

func (e *encoder) load(base expr.PayloadBase, offset, length uint32) {
	e.add(&expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length})
}

// bits compares what is left under a mask.
func (e *encoder) bits(mask []byte, not bool, data []byte) {
	e.add(&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))})
	e.compare(not, data)
}

func (e *encoder) part(p part) {
	if !e.match(p) && !e.statement(p) {
		panic(fmt.Sprintf("no encoding of %T", p)) // a part of the model that was forgotten here
	}
}

func (e *encoder) match(p part) bool {
	switch m := p.(type) {
	case matchDevice:
		key := expr.MetaKeyIIFNAME
		if m.out {
			key = expr.MetaKeyOIFNAME
		}
		e.meta(key)
		e.compareOrLook(m.not, deviceBytes(m.name), m.set)
	case matchMember:
		e.meta(metaMemberName)
		e.compareOrLook(false, nil, m.set)
	case matchFamily:
		e.needFamily(m.six)
	case matchProto:
		if !m.not {
			e.needProto(m.proto)
			break
		}
		e.meta(expr.MetaKeyL4PROTO)
		e.compare(true, []byte{m.proto})
	case matchPort:
		e.needProto(m.proto)
		e.load(expr.PayloadBaseTransportHeader, 2, 2)
		e.compareOrLook(false, binary.BigEndian.AppendUint16(nil, m.port), m.set)
	case matchAddr:
		e.addr(m)
	case matchICMP:
		e.needFamily(m.six)
		e.needProto(map[bool]byte{false: protoICMP, true: protoICMP6}[m.six])
		e.load(expr.PayloadBaseTransportHeader, 0, 1)
		e.compareOrLook(false, nil, m.set)
	case matchUser:
		e.meta(expr.MetaKeySKUID)
		e.compare(m.not, native32(m.uid))
	case matchCgroup:
		e.add(&expr.Socket{Key: expr.SocketKeyCgroupv2, Level: m.cgroup.Level, Register: register})
		e.compare(false, binary.NativeEndian.AppendUint64(nil, m.cgroup.ID))
	case matchRouting:
		e.needFamily(true)
		e.add(&expr.Exthdr{DestRegister: register, Type: unix.IPPROTO_ROUTING, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6})
		e.compare(false, []byte{1})
	default:
		return e.matchState(p)
	}
	return true
}

// matchState is the matches of routes and connections.
func (e *encoder) matchState(p part) bool {
	switch m := p.(type) {
	case matchLocal:
		e.add(&expr.Fib{Register: register, FlagDADDR: !m.source, FlagSADDR: m.source, ResultADDRTYPE: true})
		e.compare(m.not, native32(unix.RTN_LOCAL))
	case matchMany:
		e.add(&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true})
		e.compare(false, native32(map[manyKind]uint32{toBroadcast: unix.RTN_BROADCAST, toAnycast: unix.RTN_ANYCAST, toMulticast: unix.RTN_MULTICAST}[m.kind]))
	case matchSpoofed:
		e.add(&expr.Fib{Register: register, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true})
		e.compare(false, native32(0))
	case matchRedirected:
		e.add(&expr.Ct{Key: expr.CtKeySTATUS, Register: register})
		e.bits(native32(statusDNAT), true, native32(0))
	case matchReply:
		e.add(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: register})
		e.compare(false, []byte{1})
	case matchState:
		e.add(&expr.Ct{Key: expr.CtKeySTATE, Register: register})
		e.bits(native32(uint32(m.state)), true, native32(0))
	case matchMark:
		e.add(&expr.Ct{Key: expr.CtKeyMARK, Register: register})
		e.compare(false, native32(ownMark))
	case matchOpening:
		e.needProto(protoTCP)
		e.load(expr.PayloadBaseTransportHeader, 13, 1)
		e.bits([]byte{0x17}, false, []byte{0x02})
	case matchPushed:
		e.needProto(protoTCP)
		e.load(expr.PayloadBaseTransportHeader, 13, 1)
		e.bits([]byte{0x0f}, false, []byte{0x08})
	default:
		return false
	}
	return true
}

// statusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const statusDNAT = 1 << 5

func (e *encoder) addr(m matchAddr) {
	e.needFamily(m.six)
	offset, length := uint32(12), uint32(4)
	if m.six {
		offset, length = 8, 16
	}
	if !m.source {
		offset += length
	}
	e.load(expr.PayloadBaseNetworkHeader, offset, length)
	var value []byte
	if m.addr != (netip.Addr{}) {
		value = m.addr.AsSlice()
	}
	e.compareOrLook(m.not, value, m.set)
}

func (e *encoder) statement(p part) bool {
	switch s := p.(type) {
	case count:
		e.add(&expr.Counter{})
	case logTo:
		e.add(&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(s.rate), Unit: expr.LimitTimeSecond, Burst: s.rate},
			&expr.Log{
				Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_SNAPLEN | 1<<unix.NFTA_LOG_QTHRESHOLD,
				Group: s.group, Data: []byte(s.prefix), Snaplen: logLength, QThreshold: 1,
			})
	case setMark:
		e.add(&expr.Immediate{Register: register, Data: native32(ownMark)}, &expr.Ct{Key: expr.CtKeyMARK, Register: register, SourceRegister: true})
	case redirectTo:
		e.add(&expr.Immediate{Register: register, Data: binary.BigEndian.AppendUint16(nil, s.port)},
			&expr.Redir{RegisterProtoMin: register, RegisterProtoMax: register, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED})
	case resetTCP:
		e.add(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	case unreachable:
		e.add(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})
	case accept:
		e.add(&expr.Verdict{Kind: expr.VerdictAccept})
	case drop:
		e.add(&expr.Verdict{Kind: expr.VerdictDrop})
	case goTo:
		e.add(&expr.Verdict{Kind: expr.VerdictGoto, Chain: s.chain})
	default:
		return false
	}
	return true
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// text, number and nested are attributes of nf_tables: strings end in NUL,
// numbers are big-endian.
func text(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

func number(kind uint16, v uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint32(nil, v)}
}

func nested(kind uint16, attrs ...netlink.Attribute) netlink.Attribute {
	return netlink.Attribute{Type: unix.NLA_F_NESTED | kind, Data: marshal(attrs)}
}

// marshal packs attributes; all of ours are far below its bound.
func marshal(attrs []netlink.Attribute) []byte {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		panic(err)
	}
	return data
}
