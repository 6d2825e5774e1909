package proxy

import (
	"bytes"
	"strings"
)

// isToken reports whether c may stand in a token, RFC 9110 section 5.6.2.
func isToken(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	default:
		return bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
	}
}

// isTokens reports whether text is a token.
func isTokens(text string) bool {
	for i := 0; i < len(text); i++ {
		if !isToken(text[i]) {
			return false
		}
	}
	return text != ""
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// isFraming reports whether a field decides where a message goes or ends, so
// that it means something else, or nothing, behind a body: RFC 9110 section 6.5.1.
func isFraming(name string) bool {
	for _, framing := range []string{"Transfer-Encoding", "Content-Length", "Trailer", "Host"} {
		if strings.EqualFold(name, framing) {
			return true
		}
	}
	return false
}
