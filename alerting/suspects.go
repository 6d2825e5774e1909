package alerting

import "time"

// maxSuspects bounds suspects. With more of them every client is suspect, so
// that nobody can teach unseen by crowding others out.
const maxSuspects = 16384

// suspects are the clients of whom something high was found: those that an open
// group names, and those of the latest findings, as a group names few. They
// teach the baseline nothing. It is not safe for concurrent use; the correlator
// owns it.
type suspects struct{ last map[clientOf]time.Time } // when the latest was found, at most maxSuspects + 1

func newSuspects() suspects { return suspects{make(map[clientOf]time.Time)} }

// add notes a finding of high severity.
func (s *suspects) add(client clientOf, now time.Time) {
	if _, known := s.last[client]; known || len(s.last) <= maxSuspects {
		s.last[client] = now
	}
}

// has reports whether a client is suspect.
func (s *suspects) has(client clientOf) bool {
	_, is := s.last[client]
	return is || len(s.last) > maxSuspects
}

// rebuild forgets who was not found for as long as a group stays open, unless an
// open group of high severity names them.
func (s *suspects) rebuild(groups *groups, now time.Time) {
	for client, last := range s.last {
		if now.Sub(last) >= groups.times.quiet() {
			delete(s.last, client)
		}
	}
	for _, g := range groups.open {
		if g.Severity < High || g.Closed != "" {
			continue
		}
		for _, key := range g.Clients {
			if client := (clientOf{g.Pool, key}); !s.has(client) {
				s.add(client, g.Touched)
			}
		}
	}
}
