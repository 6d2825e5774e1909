package report

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds a value as it is shown, in characters.
const maxText = 240

// clean is a value that shows what it is: nothing invisible, nothing that
// changes the direction of writing, no line ends, and not longer than maxText.
func clean(text string) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n++; n > maxText {
			b.WriteString("…")
			break
		}
		if r != ' ' && !unicode.IsPrint(r) || rightToLeft(r) {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

// rightToLeft reports whether a character is in a block of scripts that are
// written from right to left (Unicode Standard Annex 9, table 4): it would turn
// around what stands beside it.
func rightToLeft(r rune) bool {
	return r >= 0x0590 && r <= 0x08ff || r >= 0xfb1d && r <= 0xfdff || r >= 0xfe70 && r <= 0xfeff || r >= 0x10800 && r <= 0x10fff || r >= 0x1e800 && r <= 0x1efff
}

// safeJSON writes as \uXXXX what JSON may leave as it is and a terminal or a
// page could act on. JSON has such characters in strings only.
func safeJSON(text []byte) []byte {
	if bytes.IndexFunc(text, unsafeInJSON) < 0 {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		switch {
		case !unsafeInJSON(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			escape(&b, 0xd800+r>>10)
			escape(&b, 0xdc00+r&0x3ff)
		default:
			escape(&b, r)
		}
	}
	return b.Bytes()
}

func unsafeInJSON(r rune) bool { return r != ' ' && r != '\n' && !unicode.IsPrint(r) }

func escape(b *bytes.Buffer, r rune) {
	const digits = "0123456789abcdef"
	b.Write([]byte{'\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15]})
}
