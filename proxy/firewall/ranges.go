package firewall

import (
	"net/netip"
	"slices"
)

// An addrRange is the addresses from first to last, of one family.
type addrRange struct{ first, last netip.Addr }

// rangeOf is all of a prefix.
func rangeOf(p netip.Prefix) addrRange {
	p = p.Masked()
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return addrRange{p.Addr(), last}
}

// prefix is the prefix that a range is exactly, if it is one.
func (r addrRange) prefix() (netip.Prefix, bool) {
	for bits := 0; bits <= r.first.BitLen(); bits++ {
		if p := netip.PrefixFrom(r.first, bits); p.Masked() == p && rangeOf(p) == r {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// merged sorts ranges and joins those that overlap or touch.
func merged(ranges []addrRange) []addrRange {
	slices.SortFunc(ranges, func(a, b addrRange) int { return a.first.Compare(b.first) })
	var out []addrRange
	for _, r := range ranges {
		if n := len(out); n > 0 && (!out[n-1].last.Less(r.first) || out[n-1].last.Next() == r.first) {
			if out[n-1].last.Less(r.last) {
				out[n-1].last = r.last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// without takes a range out of others.
func without(ranges []addrRange, hole addrRange) []addrRange {
	var out []addrRange
	for _, r := range ranges {
		if r.last.Less(hole.first) || hole.last.Less(r.first) {
			out = append(out, r)
			continue
		}
		if r.first.Less(hole.first) {
			out = append(out, addrRange{r.first, hole.first.Prev()})
		}
		if hole.last.Less(r.last) {
			out = append(out, addrRange{hole.last.Next(), r.last})
		}
	}
	return out
}

// sourcesOf are the addresses of one family from which packets are this way's:
// its prefixes without the longer ones of other ways, as the longest wins.
func (p *Plan) sourcesOf(n int, six bool) []addrRange {
	var out []addrRange
	for _, own := range p.Ways[n].Sources {
		if own.Addr().Is6() != six {
			continue
		}
		part := []addrRange{rangeOf(own)}
		for i, other := range p.Ways {
			for _, longer := range other.Sources {
				if i != n && longer.Addr().Is6() == six && longer.Bits() > own.Bits() {
					part = without(part, rangeOf(longer))
				}
			}
		}
		out = append(out, part...)
	}
	return merged(out)
}

// addrRanges are single addresses of one family.
func addrRanges(addrs []netip.Addr, six bool) []addrRange {
	var out []addrRange
	for _, addr := range addrs {
		if addr.Is6() == six {
			out = append(out, addrRange{addr, addr})
		}
	}
	return merged(out)
}
