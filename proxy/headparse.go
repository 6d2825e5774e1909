package proxy

import (
	"errors"
	"strconv"
	"strings"

	"sallyport/allowlists"
)

var (
	errRequestLine = errors.New("the request line is not a method, a target and a version with single spaces between")
	errVersion     = errors.New("the version is neither HTTP/1.1 nor HTTP/1.0")
	errMethod      = errors.New("the method is none that a proxy takes")
	errTarget      = errors.New("the target is no http URI, path or host and port as its method wants")
	errScheme      = errors.New("the scheme is not http")
	errUserinfo    = errors.New("the URI holds a user name")
	errFragment    = errors.New("the URI holds a fragment")
	errEscape      = errors.New("the path has a broken percent-escape")
	errField       = errors.New("a field line is not a name, a colon and a value")
	errFold        = errors.New("a field line is folded")
	errHostTwice   = errors.New("there is more than one Host")
	errHostNone    = errors.New("there is no Host")
	errLength      = errors.New("Content-Length is not one plain number")
	errCoding      = errors.New("Transfer-Encoding is not exactly chunked")
	errFraming     = errors.New("the body has a length in two ways, or in one its version does not know")
	errConnectBody = errors.New("CONNECT has no body")
	errExpect      = errors.New("Expect asks for something other than 100-continue")
	errTrailer     = errors.New("Trailer names a field that cannot be one")
)

// parseHead checks a whole head. It gives what it understood beside an error.
func parseHead(raw []byte) (*head, error) {
	text := strings.TrimSuffix(string(raw), "\r\n\r\n")
	line, fields, _ := strings.Cut(text, "\r\n")
	h := &head{contentLength: -1, size: len(raw)}
	if err := h.parseLine(line); err != nil {
		return h, asDenied(err)
	}
	if err := h.parseFields(fields); err != nil {
		return h, asDenied(err)
	}
	return h, asDenied(h.checkFraming())
}

// parseBroken understands what it can of a head that was cut short.
func parseBroken(raw []byte) *head {
	line, _, _ := strings.Cut(string(raw), "\r\n")
	h := &head{contentLength: -1, size: len(raw)}
	_ = h.parseLine(line) // the head is refused for another reason already
	return h
}

// asDenied makes a bad-request of what is no denial yet.
func asDenied(err error) error {
	if err == nil || isDenied(err) {
		return err
	}
	return bad(err)
}

// parseLine reads the request line.
func (h *head) parseLine(line string) error {
	method, rest, ok := strings.Cut(line, " ")
	if !ok || !isTokens(method) {
		return errRequestLine
	}
	h.method = method
	target, version, ok := strings.Cut(rest, " ")
	if !ok || target == "" || strings.ContainsAny(version, " \t") || strings.Contains(target, "\t") {
		return errRequestLine
	}
	if err := checkMethod(method); err != nil {
		return err
	}
	switch version {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
	default:
		return errVersion
	}
	return h.parseTarget(target)
}

// checkMethod refuses the HTTP/2 preface, and other spellings of the methods
// that change how a message is framed or where it goes.
func checkMethod(method string) error {
	for _, known := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI"} {
		if strings.EqualFold(method, known) && (method != known || method == "PRI") {
			return errMethod
		}
	}
	return nil
}

// parseTarget reads the request target in the form that the method wants.
func (h *head) parseTarget(target string) (err error) {
	if strings.Contains(target, "#") {
		return errFragment
	}
	switch scheme, after, isURI := strings.Cut(target, "://"); {
	case h.method == "CONNECT":
		h.form, h.claimed = formAuthority, target
		if strings.ContainsAny(target, "/?@") {
			return errTarget
		}
		h.target, err = allowlists.ParseTarget(target, 0)
		return err
	case target[0] == '/':
		h.form, h.path = formOrigin, target
		return checkPath(target)
	case target == "*" && h.method == "OPTIONS":
		h.form = formAsterisk
		return nil
	case !isURI || !isTokens(scheme):
		return errTarget
	case !strings.EqualFold(scheme, "http"):
		h.claimed, _ = cutAuthority(after)
		return errScheme
	default:
		h.form = formAbsolute
		h.claimed, h.path = cutAuthority(after)
		if strings.Contains(h.claimed, "@") {
			h.claimed = h.claimed[strings.LastIndexByte(h.claimed, '@')+1:] // no password in the record
			return errUserinfo
		}
		if h.target, err = allowlists.ParseTarget(h.claimed, 80); err != nil {
			return err
		}
		return checkPath(h.path)
	}
}

// cutAuthority cuts what follows "http://" before the path or the query.
func cutAuthority(text string) (authority, path string) {
	if i := strings.IndexAny(text, "/?"); i >= 0 {
		return text[:i], text[i:]
	}
	return text, ""
}

// checkPath refuses percent-escapes that parsers repair differently. A query
// is opaque.
func checkPath(path string) error {
	path, _, _ = strings.Cut(path, "?")
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			continue
		}
		if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
			return errEscape
		}
		i += 2
	}
	return nil
}

// parseFields reads the field lines.
func (h *head) parseFields(fields string) error {
	for len(fields) > 0 {
		var line string
		line, fields, _ = strings.Cut(fields, "\r\n")
		if line[0] == ' ' || line[0] == '\t' {
			return errFold
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isTokens(name) {
			return errField
		}
		if err := h.parseField(knownField(name), strings.Trim(value, " \t")); err != nil {
			return err
		}
	}
	return nil
}

// knownField gives the name of a field that matters in lower case, and "" for
// any other.
func knownField(name string) string {
	for _, known := range [...]string{"host", "expect", "trailer", "content-length", "transfer-encoding"} {
		if len(name) == len(known) && strings.EqualFold(name, known) {
			return known
		}
	}
	return ""
}

// parseField takes in one field that matters for where a message goes or ends.
func (h *head) parseField(name, value string) error {
	switch name {
	case "host":
		return h.parseHost(value)
	case "content-length":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || h.contentLength >= 0 || strings.Trim(value, "0123456789") != "" {
			return errLength
		}
		h.contentLength = n
	case "transfer-encoding":
		if h.chunked || value != "chunked" {
			return errCoding
		}
		h.chunked = true
	case "expect":
		if !strings.EqualFold(value, "100-continue") {
			return errExpect
		}
		h.expects = h.minor == 1 // RFC 9110 section 10.1.1: HTTP/1.0 does not wait
	case "trailer":
		for _, key := range strings.Split(value, ",") {
			if key = strings.Trim(key, " \t"); key != "" && (!isTokens(key) || isFraming(key)) {
				return errTrailer
			}
		}
	}
	return nil
}

// parseHost reads the Host field.
func (h *head) parseHost(value string) error {
	if h.host != nil {
		return errHostTwice
	}
	if h.claimed == "" {
		h.claimed = value
	}
	port := h.target.Port
	if h.form != formAuthority {
		port = 80
	}
	if h.form == formAbsolute && value == h.claimed { // read already, with the same port
		h.host = &h.target
		return nil
	}
	host, err := allowlists.ParseTarget(value, port)
	if err != nil {
		return err
	}
	h.host = &host
	return nil
}

// checkFraming refuses what has no end, or two.
func (h *head) checkFraming() error {
	switch {
	case h.host == nil && h.minor == 1:
		return errHostNone
	case h.chunked && (h.contentLength >= 0 || h.minor == 0):
		return errFraming
	case h.form == formAuthority && (h.chunked || h.contentLength > 0):
		return errConnectBody
	default:
		return nil
	}
}
