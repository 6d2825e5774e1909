package foreignlog

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// squidNative reads Squid's access.log in the format that it calls squid
// (squid-cache.org, logformat), the default:
//
//	1795425057.446      2 10.20.0.7 TCP_MISS/200 1152 GET http://good.example/ - HIER_DIRECT/198.51.100.7 text/html
//
// The time is that of the end; the second word is how long it took, in
// milliseconds. Squid writes spaces and control bytes of a URL as %XX.
type squidNative struct{}

func looksSquid(line []byte) bool { return squidNative{}.parse(line, func(Record) {}) == nil }

func (squidNative) parse(line []byte, emit func(Record)) error {
	words := bytes.Fields(line[:min(len(line), 16384)])
	if len(words) < 9 {
		return errLine
	}
	at, timed := epoch(words[0])
	millis, err := strconv.ParseInt(string(words[1][:min(len(words[1]), 20)]), 10, 64)
	client, isAddr := address(words[2])
	code, status, slash := bytes.Cut(words[3], []byte("/"))
	size, sizeErr := strconv.ParseInt(string(words[4][:min(len(words[4]), 20)]), 10, 64)
	if !timed || bytes.IndexByte(words[0], '.') < 0 || err != nil || !slash || sizeErr != nil || !isAddr || len(status) != 3 {
		return errLine
	}
	took := time.Duration(max(0, min(millis, int64(1e10)))) * time.Millisecond
	c := squidConn(clip(words[5]), words[6], string(code), string(status), size)
	if c == nil {
		return nil
	}
	c.Client, c.Took = client, took
	route, peer, _ := bytes.Cut(words[8], []byte("/"))
	if dialled(string(route)) {
		c.IP, _ = address(peer)
	}
	emit(Record{Time: at.Add(-took), Conn: c})
	return nil
}

// dialled reports whether a hierarchy code says that the peer's address is that
// of the destination, and not of another proxy.
func dialled(route string) bool {
	return strings.Contains(route, "DIRECT") || strings.Contains(route, "ORIGINAL_DST") || strings.Contains(route, "PINNED")
}

func (squidNative) flush(func(Record)) {}

// squidCombined reads what Squid writes as common and combined, which is how
// web servers log, with Squid's own words at the end:
//
//	10.20.0.7 - - [23/Nov/2026:09:10:57 +0000] "CONNECT good.example:443 HTTP/1.1" 200 559 "-" "curl/7.88.1" TCP_TUNNEL:HIER_DIRECT
type squidCombined struct{}

func looksSquidCombined(line []byte) bool {
	return squidCombined{}.parse(line, func(Record) {}) == nil
}

func (squidCombined) parse(line []byte, emit func(Record)) error {
	line = line[:min(len(line), 16384)]
	head, rest, ok := bytes.Cut(line, []byte(" ["))
	stamp, rest, ok2 := bytes.Cut(rest, []byte(`] "`))
	request, rest, ok3 := bytes.Cut(rest, []byte(`" `))
	client, _, _ := bytes.Cut(head, []byte(" "))
	addr, isAddr := address(client)
	if !ok || !ok2 || !ok3 || !isAddr {
		return errLine
	}
	at, err := time.Parse("02/Jan/2006:15:04:05 -0700", string(stamp[:min(len(stamp), 40)]))
	words, reply := bytes.Fields(request), bytes.Fields(rest)
	if err != nil || len(words) != 3 || len(reply) < 3 || len(reply[0]) != 3 {
		return errLine
	}
	size, _ := strconv.ParseInt(string(reply[1][:min(len(reply[1]), 20)]), 10, 64)
	code, _, colon := strings.Cut(string(reply[len(reply)-1]), ":")
	if !colon {
		return errLine
	}
	if c := squidConn(clip(words[0]), words[1], code, string(reply[0]), size); c != nil {
		c.Client = addr
		emit(Record{Time: at.UTC(), Conn: c})
	}
	return nil
}

func (squidCombined) flush(func(Record)) {}

// squidConn makes the record of a request; nil for one that asked for nothing
// that can be judged, or was only asked to log in.
func squidConn(method string, url []byte, code, status string, size int64) *Conn {
	c := &Conn{Explicit: true, Via: ViaHTTP, Method: method, Received: max(0, size), Part: Whole}
	var ok bool
	if method == "CONNECT" {
		c.Via = ViaConnect
		c.Host, c.Port, ok = hostPort(clip(url), 0)
	} else {
		c.Host, c.Port, ok = urlTarget(clip(url))
	}
	if !ok || status == "407" {
		return nil
	}
	switch {
	case strings.HasPrefix(code, "TCP_DENIED"):
		c.Refused, c.Received = true, 0
	case strings.HasPrefix(code, "NONE") && status >= "400", strings.HasSuffix(code, "_ABORTED") && status == "000":
		c.Error, c.Received = "Squid answered "+status, 0
	case c.Via == ViaConnect && size > 0:
		c.Sent = 1 // something came back through the tunnel, so something was sent: how much is not known
	}
	return c
}

// hostPort cuts "host:port"; without a port it gives def. A port that is none
// is 0.
func hostPort(text string, def uint16) (string, uint16, bool) {
	host, port := text, ""
	switch i := strings.LastIndexByte(text, ':'); {
	case strings.HasPrefix(text, "["):
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return "", 0, false
		}
		host, port = text[1:end], strings.TrimPrefix(text[end+1:], ":")
	case i >= 0 && strings.IndexByte(text, ':') == i:
		host, port = text[:i], text[i+1:]
	case i >= 0: // an IPv6 address without brackets, as Zeek and old proxies write it
		if _, err := netip.ParseAddr(text); err != nil {
			return "", 0, false
		}
	}
	n := uint64(def)
	if port != "" {
		n, _ = strconv.ParseUint(port, 10, 16)
	}
	return host, uint16(n), host != ""
}

// schemePorts are the ports of the schemes that proxies carry.
var schemePorts = map[string]uint16{"http": 80, "https": 443, "ftp": 21, "ws": 80, "wss": 443}

// urlTarget gives host and port of an absolute URL.
func urlTarget(url string) (string, uint16, bool) {
	scheme, rest, ok := strings.Cut(url, "://")
	port, known := schemePorts[strings.ToLower(scheme)]
	if !ok || !known {
		return "", 0, false
	}
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	return hostPort(rest, port)
}
