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
	clients map[clientOf][]refusedName // oldest first
	swept   time.Time
}

// A refusedName is one refusal: what, when, and the id of its event.
type refusedName struct {
	host string // canonical
	id   string
	time time.Time
}

func newRefusedNames() *refusedNames { return &refusedNames{clients: make(map[clientOf][]refusedName)} }

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
	host, err := allowlists.ParseHost(hostOf(e))
	if err != nil {
		return
	}
	client := ofClient(e)
	names, known := r.clients[client]
	if !known && len(r.clients) >= refusedClients {
		r.makeRoom(now)
	}
	if len(names) >= refusedPerClient {
		names = append(names[:0], names[1:]...)
	}
	r.clients[client] = append(names, refusedName{host.String(), e.ID, e.Time})
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
	for client, names := range r.clients {
		if now.Sub(names[len(names)-1].time) > refusedMemory {
			delete(r.clients, client)
		}
	}
}

// last is the client's latest refused name within a window before now.
func (r *refusedNames) last(client clientOf, now time.Time, window time.Duration) (refusedName, bool) {
	names := r.clients[client]
	if len(names) == 0 {
		return refusedName{}, false
	}
	name := names[len(names)-1]
	return name, now.Sub(name.time) <= window
}

// find is the latest refusal of one of the given names, as a client wrote them.
func (r *refusedNames) find(client clientOf, now time.Time, claims ...string) (refusedName, bool) {
	names := r.clients[client]
	if len(names) == 0 {
		return refusedName{}, false
	}
	for _, claim := range claims {
		host, err := allowlists.ParseHost(claim)
		if err != nil {
			continue
		}
		for i := len(names) - 1; i >= 0; i-- {
			if names[i].host == host.String() && now.Sub(names[i].time) <= refusedMemory {
				return names[i], true
			}
		}
	}
	return refusedName{}, false
}
