package allowlists

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/allowlists/diag"
)

// TLSMode says whether a connection must begin with a matching ClientHello.
type TLSMode uint8

// The TLS modes.
const (
	TLSDefault TLSMode = iota // require on 443, off elsewhere
	TLSRequire
	TLSOff
)

// ECHMode says what becomes of a ClientHello with an encrypted inner part.
type ECHMode uint8

// The ECH modes.
const (
	ECHOuter ECHMode = iota // passes if the outer name is the allowed host
	ECHDeny
)

// A Rule is one line of an allow, deny or quiet list. It never changes after
// its Policy is made.
type Rule struct {
	Text   string   // as a person would write it: "*.example.com:80,443"
	Pos    diag.Pos // where it stands
	Preset string   // the preset it came with; "" for a rule of the pool's own

	// Exactly one of Host and Prefix is set.
	Host   Pattern
	Prefix netip.Prefix

	Ports       PortSet        // an empty set means every port, in deny and quiet only
	ResolvesTo  []netip.Prefix // the rule's, its preset's and its pool's together
	DNSTypes    []uint16       // beyond A, AAAA, CNAME, HTTPS and SVCB
	UploadLimit int64          // in bytes; 0 is none
	TLS         TLSMode
	Writable    bool   // anyone may write data there with their own account
	Anyone      bool   // a wildcard over a private public suffix, on purpose
	Reason      string // the author's words
	Owner       string
	Expires     time.Time // zero: never
}

// Expired reports whether the rule has ended at now.
func (r *Rule) Expired(now time.Time) bool {
	return !r.Expires.IsZero() && !now.Before(r.Expires)
}

// RequiresTLS reports whether a connection to port must begin with a
// ClientHello that names the host.
func (r *Rule) RequiresTLS(port uint16) bool {
	switch r.TLS {
	case TLSRequire:
		return true
	case TLSOff:
		return false
	default:
		return port == 443
	}
}

// Where says where the rule stands: "sallyport.yaml:14", or "preset:npm:9".
// A nil rule stands nowhere: "".
func (r *Rule) Where() string {
	if r == nil {
		return ""
	}
	return r.Pos.String()
}

// PortSet is a set of TCP ports. The zero PortSet is empty. PortSets compare
// with ==.
type PortSet struct {
	// ports are two bytes each, the higher first, sorted and without repeats;
	// everyPort for every port. A string, as most rules share one.
	ports string
}

// everyPort is the PortSet of every port; no list of ports has one byte.
const everyPort = "*"

// defaultPorts is port 443, which most rules have.
const defaultPorts = "\x01\xbb"

// NewPortSet makes the set of the given ports.
func NewPortSet(ports ...uint16) PortSet {
	if len(ports) == 1 && ports[0] == 443 {
		return PortSet{defaultPorts}
	}
	sorted := slices.Clone(ports)
	slices.Sort(sorted)
	packed := make([]byte, 0, 2*len(ports))
	for _, port := range slices.Compact(sorted) {
		packed = binary.BigEndian.AppendUint16(packed, port)
	}
	return PortSet{string(packed)}
}

// AllPorts is the set of every port.
func AllPorts() PortSet { return PortSet{everyPort} }

// Contains reports whether port is in the set.
func (s PortSet) Contains(port uint16) bool {
	if s.All() {
		return true
	}
	for i := 0; i+1 < len(s.ports); i += 2 {
		if s.at(i) == port {
			return true
		}
	}
	return false
}

// at is the port whose bytes begin at an index.
func (s PortSet) at(i int) uint16 { return uint16(s.ports[i])<<8 | uint16(s.ports[i+1]) }

// All reports whether the set holds every port.
func (s PortSet) All() bool { return len(s.ports) == len(everyPort) }

// Empty reports whether the set holds no port.
func (s PortSet) Empty() bool { return s.ports == "" }

// List gives the ports, sorted; nil for every port.
func (s PortSet) List() []uint16 {
	if s.All() || s.Empty() {
		return nil
	}
	list := make([]uint16, 0, len(s.ports)/2)
	for i := 0; i < len(s.ports); i += 2 {
		list = append(list, s.at(i))
	}
	return list
}

// String gives "443", "80,443" or "*".
func (s PortSet) String() string {
	if s.All() {
		return "*"
	}
	texts := make([]string, 0, len(s.ports)/2)
	for _, port := range s.List() {
		texts = append(texts, strconv.Itoa(int(port)))
	}
	return strings.Join(texts, ",")
}
