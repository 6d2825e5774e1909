package proxy

import (
	"bytes"
	"strings"
)

// The functions here read plain HTTP that nothing requires to be well-formed:
// where they guess, they guess like the most lenient server, as they only look
// for names that must not be reached.

// mayBeHTTP reports whether bytes are, or can yet become, an HTTP request.
func mayBeHTTP(have []byte) bool {
	line, _, whole := bytes.Cut(bytes.TrimLeft(have, "\r\n"), []byte("\n"))
	if whole {
		return bytes.Contains(line, []byte(" HTTP/")) || bytes.Contains(line, []byte("\tHTTP/"))
	}
	const longestMethod = 32
	method, _, _ := bytes.Cut(line, []byte(" "))
	for _, c := range method {
		if !isToken(c) {
			return false
		}
	}
	return len(method) <= longestMethod
}

// headIsWhole reports whether an empty line ends the head, by any line end.
func headIsWhole(have []byte) bool {
	plain := bytes.ReplaceAll(bytes.TrimLeft(have, "\r\n"), []byte("\r"), nil)
	return bytes.Contains(plain, []byte("\n\n"))
}

// claimedNames lists every host that some server may take a request for: that
// of an absolute URI, and of each Host field, folded ones too.
func claimedNames(head []byte) []string {
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(bytes.TrimLeft(head, "\r\n")))
	text, _, _ = strings.Cut(text, "\n\n")
	text = strings.NewReplacer("\n ", " ", "\n\t", " ").Replace(text)
	var names []string
	for i, line := range strings.Split(text, "\n") {
		if i == 0 {
			if fields := strings.Fields(line); len(fields) > 1 {
				if _, rest, absolute := strings.Cut(fields[1], "://"); absolute {
					names = append(names, hostPart(rest))
				}
			}
			continue
		}
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(name), "host") {
			names = append(names, hostPart(strings.TrimSpace(value)))
		}
	}
	return names
}

// hostPart cuts userinfo, port, path and query off an authority.
func hostPart(text string) string {
	if i := strings.IndexAny(text, "/?#"); i >= 0 {
		text = text[:i]
	}
	text = text[strings.LastIndexByte(text, '@')+1:]
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		text = text[:i]
	}
	return text
}
