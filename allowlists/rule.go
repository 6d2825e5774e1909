package allowlists

import (
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

	Ports       PortSet // an empty set means every port, in deny and quiet only
	TLS         TLSMode
	ResolvesTo  []netip.Prefix // the rule's, its preset's and its pool's together
	DNSTypes    []uint16       // beyond A, AAAA, CNAME, HTTPS and SVCB
	UploadLimit int64          // in bytes; 0 is none
	Writable    bool           // anyone may write data there with their own account
	Anyone      bool           // a wildcard over a private public suffix, on purpose
	Reason      string         // the author's words
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

// PortSet is a set of TCP ports.
type PortSet struct {
	all   bool
	ports []uint16 // sorted, without repeats
}

// NewPortSet makes the set of the given ports.
func NewPortSet(ports ...uint16) PortSet {
	sorted := slices.Clone(ports)
	slices.Sort(sorted)
	return PortSet{ports: slices.Compact(sorted)}
}

// AllPorts is the set of every port.
func AllPorts() PortSet { return PortSet{all: true} }

// Contains reports whether port is in the set.
func (s PortSet) Contains(port uint16) bool {
	if s.all {
		return true
	}
	for _, p := range s.ports {
		if p == port {
			return true
		}
	}
	return false
}

// All reports whether the set holds every port.
func (s PortSet) All() bool { return s.all }

// Empty reports whether the set holds no port.
func (s PortSet) Empty() bool { return !s.all && len(s.ports) == 0 }

// List gives the ports, sorted; nil for every port.
func (s PortSet) List() []uint16 { return slices.Clone(s.ports) }

// String gives "443", "80,443" or "*".
func (s PortSet) String() string {
	if s.all {
		return "*"
	}
	texts := make([]string, len(s.ports))
	for i, p := range s.ports {
		texts[i] = strconv.Itoa(int(p))
	}
	return strings.Join(texts, ",")
}
