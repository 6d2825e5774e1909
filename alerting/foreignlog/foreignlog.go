// Package foreignlog reads the logs of other programs, resolvers and proxies,
// as small neutral records: who asked for which name and what the answer was,
// who connected where. It judges nothing and knows nobody; what it reads was
// partly written by those who are to be caught, so every line, field and list
// has a bound, and a line that is no line of its format is counted and left out.
package foreignlog

import (
	"net/netip"
	"strings"
	"time"
)

// The bounds of what is read.
const (
	maxLine    = 1 << 20 // bytes of a line; what is longer is counted and left out
	maxField   = 1024    // bytes of a name or another text that a record keeps
	maxAnswers = 64      // addresses, and names, of one answer
)

// A Record is one question or one connection. Exactly one of Query, Conn and
// Event is set. A Record that was handed over is the caller's.
type Record struct {
	Time time.Time // when it began, UTC
	Line int       // in its file, from 1: the first that is of it
	Sum  uint64    // of the bytes of the line that completed it, to tell copies in files that overlap

	Query *Query
	Conn  *Conn
	Event []byte // a line of Sallyport's own event log, for who knows those
}

// A Query is one question, with its answer as far as the log has it. Texts are
// as logged, up to maxField bytes: they may hold anything.
type Query struct {
	Client   netip.Addr
	Resolver netip.Addr // that was asked; zero if the log does not say
	Name     string     // in presentation form (RFC 1035 section 5.1), without the final dot
	Type     string     // "A", "TYPE65"
	Class    uint16     // 0 where the log does not say: IN
	RCode    string     // "NOERROR"; "" if the log does not say
	Answers  []netip.Addr
	CNAMEs   []string
	TTL      time.Duration // the lowest of the answer; 0 if the log does not say
	Took     time.Duration // until the reply
	Cached   bool
	Refused  bool // by the resolver's own rules
	Upstream string
}

// The ways of a Conn; those of docs/events.md.
const (
	ViaConnect = "connect"
	ViaHTTP    = "http"
	ViaTLS     = "tls"
	ViaTCP     = "tcp"
	ViaUDP     = "udp"
	ViaICMP    = "icmp"
	ViaOther   = "other"
)

// A Conn is one connection, one request of plain HTTP, or a flow of packets.
type Conn struct {
	Client     netip.Addr
	ClientPort uint16
	Via        string
	// Explicit: Host and Port were asked of a proxy. Else the client made the
	// connection to IP and Port itself.
	Explicit bool
	Host     string     // asked for, or claimed in Host; may be an address
	Port     uint16     // 0 if the log does not say
	IP       netip.Addr // connected to; zero if the log does not say
	TLS      bool       // the log saw a ClientHello, whose name is SNI
	SNI      string
	ALPN     string
	Method   string
	Header   string // the Host header where the log has it beside Host
	Sent     int64  // bytes from the client
	Received int64  // bytes to the client
	Took     time.Duration
	Refused  bool   // by the proxy's own rules
	Error    string // what went wrong, where nothing was refused

	// Of Zeek: the parts of one connection have one UID.
	UID     string
	Part    Part
	Service string // what Zeek saw inside: "ssl", "http", "ssl,http"; "" if nothing
}

// Part is which part of a connection a record is.
type Part uint8

// The parts. Whole is a record that stands alone.
const (
	Whole   Part = iota
	Flow         // conn.log: addresses, ports and bytes
	Hello        // ssl.log: names
	Request      // http.log: one request
)

// clip is text without what is over maxField.
func clip(text []byte) string { return string(text[:min(len(text), maxField)]) }

// presented is a name of which a log has the bytes themselves, with what
// presentation form would take for an escape as one.
func presented(name string) string { return strings.ReplaceAll(name, `\`, `\\`) }

// plain is an address unmapped and without zone.
func plain(addr netip.Addr) netip.Addr { return addr.WithZone("").Unmap() }

// address reads an IP address.
func address(text []byte) (netip.Addr, bool) {
	if len(text) < 2 || len(text) > 64 {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(string(text))
	return plain(addr), err == nil
}

// seconds is a number of seconds as a duration; 0 for one that is none or out
// of all reason.
func seconds(n float64) time.Duration {
	if !(n > 0) || n > 1e9 {
		return 0
	}
	return time.Duration(n * float64(time.Second))
}
