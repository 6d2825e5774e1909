// Package allowlists turns configuration into an immutable policy and answers
// the one question everything else asks: may this pool reach that destination,
// by which rule, and if not, why. It does no I/O after loading and knows no
// clock but the one passed in.
package allowlists

import (
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// A Host is a host name in canonical form: lower case, IDNA ASCII, no trailing
// dot, at most 253 bytes, never a number that some parser takes for an IPv4
// address. Only ParseHost and HostFromDNS make one, so that every layer
// compares the same spelling. The zero Host is no name. Hosts compare with ==.
type Host struct{ name string }

// String gives the canonical name, "" for the zero Host.
func (h Host) String() string { return h.name }

// IsZero reports whether h is no name.
func (h Host) IsZero() bool { return h.name == "" }

// Limits of a name, RFC 1035 section 2.3.4.
const (
	maxNameBytes  = 253
	maxLabelBytes = 63
)

var (
	errNameEmpty  = errors.New("the name is empty")
	errNameLong   = errors.New("the name is longer than 253 bytes")
	errNameLabel  = errors.New("the name has an empty label, or one longer than 63 bytes")
	errNameByte   = errors.New("the name has a character that no host name has")
	errNameNumber = errors.New("the name ends in a number, which some programs read as an IPv4 address")
	errNameIDNA   = errors.New("the name is not valid internationalised text")
	errNameEscape = errors.New("a label of the name holds a dot or a byte that no host name has")
)

// ParseHost makes the canonical form of a host name. A name that cannot be
// made canonical without guessing is an error, never repaired: such a name is
// bad-host wherever it comes from.
func ParseHost(text string) (Host, error) {
	if len(text) > 4*maxNameBytes {
		return Host{}, errNameLong
	}
	plain, lower := true, true
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		case 'A' <= c && c <= 'Z':
			lower = false
		case c >= utf8.RuneSelf:
			plain = false
		default:
			return Host{}, errNameByte
		}
	}
	name := text
	if !lower {
		name = strings.ToLower(name)
	}
	if !plain || strings.Contains(name, "xn--") {
		mapped, err := idnaProfile.ToASCII(name)
		if err != nil || !utf8.ValidString(text) {
			return Host{}, errNameIDNA
		}
		name = mapped
	}
	name = strings.TrimSuffix(name, ".")
	if err := checkName(name); err != nil {
		return Host{}, err
	}
	return Host{name}, nil
}

// idnaProfile maps as browsers and curl do (UTS 46, non-transitional), and
// leaves underscores, which DNS names have, to checkName.
var idnaProfile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(false))

// checkName holds a lower-case name against the canonical form.
func checkName(name string) error {
	switch {
	case name == "":
		return errNameEmpty
	case len(name) > maxNameBytes:
		return errNameLong
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			if !nameByte(name[i]) {
				return errNameByte
			}
			continue
		}
		if n := i - start; n == 0 || n > maxLabelBytes {
			return errNameLabel
		}
		if i < len(name) {
			start = i + 1
		}
	}
	if isNumber(name[start:]) {
		return errNameNumber
	}
	return nil
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// isNumber reports whether a last label makes parsers take the whole name for
// an IPv4 address: digits, or 0x and hex digits (WHATWG URL, "ends in a number").
func isNumber(label string) bool {
	if label != "" && label[0] > '9' { // nearly all are told so
		return false
	}
	if rest, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// HostFromDNS makes the canonical form of a name as miekg/dns prints it, with
// its \. and \DDD escapes (RFC 1035 section 5.1). A label that holds a dot, or
// any byte that ParseHost refuses, is an error.
func HostFromDNS(name string) (Host, error) {
	if !strings.Contains(name, `\`) {
		return ParseHost(name)
	}
	plain := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '\\' {
			var ok bool
			if c, i, ok = unescape(name, i); !ok || c == '.' {
				return Host{}, errNameEscape
			}
		}
		plain = append(plain, c)
	}
	return ParseHost(string(plain))
}

// unescape reads the escape that begins at name[i] and gives its byte and the
// index of its last character.
func unescape(name string, i int) (byte, int, bool) {
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	switch {
	case i+3 < len(name) && digit(name[i+1]) && digit(name[i+2]) && digit(name[i+3]):
		n := int(name[i+1]-'0')*100 + int(name[i+2]-'0')*10 + int(name[i+3]-'0')
		return byte(n), i + 3, n < 256
	case i+1 < len(name) && !digit(name[i+1]):
		return name[i+1], i + 1, true
	default:
		return 0, i, false
	}
}
