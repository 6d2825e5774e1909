package allowlists

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sallyport/allowlists/diag"
)

// The kinds of lists.
var textsKind, hostsKind, searchKind, prefixesKind, sourcesKind, nat64Kind, interfacesKind, portsKind, dnsTypesKind *kind

func init() {
	textsKind = &kind{"a list of texts", parseTexts}
	hostsKind = &kind{"a list of host names", parseHosts}
	searchKind = &kind{"a list of system and domain names", parseSearch}
	prefixesKind = &kind{"a list of prefixes such as 10.0.0.0/8", parsePrefixes}
	sourcesKind = &kind{"a list of prefixes such as 10.20.0.0/24", parseSources}
	nat64Kind = &kind{"a list of IPv6 prefixes such as 64:ff9b::/96", parseNAT64}
	interfacesKind = &kind{"a list of interface names", parseInterfaces}
	portsKind = &kind{"a list of ports from 1 to 65535", parsePorts}
	dnsTypesKind = &kind{"a list of DNS types such as TXT", parseDNSTypes}
}

// items reads a list by a function for one item, which reports what is wrong
// with the item and then gives false.
func items[T any](l *loader, k *key, n *diag.Node, one func(item *diag.Node) (T, bool)) ([]T, bool) {
	if n.Kind != diag.List {
		return nil, l.wrongKind(k, n)
	}
	list, fine := make([]T, 0, len(n.Items)), true
	for _, item := range n.Items {
		value, ok := one(item)
		if !ok {
			fine = false
			continue
		}
		list = append(list, value)
	}
	return list, fine
}

// itemText gives the text of an item.
func (l *loader) itemText(k *key, n *diag.Node) (string, bool) {
	switch n.Kind {
	case diag.Text:
		return n.Text, true
	case diag.Null:
		l.report.Errorf(n.Place, "an item of %s is empty; remove it or fill it in", k.label())
	case diag.Number, diag.Bool:
		l.report.Errorf(n.Place, "an item of %s is %s; put quotes around it if it is meant as text", k.label(), n.Kind)
	case diag.List, diag.Map:
		l.report.Errorf(n.Place, "an item of %s is %s; it takes %s", k.label(), n.Kind, k.kind.name)
	}
	return "", false
}

func parseTexts(l *loader, k *key, n *diag.Node) (any, bool) {
	return anyOK(items(l, k, n, func(item *diag.Node) (string, bool) { return l.itemText(k, item) }))
}

// anyOK turns a typed result into that of a kind's parser.
func anyOK[T any](value T, ok bool) (any, bool) { return value, ok }

func parseHosts(l *loader, k *key, n *diag.Node) (any, bool) {
	return anyOK(items(l, k, n, func(item *diag.Node) (string, bool) {
		text, ok := l.itemText(k, item)
		if !ok {
			return "", false
		}
		if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			return addr.String(), true
		}
		h, err := ParseHost(text)
		if err != nil {
			l.report.Errorf(item.Place, "%q is no host name (%s); write a name such as gate.example.com", short(text), err)
			return "", false
		}
		return h.String(), true
	}))
}

func parseSearch(l *loader, k *key, n *diag.Node) (any, bool) {
	return anyOK(items(l, k, n, func(item *diag.Node) (string, bool) {
		text, ok := l.itemText(k, item)
		if !ok || text == "system" {
			return text, ok
		}
		h, err := ParseHost(text)
		if err != nil {
			l.report.Errorf(item.Place, "%q is no domain (%s); write one such as corp.example, or system", short(text), err)
			return "", false
		}
		return h.String(), true
	}))
}

func parsePrefixes(l *loader, k *key, n *diag.Node) (any, bool) {
	return anyOK(items(l, k, n, func(item *diag.Node) (netip.Prefix, bool) { return l.prefixItem(k, item) }))
}

// prefixItem reads an item that is a prefix, or an address as a prefix of all
// its bits.
func (l *loader) prefixItem(k *key, item *diag.Node) (netip.Prefix, bool) {
	text, ok := l.itemText(k, item)
	if !ok {
		return netip.Prefix{}, false
	}
	prefix, err := readPrefix(text)
	if err != nil {
		l.report.Errorf(item.Place, "%s", err)
		return netip.Prefix{}, false
	}
	return prefix, true
}

// readPrefix reads a prefix or an address. The error is a finished sentence.
func readPrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no prefix; write an address and a length, such as 10.0.0.0/8 or fd00::/8", short(text))
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, fmt.Errorf("%s has bits beyond its length; write %s, or %s/%d for the one address", prefix, masked, prefix.Addr(), prefix.Addr().BitLen())
	}
	return prefix, nil
}

func parseSources(l *loader, k *key, n *diag.Node) (any, bool) {
	seen := make(map[netip.Prefix]bool)
	return anyOK(items(l, k, n, func(item *diag.Node) (netip.Prefix, bool) {
		prefix, ok := l.prefixItem(k, item)
		switch {
		case !ok:
			return prefix, false
		case prefix.Addr().Is4In6():
			l.report.Errorf(item.Place, "%s is an IPv4 source in IPv6 spelling; write it as IPv4", prefix)
			return prefix, false
		case seen[prefix]:
			l.report.Errorf(item.Place, "source %s is there twice; keep one of them", prefix)
			return prefix, false
		}
		seen[prefix] = true
		return prefix, true
	}))
}

func parseNAT64(l *loader, k *key, n *diag.Node) (any, bool) {
	return anyOK(items(l, k, n, func(item *diag.Node) (netip.Prefix, bool) {
		prefix, ok := l.prefixItem(k, item)
		if !ok {
			return prefix, false
		}
		switch prefix.Bits() {
		case 32, 40, 48, 56, 64, 96:
			if prefix.Addr().Is6() && !prefix.Addr().Is4In6() {
				return prefix, true
			}
		}
		l.report.Errorf(item.Place, "%s is no NAT64 prefix; RFC 6052 has IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits", prefix)
		return prefix, false
	}))
}

// maxIfaceBytes is the longest name of a Linux interface, IFNAMSIZ less one.
const maxIfaceBytes = 15

func parseInterfaces(l *loader, k *key, n *diag.Node) (any, bool) {
	return anyOK(items(l, k, n, func(item *diag.Node) (string, bool) {
		text, ok := l.itemText(k, item)
		if !ok {
			return "", false
		}
		if text == "" || text == "." || text == ".." || len(text) > maxIfaceBytes || strings.ContainsAny(text, "/: \t\n*\"\\") {
			l.report.Errorf(item.Place, "%q is no interface name; it has 1 to 15 bytes, without blanks, slashes and colons", short(text))
			return "", false
		}
		return text, true
	}))
}

func parsePorts(l *loader, k *key, n *diag.Node) (any, bool) {
	if n.Kind == diag.Text && n.Text == "*" {
		return AllPorts(), true
	}
	ports, ok := items(l, k, n, func(item *diag.Node) (uint16, bool) {
		if item.Kind != diag.Number && !item.Expanded {
			l.report.Errorf(item.Place, "a port is %s; write it as a number, without quotes", item.Kind)
			return 0, false
		}
		return l.port(item.Text, item.Place)
	})
	if ok && len(ports) == 0 {
		l.report.Errorf(n.Place, `ports is empty, so the rule would match nothing; name a port, or "*" for every port`)
		return nil, false
	}
	return NewPortSet(ports...), ok
}

// port reads one port.
func (l *loader) port(text string, at diag.Place) (uint16, bool) {
	number, err := strconv.ParseUint(text, 10, 16)
	switch {
	case !digits(strings.TrimPrefix(text, "-")):
		l.report.Errorf(at, "port %q is no number; write digits, separated by commas", short(text))
		return 0, false
	case err != nil || number == 0:
		l.report.Errorf(at, "port %s is out of range; ports are 1 to 65535", short(text))
		return 0, false
	case text[0] == '0':
		l.report.Errorf(at, "port %s begins with 0; write it without", short(text))
		return 0, false
	}
	return uint16(number), true
}

// dnsTypes are the types that dns_types takes, from the IANA registry; others
// are written TYPE and a number (RFC 3597).
var dnsTypes = map[string]uint16{
	"NS": 2, "SOA": 6, "PTR": 12, "HINFO": 13, "MX": 15, "TXT": 16, "RP": 17, "AFSDB": 18, "LOC": 29, "SRV": 33,
	"NAPTR": 35, "CERT": 37, "DNAME": 39, "DS": 43, "SSHFP": 44, "RRSIG": 46, "NSEC": 47, "DNSKEY": 48, "TLSA": 52,
	"SMIMEA": 53, "CDS": 59, "CDNSKEY": 60, "OPENPGPKEY": 61, "SPF": 99, "URI": 256, "CAA": 257,
}

// plainTypes are always answered for an allowed name.
var plainTypes = map[string]uint16{"A": 1, "CNAME": 5, "AAAA": 28, "SVCB": 64, "HTTPS": 65}

func parseDNSTypes(l *loader, k *key, n *diag.Node) (any, bool) {
	return anyOK(items(l, k, n, func(item *diag.Node) (uint16, bool) {
		text, ok := l.itemText(k, item)
		if !ok {
			return 0, false
		}
		if number, known := dnsTypes[text]; known {
			return number, true
		}
		if plainTypes[text] != 0 {
			return plainTypes[text], true
		}
		if rest, found := strings.CutPrefix(text, "TYPE"); found && digits(rest) {
			// 41 is OPT; 128 to 255 are questions about questions: ANY, AXFR, IXFR, TSIG, ...
			number, err := strconv.ParseUint(rest, 10, 16)
			if err == nil && number > 0 && number != 41 && (number < 128 || number > 255) {
				return uint16(number), true
			}
		}
		known := make([]string, 0, len(dnsTypes))
		for name := range dnsTypes {
			known = append(known, name)
		}
		mend := "write one such as SRV, TXT or TYPE65280"
		if near := diag.Nearest(text, known); near != "" {
			mend = fmt.Sprintf("did you mean %q?", near)
		}
		l.report.Errorf(item.Place, "%q is no DNS type that can be allowed; %s", short(text), mend)
		return 0, false
	}))
}
