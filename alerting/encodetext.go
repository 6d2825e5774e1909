package alerting

import (
	"net/netip"
	"unicode"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// cutMark ends a value that was longer than its bound.
const cutMark = "…"

// plain reports whether text is printable ASCII of at most limit bytes without
// the two characters that JSON escapes: nearly every value is.
func plain(text string, limit int) bool {
	if len(text) > limit {
		return false
	}
	for i := 0; i < len(text); i++ {
		if c := text[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// cut shortens text to at most limit bytes, between two characters, and says
// whether it did.
func cut(text string, limit int) (string, bool) {
	if len(text) <= limit {
		return text, false
	}
	end := limit
	for end > 0 && limit-end < utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end], true
}

// valid is the beginning of text, longer than limit if text is, with U+FFFD in
// place of each byte that is not UTF-8: three bytes for one, which a bound of
// what is written has to count.
func valid(text string, limit int) string {
	text = text[:min(len(text), limit+utf8.UTFMax)]
	if utf8.ValidString(text) {
		return text
	}
	return string([]rune(text))
}

// appendText appends text as a JSON string. Whatever a terminal, a browser or a
// line reader could act on is escaped: controls (C0, DEL, C1), line and
// paragraph separators, bidirectional and other invisible characters, spaces
// but the plain one, private and unassigned characters. Each byte that is not
// UTF-8 becomes U+FFFD. What is over limit bytes is cut.
func appendText(dst []byte, text string, limit int) []byte {
	text, wasCut := cut(valid(text, limit), limit)
	dst = append(dst, '"')
	for i := 0; i < len(text); {
		r, size := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(text[i:])
		}
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case unicode.IsPrint(r):
			dst = append(dst, text[i:i+size]...)
		default:
			dst = appendEscape(dst, r)
		}
		i += size
	}
	if wasCut {
		dst = append(dst, cutMark...)
	}
	return append(dst, '"')
}

// appendEscape appends r as \uXXXX, as two of them beyond the basic plane.
func appendEscape(dst []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		dst = appendEscape(dst, 0xd800+r>>10)
		r = 0xdc00 + r&0x3ff
	}
	return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// appendTexts appends a JSON list of at most items texts.
func appendTexts(dst []byte, texts []string, limit, items int) []byte {
	dst = append(dst, '[')
	for i, text := range texts[:min(len(texts), items)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, text, limit)
	}
	return append(dst, ']')
}

// appendAddrs appends a JSON list of at most items addresses.
func appendAddrs(dst []byte, addrs []netip.Addr, items int) []byte {
	dst = append(dst, '[')
	for i, addr := range addrs[:min(len(addrs), items)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendAddr(dst, addr)
	}
	return append(dst, ']')
}

// appendAddr appends addr as a JSON string. A zone, which is free text, is
// left out: no address that we judge has one.
func appendAddr(dst []byte, addr netip.Addr) []byte {
	dst = append(dst, '"')
	dst = addr.WithZone("").AppendTo(dst)
	return append(dst, '"')
}
