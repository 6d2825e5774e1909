// Package alerting turns what the resolver and the proxy decided into one JSON
// line each, joins the two, and tells people: event log, correlator, grouping,
// sinks and the store that keeps them over a restart.
//
// The way through it: a record becomes an [Event]; the event becomes a line in
// the log; once the line is written the event, with the place where its line
// ends, goes to the correlator; what the correlator finds becomes alert events
// and messages. Nothing here ever holds up a connection, except that a refusal
// waits for its own line.
package alerting

import (
	"net/netip"
	"strings"
	"time"

	"sallyport/allowlists"
)

// The kinds of event line.
const (
	KindDNS    = "dns"
	KindConn   = "conn"
	KindAlert  = "alert"
	KindSystem = "system"
)

// The phases of a conn event. Every conn id has exactly one line with
// PhaseRefused or PhaseOpen.
const (
	PhaseRefused  = "refused"
	PhaseOpen     = "open"
	PhaseProgress = "progress"
	PhaseClose    = "close"
)

// Who asked the question of a dns event.
const (
	ByClient = "client"
	ByProxy  = "proxy"
)

// eventVersion is the value of "v" in every line.
const eventVersion = 1

// An Event is one line of the event log, decoded: docs/events.md has every
// field. It looks the same whether it comes from a record of this process or
// was read back from a log, so the correlator need not care. Which fields have
// a meaning depends on Kind; a zero field is unknown and left out of the line,
// except where said. An Event that was handed on is never changed again.
type Event struct {
	// All kinds.
	Time   time.Time       `json:"time"` // UTC, whole microseconds
	Kind   string          `json:"kind"`
	Pool   string          `json:"pool"`   // "" if no pool admits the client
	Client netip.Addr      `json:"client"` // invalid in most system events
	Iface  string          `json:"iface"`
	Policy uint64          `json:"policy"` // generation
	Job    *allowlists.Job `json:"job"`    // nil if unknown; never changed
	// Machine is allowlists.Subject.Machine. It is not in the line, so zero in an
	// event that was read back: such a one counts by its Client.
	Machine netip.Addr `json:"-"`

	// dns, conn and alert.
	ID string `json:"id"`

	// dns and conn: the decision. On other kinds these mean nothing.
	Verdict allowlists.Verdict `json:"-"`
	Reason  allowlists.Reason  `json:"-"`
	Would   allowlists.Reason  `json:"-"`     // enforce's reason; only where Reason is AllowedByAudit
	Rule    string             `json:"rule"`  // "file:line", or "preset:npm:9"
	Quiet   bool               `json:"quiet"` // refused, and on the pool's quiet list
	Took    time.Duration      `json:"-"`     // "ms": until the decision, or the life of what closed
	Error   string             `json:"error"` // what went wrong where the verdict is allow

	// dns.
	By       string       `json:"by"`
	Name     string       `json:"name"` // as asked: from the job, may hold anything
	Type     string       `json:"type"` // "A", "TYPE1234"
	RCode    string       `json:"rcode"`
	Answers  []netip.Addr `json:"answers"` // what the client was given
	Removed  []netip.Addr `json:"removed"` // special addresses taken out of the answer
	CNAMEs   []string     `json:"cnames"`
	Cached   bool         `json:"cached"`
	Upstream string       `json:"upstream"`
	Resolver netip.Addr   `json:"resolver"` // foreign, that the client sent the question to
	Payload  int          `json:"payload"`  // bytes of the answer beyond addresses and what leads to them
	Limit    string       `json:"limit"`    // key of the limit that is used up, where Reason is LimitExceeded and a key sets it
	Search   bool         `json:"search"`   // an allowed name plus a search suffix
	// TTL is how long the answer may be used; it is not in the line, so zero
	// in an event that was read back.
	TTL time.Duration `json:"-"`

	// conn; Host, Port and IP are also the subject of an alert. In a dns event
	// Host is the canonical form of Name, "" if it has none, and not in the line.
	Host       string     `json:"host"` // as claimed: from the job, may hold anything
	Port       uint16     `json:"port"`
	IP         netip.Addr `json:"ip"`
	Phase      string     `json:"phase"`
	Via        string     `json:"via"`
	ClientPort uint16     `json:"client_port"`
	SNI        string     `json:"sni"` // as claimed: from the job, may hold anything
	ALPN       string     `json:"alpn"`
	ECH        bool       `json:"ech"`
	Method     string     `json:"method"`
	DNSID      string     `json:"dns_id"` // the answer used
	Names      []string   `json:"names"`  // names answered with IP, newest first
	Redialled  bool       `json:"redialled"`
	Ambiguous  bool       `json:"ambiguous"`
	Original   netip.Addr `json:"original"` // that a redialled connection was made to
	Sent       int64      `json:"sent"`     // bytes from the job to the world
	Received   int64      `json:"received"`

	// alert.
	Alert    string    `json:"alert"`
	Severity string    `json:"severity"`
	Summary  string    `json:"summary"`
	Key      string    `json:"key"` // names the group
	Count    int       `json:"count"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Evidence []string  `json:"evidence"` // ids of dns and conn events
	Suggest  string    `json:"suggest"`
	Closed   string    `json:"closed"` // why a policy closed the group

	// system. Values are strings, booleans, numbers, and lists of strings; in
	// an event that was read back every number is a float64.
	Event   string         `json:"event"`
	Details map[string]any `json:"details"`

	// Pos is where the event's line ends in the log; zero if it has no line in
	// a file (stdout, or a log that is stalled), and then there is nothing to
	// resume from.
	Pos Position `json:"-"`

	// rules are those that decided, and that of the quiet list, for the one
	// goroutine that counts them; nil in an event that was read back.
	rules struct{ decided, quiet *allowlists.Rule }

	// about is hostOf, for the one goroutine that the event was handed to.
	about struct {
		host             string
		known, canonical bool
	}
}

// A Position is a place in an event log file: the offset just behind a line of
// that very file. The zero Position is no place.
type Position struct {
	Dev   uint64 `json:"dev"`
	Inode uint64 `json:"inode"`
	// Born is when the file was made, in Unix nanoseconds, as the number of a
	// deleted file is soon that of another; 0 where the file system does not say.
	Born   int64 `json:"born,omitempty"`
	Offset int64 `json:"offset"`
}

// IsZero reports whether p is no place.
func (p Position) IsZero() bool { return p == Position{} }

// SameFile reports whether p and q are places in one file.
func (p Position) SameFile(q Position) bool {
	return !p.IsZero() && p.Dev == q.Dev && p.Inode == q.Inode && (p.Born == q.Born || p.Born == 0 || q.Born == 0)
}

// Refused reports whether a dns or conn event records a refusal.
func (e *Event) Refused() bool { return e.Verdict == allowlists.Deny }

// Cause is the reason that enforce gives: Would in audit, else Reason.
func (e *Event) Cause() allowlists.Reason {
	if e.Reason == allowlists.AllowedByAudit {
		return e.Would
	}
	return e.Reason
}

// Subject is who caused the event.
func (e *Event) Subject() allowlists.Subject {
	return allowlists.Subject{Client: e.Client, Iface: e.Iface, Pool: e.Pool, Job: e.Job, Machine: e.Machine}
}

// Reverse reports whether a dns event asks which name an address has.
func (e *Event) Reverse() bool {
	return e.Kind == KindDNS &&
		(strings.HasSuffix(e.Host, ".in-addr.arpa") || strings.HasSuffix(e.Host, ".ip6.arpa"))
}
