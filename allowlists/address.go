package allowlists

import (
	"maps"
	"net/netip"
	"slices"
)

// addrClass says how a special address may be lifted, if at all. The zero
// class is one that never is.
type addrClass uint8

const (
	classFloor   addrClass = iota // unspecified, multicast, broadcast, zoned: never lifted
	classMeta                     // cloud metadata: lifted by the exact address only
	classSpecial                  // lifted by resolves_to, or a cidr rule inside a special range
	classOurs                     // the same, and forwarded in audit: RFC 1918, RFC 6598, ULA
	classGlobal
)

// A specialRange is one row of the IANA special-purpose address registries
// that is not globally reachable, or that embeds an IPv4 address.
type specialRange struct {
	prefix netip.Prefix
	class  addrClass
	name   string
}

// metadataAddrs are the addresses at which clouds hand credentials to whoever
// asks from inside a machine.
var metadataAddrs = func() map[netip.Addr]bool {
	set := make(map[netip.Addr]bool)
	for _, text := range []string{
		"169.254.169.254", // AWS, Azure, Google, OpenStack, DigitalOcean, ...
		"169.254.170.2",   // AWS ECS task credentials
		"169.254.170.23",  // AWS EKS pod identity
		"fd00:ec2::254",   // AWS over IPv6
		"fd00:ec2::23",    // AWS EKS pod identity over IPv6
		"fd20:ce::254",    // Google over IPv6
		"168.63.129.16",   // Azure WireServer
		"100.100.100.200", // Alibaba Cloud
		"192.0.0.192",     // Oracle Cloud
		"169.254.42.42",   // Scaleway
		"fd00:42::42",     // Scaleway over IPv6
		"fe80::a9fe:a9fe", // OpenStack over IPv6
	} {
		set[netip.MustParseAddr(text)] = true
	}
	return set
}()

// MetadataAddrs lists those addresses, sorted.
func MetadataAddrs() []netip.Addr {
	return slices.SortedFunc(maps.Keys(metadataAddrs), netip.Addr.Compare)
}

// specialRanges4 and specialRanges6 come from the IANA IPv4 and IPv6
// Special-Purpose Address Registries (RFC 6890); the first match wins.
var specialRanges4 = ranges(
	specialRange{name: "broadcast", class: classFloor}, "255.255.255.255/32",
	specialRange{name: "unspecified", class: classFloor}, "0.0.0.0/32",
	specialRange{name: "this-network", class: classSpecial}, "0.0.0.0/8", // RFC 791
	specialRange{name: "private-use", class: classOurs}, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", // RFC 1918
	specialRange{name: "shared-address", class: classOurs}, "100.64.0.0/10", // RFC 6598
	specialRange{name: "loopback", class: classSpecial}, "127.0.0.0/8", // RFC 1122
	specialRange{name: "link-local", class: classSpecial}, "169.254.0.0/16", // RFC 3927
	specialRange{name: "", class: classGlobal}, "192.0.0.9/32", "192.0.0.10/32", // RFC 7723, RFC 8155
	specialRange{name: "ietf-protocol", class: classSpecial}, "192.0.0.0/24", // RFC 6890
	specialRange{name: "documentation", class: classSpecial}, "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", // RFC 5737
	specialRange{name: "6to4-relay", class: classSpecial}, "192.88.99.0/24", // RFC 7526
	specialRange{name: "benchmarking", class: classSpecial}, "198.18.0.0/15", // RFC 2544
	specialRange{name: "multicast", class: classFloor}, "224.0.0.0/4", // RFC 5771
	specialRange{name: "reserved", class: classSpecial}, "240.0.0.0/4", // RFC 1112
)

var specialRanges6 = ranges(
	specialRange{name: "unspecified", class: classFloor}, "::/128",
	specialRange{name: "loopback", class: classSpecial}, "::1/128", // RFC 4291
	specialRange{name: "ipv4-mapped", class: classSpecial}, "::ffff:0:0/96", // RFC 4291
	specialRange{name: "ipv4-translated", class: classSpecial}, "::ffff:0:0:0/96", // RFC 2765
	specialRange{name: "ipv4-compatible", class: classSpecial}, "::/96", // RFC 4291
	specialRange{name: "nat64", class: classSpecial}, "64:ff9b::/96", "64:ff9b:1::/48", // RFC 6052, RFC 8215
	specialRange{name: "discard", class: classSpecial}, "100::/64", "100:0:0:1::/64", // RFC 6666, RFC 9780
	specialRange{name: "teredo", class: classSpecial}, "2001::/32", // RFC 4380
	specialRange{name: "", class: classGlobal}, "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", // RFC 7723, RFC 8155, RFC 9665
	specialRange{name: "", class: classGlobal}, "2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28", // RFC 7450, RFC 7535, RFC 7343, RFC 9374
	specialRange{name: "ietf-protocol", class: classSpecial}, "2001::/23", // RFC 2928
	specialRange{name: "documentation", class: classSpecial}, "2001:db8::/32", "3fff::/20", // RFC 3849, RFC 9637
	specialRange{name: "6to4", class: classSpecial}, "2002::/16", // RFC 3056
	specialRange{name: "", class: classGlobal}, "2000::/3", // global unicast, RFC 4291
	specialRange{name: "segment-routing", class: classSpecial}, "5f00::/16", // RFC 9602
	specialRange{name: "unique-local", class: classOurs}, "fc00::/7", // RFC 4193
	specialRange{name: "link-local", class: classSpecial}, "fe80::/10", // RFC 4291
	specialRange{name: "multicast", class: classFloor}, "ff00::/8", // RFC 4291
	specialRange{name: "reserved", class: classSpecial}, "::/0",
)

// ranges lays out rows given as a specialRange followed by its prefixes.
func ranges(rows ...any) []specialRange {
	var all []specialRange
	var row specialRange
	for _, r := range rows {
		switch r := r.(type) {
		case specialRange:
			row = r
		case string:
			row.prefix = netip.MustParsePrefix(r)
			all = append(all, row)
		}
	}
	return all
}

// classify finds the class of an address, and the name of its special range.
func classify(addr netip.Addr) (addrClass, string) {
	switch {
	case !addr.IsValid():
		return classFloor, "invalid"
	case addr.Zone() != "":
		return classFloor, "zoned"
	case metadataAddrs[addr]:
		return classMeta, "metadata"
	}
	table := specialRanges6
	if addr.Is4() {
		table = specialRanges4
	}
	for i := range table {
		if table[i].prefix.Contains(addr) {
			return table[i].class, table[i].name
		}
	}
	return classGlobal, "" // IPv4 only: the last IPv6 row holds the rest
}

// SpecialClass names the special range that addr lies in: "loopback",
// "private-use", "metadata", ...; "" if it is globally reachable.
func SpecialClass(addr netip.Addr) string {
	_, name := classify(addr)
	return name
}

// IsMetadata reports whether addr, or the IPv4 address it embeds, is one at
// which a cloud hands out credentials.
func IsMetadata(addr netip.Addr) bool {
	addr = addr.WithZone("")
	inner, ok := embedded(addr)
	return metadataAddrs[addr] || ok && metadataAddrs[inner]
}

// embedded gives the IPv4 address that an IPv6 address carries in one of the
// well-known ways: mapped, compatible, translated, NAT64, 6to4, Teredo.
func embedded(addr netip.Addr) (netip.Addr, bool) {
	if !addr.Is6() {
		return netip.Addr{}, false
	}
	raw := addr.As16()
	v4 := func(at int) (netip.Addr, bool) {
		return netip.AddrFrom4([4]byte(raw[at : at+4])), true
	}
	_, name := classify(addr.WithZone(""))
	switch {
	case addr.Is4In6(), name == "ipv4-compatible", name == "ipv4-translated", name == "nat64":
		return v4(12)
	case name == "6to4":
		return v4(2)
	case name == "teredo": // the client's address, every bit turned: RFC 4380 section 4
		for i := 12; i < 16; i++ {
			raw[i] = ^raw[i]
		}
		return v4(12)
	default:
		return netip.Addr{}, false
	}
}

// nat64Inner gives the IPv4 address that addr carries under prefix, laid out
// as RFC 6052 section 2.2 says.
func nat64Inner(prefix netip.Prefix, addr netip.Addr) (netip.Addr, bool) {
	if !prefix.Contains(addr) {
		return netip.Addr{}, false
	}
	raw, v4 := addr.As16(), [4]byte{}
	at := prefix.Bits() / 8
	for i := range v4 {
		if at == 8 { // bits 64 to 71 are reserved
			at++
		}
		v4[i] = raw[at]
		at++
	}
	return netip.AddrFrom4(v4), true
}

// lifted reports whether an address may be dialled where a list of prefixes is
// opened: a globally reachable one always, a special one if the list holds it.
// Metadata wants its exact address in the list, and what embeds an address is
// opened only if the embedded address would be too, or by its exact address.
func lifted(list []netip.Prefix, addr netip.Addr) bool {
	class, _ := classify(addr)
	if class == classFloor {
		return false
	}
	if class == classGlobal {
		return true
	}
	if inner, ok := embedded(addr); ok && !lifted(list, inner) {
		class = classMeta
	}
	for _, p := range list {
		if p.Contains(addr) && (class != classMeta || p.IsSingleIP()) {
			return true
		}
	}
	return false
}

// insideSpecial reports whether a whole prefix lies inside one special range,
// so that a cidr rule which names it means it.
func insideSpecial(p netip.Prefix) bool {
	table := specialRanges6
	if p.Addr().Is4() {
		table = specialRanges4
	}
	if p.IsSingleIP() && metadataAddrs[p.Addr()] {
		return true
	}
	for i := range table {
		r := table[i]
		if r.prefix.Bits() <= p.Bits() && r.prefix.Contains(p.Addr()) {
			return r.class != classGlobal && r.prefix.Bits() > 0
		}
	}
	return false
}
