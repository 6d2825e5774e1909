package proxy

import (
	"net/netip"
	"time"

	"sallyport/allowlists"
)

// The phases of a connection. Every id has exactly one record with PhaseRefused
// or PhaseOpen; one that opened has PhaseClose as its last.
const (
	PhaseRefused  = "refused"
	PhaseOpen     = "open"
	PhaseProgress = "progress"
	PhaseClose    = "close"
)

// The ways by which traffic comes.
const (
	ViaConnect = "connect" // a CONNECT tunnel
	ViaHTTP    = "http"    // one plain HTTP request
	ViaTLS     = "tls"     // a redirected connection that began with TLS, or had to
	ViaTCP     = "tcp"     // any other redirected connection
)

// A ConnRecord is what became of a connection or of a plain HTTP request. It is
// passed by value and its slices belong to whoever got it.
type ConnRecord struct {
	ID         string // of the decision, shared by all records of a connection
	Time       time.Time
	Subject    allowlists.Subject
	Generation uint64 // of the policy that decided
	Phase      string
	Via        string
	Host       string     // as the client claimed it, perhaps dirty; canonical once judged
	Port       uint16     // 0 if none was understood
	Addr       netip.Addr // the address dialled or judged; zero if it never came to that
	ClientPort uint16
	SNI, ALPN  string // as claimed in the ClientHello, perhaps dirty; ALPN joined by commas
	ECH        bool   // the ClientHello has an encrypted inner part
	Method     string // of the request head, perhaps dirty
	Decision   allowlists.Decision
	DNSIDs     []string // the dns events of the answer used
	Names      []string // names this pool was answered with for Addr, newest first
	// The next are of redirected connections only. Redialled: the name never had
	// the address that the connection was made to, Original, and our own
	// resolution was dialled. Ambiguous: several names had the address.
	Redialled, Ambiguous bool
	Original             netip.Addr
	Sent, Received       int64         // bytes from the job to the world, and back
	Took                 time.Duration // since the request came
	Err                  string        // the failure beneath, "" if none
}
