package importers

import (
	"net/netip"
	"regexp"
	"strings"

	"sallyport/allowlists/diag"
)

// A squidConf is what of a squid.conf decides where clients may go.
type squidConf struct {
	acls   map[string]*squidACL
	access []squidAccess
	work   int    // how much was looked at so far, to bound it
	others []word // further directives that decide, or change, where a request goes
}

// A squidACL is one acl, all of its lines together.
type squidACL struct {
	name, kind string
	line       int
	values     []word
	files      bool // has values in other files
}

// A squidAccess is one line of http_access.
type squidAccess struct {
	line  int
	allow bool
	terms []squidTerm
	text  string
}

// A squidTerm is one acl of such a line.
type squidTerm struct {
	not  bool
	name string
}

// squidOthers are directives beside http_access that decide or change where a
// request goes.
var squidOthers = map[string]bool{
	"include": true, "adapted_http_access": true, "http_access2": true, "http_reply_access": true, "ssl_bump": true, "url_rewrite_program": true,
	"url_rewrite_access": true, "redirect_program": true, "external_acl_type": true, "never_direct": true, "always_direct": true,
}

// parseSquid reads the lines of a squid.conf. A line ends in a backslash if it
// goes on; # begins a comment.
func parseSquid(file string, text []byte) (*squidConf, error) {
	conf := &squidConf{acls: make(map[string]*squidACL)}
	number := 0
	var row string
	var first int
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if row == "" {
			first = number
		}
		if head, more := strings.CutSuffix(line, `\`); more {
			row += head + " "
			continue
		}
		fields := squidFields(row + line)
		row = ""
		if len(fields) == 0 {
			continue
		}
		switch fields[0] {
		case "if", "else", "endif":
			return nil, fault(diag.Place{Pos: diag.Pos{File: file, Line: first, Col: 1}}, "parts that are for some processes only cannot be read; write the file without %s", fields[0])
		case "acl":
			conf.acl(fields[1:], first)
		case "http_access":
			conf.rule(fields[1:], first)
		default:
			if squidOthers[fields[0]] {
				conf.others = append(conf.others, word{fields[0], first})
			}
		}
	}
	if len(conf.access) == 0 {
		return nil, fault(diag.Place{Pos: diag.Pos{File: file, Line: 1, Col: 1}}, "there is no http_access line, without which Squid refuses everything")
	}
	return conf, nil
}

// squidFields splits a line. A # begins a comment where a word would begin.
func squidFields(line string) []string {
	fields := strings.Fields(line)
	for i, f := range fields {
		if f[0] == '#' {
			return fields[:i]
		}
	}
	return fields
}

// acl takes the words behind "acl". Lines with one name are one acl.
func (c *squidConf) acl(fields []string, line int) {
	if len(fields) < 2 {
		return
	}
	a := c.acls[fields[0]]
	if a == nil {
		a = &squidACL{name: fields[0], kind: strings.ToLower(fields[1]), line: line}
		c.acls[fields[0]] = a
	}
	if !strings.EqualFold(a.kind, fields[1]) {
		a.kind = "two types at once"
	}
	for _, value := range fields[2:] {
		switch {
		case strings.HasPrefix(value, `"`) || strings.HasPrefix(value, "parameters("):
			a.files = true
		case (value == "-i" || value == "+i" || value == "-n" || value == "--") && a.kind != "port":
		default:
			a.values = append(a.values, word{value, line})
		}
	}
}

// rule takes the words behind "http_access".
func (c *squidConf) rule(fields []string, line int) {
	if len(fields) == 0 || fields[0] != "allow" && fields[0] != "deny" {
		return
	}
	r := squidAccess{line: line, allow: fields[0] == "allow", text: "http_access " + strings.Join(fields, " ")}
	for _, f := range fields[1:] {
		name, not := strings.CutPrefix(f, "!")
		r.terms = append(r.terms, squidTerm{not, name})
	}
	c.access = append(c.access, r)
}

// A squidHost is a pattern of ours that an acl names, and where it does.
type squidHost struct {
	rule
	at word
}

// hosts reads the values of a dstdomain or dstdom_regex: a name is itself,
// .NAME is NAME and every name below it. bad says why it cannot be said.
func (a *squidACL) hosts() (hosts []squidHost, bad string) {
	if a.files {
		return nil, "its values are in another file"
	}
	for _, v := range a.values {
		patterns := []string{v.text}
		if a.kind == "dstdom_regex" {
			if patterns = regexHosts(v.text); patterns == nil {
				return nil, "the expression " + v.text + " is more than a name"
			}
		} else if base, tree := strings.CutPrefix(v.text, "."); tree {
			patterns = []string{base, "*." + base}
		}
		for _, text := range patterns {
			host := squidHost{at: v}
			if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
				host.prefix = netip.PrefixFrom(addr, addr.BitLen())
			} else if r, ok := named(new(Entry), text, nil); ok && (a.kind == "dstdom_regex" || !strings.Contains(v.text, "*")) {
				host.rule = r
			} else {
				return nil, "the value " + v.text + " is no name"
			}
			hosts = append(hosts, host)
		}
	}
	return hosts, ""
}

// regexName is a literal name within an expression.
const regexName = `((?:[a-z0-9_-]+\\\.)*[a-z0-9_-]+)`

var (
	regexExact = regexp.MustCompile(`^\^` + regexName + `\$$`)
	regexBelow = regexp.MustCompile(`^(?:\^?\.[*+])?\\\.` + regexName + `\$$`)
	regexTree  = regexp.MustCompile(`^\(\^\|\\\.\)` + regexName + `\$$`)
)

// regexHosts gives the patterns of ours that an expression means, if that is
// plain: ^NAME$, \.NAME$ and (^|\.)NAME$, every dot of NAME escaped and no letter
// a capital.
func regexHosts(expression string) []string {
	name := func(m []string) string { return strings.ReplaceAll(m[1], `\.`, ".") }
	if m := regexExact.FindStringSubmatch(expression); m != nil {
		return []string{name(m)}
	}
	if m := regexBelow.FindStringSubmatch(expression); m != nil {
		return []string{"*." + name(m)}
	}
	if m := regexTree.FindStringSubmatch(expression); m != nil {
		return []string{name(m), "*." + name(m)}
	}
	return nil
}

// ports reads the values of a port acl.
func (a *squidACL) ports() (set ports, bad string) {
	if a.files {
		return nil, "its values are in another file"
	}
	for _, v := range a.values {
		from, to, ranged := strings.Cut(v.text, "-")
		low, ok := parsePort(from)
		high := low
		if ranged && ok {
			high, ok = parsePort(to)
		}
		switch {
		case v.text == "0" || from == "0": // no connection has it
			if high, ok = parsePort(to); !ok {
				continue
			}
			low = 1
		case !ok || low > high:
			return nil, "the value " + v.text + " is no port"
		}
		set = set.union(ports{{low, high}})
	}
	return set, ""
}

// prefixes reads the values of a dst or src acl.
func (a *squidACL) prefixes() (list []netip.Prefix, bad string) {
	if a.files {
		return nil, "its values are in another file"
	}
	for _, v := range a.values {
		prefix, ok := squidPrefix(v.text)
		if !ok {
			return nil, "the value " + v.text + " is no address or prefix"
		}
		list = append(list, prefix)
	}
	return list, ""
}

// squidPrefix reads an address, ADDRESS/LENGTH or ADDRESS/MASK.
func squidPrefix(text string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return prefix.Masked(), true
	}
	address, mask, _ := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(address)
	bits, err2 := netip.ParseAddr(mask)
	if err != nil || err2 != nil || !addr.Is4() || !bits.Is4() {
		return netip.Prefix{}, false
	}
	n := 0
	for _, b := range bits.As4() {
		for ; b&0x80 != 0; b <<= 1 {
			n++
		}
	}
	return netip.PrefixFrom(addr, n).Masked(), maskOf(n) == bits
}

// maskOf is the IPv4 netmask of a length.
func maskOf(n int) netip.Addr {
	full := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return netip.PrefixFrom(full, n).Masked().Addr()
}
