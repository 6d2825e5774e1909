package dnsfilter

import (
	"net/netip"
	"time"

	"sallyport/allowlists"
)

// Who asked, QueryRecord.By.
const (
	ByClient = "client"
	ByProxy  = "proxy"
)

// A QueryRecord is what became of one question. There is one for every
// question, refused ones and unreadable ones too. Its slices are the
// observer's to keep, and nobody changes them.
type QueryRecord struct {
	ID         string // allowlists.NewID
	Time       time.Time
	Subject    allowlists.Subject
	Generation uint64 // of the policy that judged
	By         string // ByClient or ByProxy
	// Name is the name as asked, in presentation form (RFC 1035 section 5.1)
	// without the final dot. It comes from the job: encoders escape it. "" where
	// the message was unreadable.
	Name string
	Host allowlists.Host // zero where Name has no canonical form
	Type uint16
	allowlists.Decision
	Where    string       // Rule.Where(), if somebody found that out already; else ""
	RCode    int          // of the reply; -1 where none was sent
	Answers  []netip.Addr // addresses in the reply, hints of HTTPS and SVCB records too
	Removed  []netip.Addr // addresses that the policy took out of it
	CNAMEs   []string     // the chain from the name asked, without it; dirty as Name
	Cached   bool
	Resolver netip.Addr // foreign, that the client sent the question to; zero if it meant us, or nobody knows
	Upstream string     // that gave the answer; "" where none was asked
	Took     time.Duration
	TTL      time.Duration // the lowest in the reply
	Search   bool          // a refused name that is an allowed one plus a search suffix
	Reverse  bool          // a name for an address was asked for
	Payload  int           // bytes of the answer that are neither addresses nor lead to them: TXT, NULL, MX and so on
	Limit    string        // the key of the limit that is used up, where Reason is LimitExceeded and a key sets it
	Err      string        // what failed, where something did
}
