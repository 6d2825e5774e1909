package alerting

import (
	"time"

	"sallyport/allowlists"
)

// The bounds of refusedNames.
const (
	refusedClients   = 8192             // clients remembered
	refusedPerClient = 32               // names of each, the latest
	refusedMemory    = 10 * time.Minute // how long a name is remembered
)

// refusedNames remembers which names each client was refused lately, for the
// detectors that join a refusal with what follows. It belongs to the
// correlator, which shows it each event after the detectors saw it.
type refusedNames struct {
	clients map[clientOf]*refusedClient
	swept   time.Time
}

// A refusedClient is what one client was refused lately: a ring, of at least one
// name.
type refusedClient struct {
	names []refusedName // at most refusedPerClient
	next  int           // the oldest, once there are so many
}

// back is the n-th name from the latest, which is 0.
func (c *refusedClient) back(n int) *refusedName {
	return &c.names[(c.next-1-n+2*len(c.names))%len(c.names)]
}

// A refusedName is one refusal: what, when, and the id of its event.
type refusedName struct {
	host string // canonical
	id   string
	time time.Time
}

func newRefusedNames() *refusedNames {
	return &refusedNames{clients: make(map[clientOf]*refusedClient)}
}

// nameRefusals are the reasons that refuse a name for what it is.
var nameRefusals = map[allowlists.Reason]bool{
	allowlists.NotInAllowlist: true, allowlists.PortNotAllowed: true, allowlists.ExpiredRule: true,
	allowlists.DeniedByRule: true, allowlists.ResolverBypass: true,
}

// observe remembers a refused name: of a question, or of a connection asked
// for by name. Quiet names count, echoes of search suffixes and reverse
// look-ups do not.
func (r *refusedNames) observe(e *Event, now time.Time) {
	if !decides(e) || !e.Refused() || !nameRefusals[e.Reason] || e.Search || e.Reverse() {
		return
	}
	if e.Kind == KindConn && (e.IP.IsValid() || straight(e)) {
		return
	}
	host := hostOf(e)
	if !e.about.canonical {
		return
	}
	client := ofClient(e)
	c := r.clients[client]
	if c == nil {
		if len(r.clients) >= refusedClients {
			r.makeRoom(now)
		}
		c = &refusedClient{}
		r.clients[client] = c
	}
	name := refusedName{host, e.ID, e.Time}
	if len(c.names) < refusedPerClient {
		c.names = append(c.names, name)
		return
	}
	c.names[c.next] = name
	c.next = (c.next + 1) % refusedPerClient
}

// makeRoom forgets what is old, at most once a second, else any client.
func (r *refusedNames) makeRoom(now time.Time) {
	if now.Sub(r.swept) >= time.Second {
		r.expire(now)
	}
	for client := range r.clients {
		if len(r.clients) < refusedClients {
			return
		}
		delete(r.clients, client)
	}
}

// expire forgets clients whose last refusal is too old.
func (r *refusedNames) expire(now time.Time) {
	r.swept = now
	for client, c := range r.clients {
		if now.Sub(c.back(0).time) > refusedMemory {
			delete(r.clients, client)
		}
	}
}

// last is the client's latest refused name within a window before now.
func (r *refusedNames) last(client clientOf, now time.Time, window time.Duration) (refusedName, bool) {
	c := r.clients[client]
	if c == nil {
		return refusedName{}, false
	}
	name := *c.back(0)
	return name, now.Sub(name.time) <= window
}

// find is the latest refusal of one of the given names, as a client wrote them.
func (r *refusedNames) find(client clientOf, now time.Time, claims ...string) (refusedName, bool) {
	c := r.clients[client]
	if c == nil {
		return refusedName{}, false
	}
	for _, claim := range claims {
		host, err := allowlists.ParseHost(claim)
		if err != nil {
			continue
		}
		for i := range c.names {
			if name := c.back(i); name.host == host.String() && now.Sub(name.time) <= refusedMemory {
				return *name, true
			}
		}
	}
	return refusedName{}, false
}
