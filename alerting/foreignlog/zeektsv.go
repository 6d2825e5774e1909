package foreignlog

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// zeekTSV reads Zeek's logs as they are written by default: lines of fields
// with a tab between them, whose names are in the header. A new header may come
// at any line, as in files that were put together.
type zeekTSV struct {
	path         string
	fields       []string
	set          []byte // between the elements of a list
	empty, unset string
	line         zeekLine
}

func looksZeekTSV(line []byte) bool {
	return bytes.HasPrefix(line, []byte("#separator ")) || bytes.HasPrefix(line, []byte("#fields\t"))
}

func (z *zeekTSV) parse(line []byte, emit func(Record)) error {
	if len(line) == 0 {
		return nil
	}
	if line[0] == '#' {
		return z.header(line)
	}
	if z.fields == nil {
		return errLine
	}
	z.line = zeekLine{path: z.path}
	n := 0
	for rest, more := line, true; more; n++ {
		var value []byte
		value, rest, more = bytes.Cut(rest, []byte("\t"))
		if n >= len(z.fields) {
			return errLine
		}
		if string(value) == z.unset || string(value) == z.empty {
			continue
		}
		if set := zeekFields[z.fields[n]]; set != nil {
			set(&z.line, value, z.set)
		}
	}
	if n != len(z.fields) || z.line.at.IsZero() {
		return errLine
	}
	if r := z.line.record(); r != nil {
		emit(*r)
	}
	return nil
}

func (z *zeekTSV) flush(func(Record)) {}

// header reads a line that begins with #.
func (z *zeekTSV) header(line []byte) error {
	word, rest, _ := bytes.Cut(line, []byte("\t"))
	switch string(word) {
	case "#fields":
		z.fields = strings.Split(string(rest[:min(len(rest), 64<<10)]), "\t")
	case "#path":
		z.path = zeekPath(string(rest))
	case "#set_separator":
		z.set = bytes.Clone(rest)
	case "#empty_field":
		z.empty = string(rest)
	case "#unset_field":
		z.unset = string(rest)
	default:
		if separator, ok := bytes.CutPrefix(word, []byte("#separator ")); ok && string(separator) != `\x09` {
			return errLine // one that nobody uses
		}
		if z.unset == "" {
			z.set, z.empty, z.unset = []byte(","), "(empty)", "-"
		}
	}
	return nil
}

// zeekPath is the kind of a log; filters may have named it "dns_internal".
func zeekPath(path string) string {
	kind, _, _ := strings.Cut(path, "_")
	return kind
}

// zeekFields put a field's text where it belongs. A text that is no value of
// its type is left out.
var zeekFields = map[string]func(z *zeekLine, text, set []byte){
	"ts":                func(z *zeekLine, text, _ []byte) { z.at = zeekTime(text) },
	"uid":               func(z *zeekLine, text, _ []byte) { z.uid = clip(text) },
	"id.orig_h":         func(z *zeekLine, text, _ []byte) { z.client, _ = address(text) },
	"id.resp_h":         func(z *zeekLine, text, _ []byte) { z.server, _ = address(text) },
	"id.orig_p":         func(z *zeekLine, text, _ []byte) { z.clientPort = uint16(count(text, 1<<16-1)) },
	"id.resp_p":         func(z *zeekLine, text, _ []byte) { z.port = uint16(count(text, 1<<16-1)) },
	"proto":             func(z *zeekLine, text, _ []byte) { z.proto = clip(text) },
	"service":           func(z *zeekLine, text, _ []byte) { z.service = clip(text) },
	"duration":          func(z *zeekLine, text, _ []byte) { z.duration = zeekInterval(text) },
	"rtt":               func(z *zeekLine, text, _ []byte) { z.duration = zeekInterval(text) },
	"query":             func(z *zeekLine, text, _ []byte) { z.query = unescape(text) },
	"qclass":            func(z *zeekLine, text, _ []byte) { z.class = uint16(count(text, 1<<16-1)) },
	"qtype_name":        func(z *zeekLine, text, _ []byte) { z.qtype = clip(text) },
	"rcode_name":        func(z *zeekLine, text, _ []byte) { z.rcode = clip(text) },
	"rejected":          func(z *zeekLine, text, _ []byte) { z.rejected = string(text) == "T" },
	"answers":           func(z *zeekLine, text, set []byte) { z.answers = zeekList(text, set) },
	"server_name":       func(z *zeekLine, text, _ []byte) { z.serverName = unescape(text) },
	"next_protocol":     func(z *zeekLine, text, _ []byte) { z.alpn = unescape(text) },
	"method":            func(z *zeekLine, text, _ []byte) { z.method = unescape(text) },
	"host":              func(z *zeekLine, text, _ []byte) { z.host = unescape(text) },
	"uri":               func(z *zeekLine, text, _ []byte) { z.uri = unescape(text) },
	"request_body_len":  func(z *zeekLine, text, _ []byte) { z.requestLen = count(text, 1<<60) },
	"response_body_len": func(z *zeekLine, text, _ []byte) { z.replyLen = count(text, 1<<60) },
	"orig_bytes":        func(z *zeekLine, text, _ []byte) { z.sent = count(text, 1<<60) },
	"resp_bytes":        func(z *zeekLine, text, _ []byte) { z.received = count(text, 1<<60) },
	"history":           func(z *zeekLine, text, _ []byte) { z.history = clip(text) },
	"tunnel_parents":    func(z *zeekLine, _, _ []byte) { z.tunnelled = true },
	"TTLs": func(z *zeekLine, text, set []byte) {
		for _, ttl := range zeekList(text, set) {
			z.ttls = append(z.ttls, zeekInterval([]byte(ttl)))
		}
	},
}

// zeekTime reads a time: seconds since 1970, or as RFC 3339 where Zeek was told so.
func zeekTime(text []byte) time.Time {
	if at, ok := epoch(text); ok {
		return at
	}
	at, _ := iso(text)
	return at
}

func zeekInterval(text []byte) time.Duration {
	n, err := strconv.ParseFloat(string(text[:min(len(text), 32)]), 64)
	if err != nil {
		return 0
	}
	return seconds(n)
}

// count reads a number from 0 to most; another is 0.
func count(text []byte, most uint64) int64 {
	n, err := strconv.ParseUint(string(text[:min(len(text), 24)]), 10, 63)
	if err != nil || n > most {
		return 0
	}
	return int64(n)
}

// zeekList splits a list.
func zeekList(text, set []byte) []string {
	if len(set) == 0 {
		set = []byte(",")
	}
	var list []string
	for rest, more := text, true; more && len(list) < maxAnswers; {
		var item []byte
		item, rest, more = bytes.Cut(rest, set)
		list = append(list, unescape(item))
	}
	return list
}

// unescape turns \xHH into its byte, as Zeek writes what would break a line.
func unescape(text []byte) string {
	text = text[:min(len(text), 4*maxField)]
	if bytes.IndexByte(text, '\\') < 0 {
		return clip(text)
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) && text[i+1] == 'x' {
			if b, err := hex.DecodeString(string(text[i+2 : i+4])); err == nil {
				out, i = append(out, b[0]), i+3
				continue
			}
		}
		out = append(out, text[i])
	}
	return clip(out)
}
