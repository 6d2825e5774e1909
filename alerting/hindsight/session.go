package hindsight

import (
	"container/list"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
)

// The bounds of sessions.
const (
	maxSessions = 1 << 16 // remembered after they were judged
	maxRequests = 64      // of one connection that wait together; more are judged alone
)

// A session is one connection, put together from the parts that several logs
// have of it.
type session struct {
	uid      string
	at       time.Time
	id       string
	whole    *foreignlog.Conn
	flow     *foreignlog.Conn
	hello    *foreignlog.Conn
	requests []request
	opened   *alerting.Event // once it was judged and allowed: what its end repeats
	judged   bool
	place    *list.Element
}

// A request is one of plain HTTP.
type request struct {
	at   time.Time
	id   string
	conn *foreignlog.Conn
}

// sessions knows the connections whose parts may still come: those that wait,
// and the last maxSessions that were judged.
type sessions struct {
	byUID map[string]*session
	done  *list.List // of *session that were judged, oldest first
}

func newSessions() sessions { return sessions{byUID: make(map[string]*session), done: list.New()} }

// add puts a part to its connection. fresh is true for one that is to be
// judged when its time has come.
func (s *sessions) add(c *foreignlog.Conn, at time.Time, id string) (_ *session, fresh bool) {
	known := s.byUID[c.UID]
	if c.UID == "" {
		known = nil
	}
	fresh = known == nil
	if known == nil {
		known = &session{uid: c.UID, at: at, id: id}
		if c.UID != "" {
			s.byUID[c.UID] = known
		}
	}
	if c.Part == foreignlog.Request && (known.judged || len(known.requests) >= maxRequests) {
		known, fresh = &session{at: at, id: id}, true
	}
	switch c.Part {
	case foreignlog.Whole:
		known.whole = c
	case foreignlog.Flow:
		if known.flow = c; known.judged { // the end of one that lasted
			fresh = true
		}
	case foreignlog.Hello:
		known.hello = c
	case foreignlog.Request:
		known.requests = append(known.requests, request{at, id, c})
	}
	return known, fresh
}

// judged keeps a connection for parts that come late.
func (s *sessions) judged(known *session) {
	if known.uid == "" || known.place != nil {
		return
	}
	known.place = s.done.PushBack(known)
	if s.done.Len() > maxSessions {
		old := s.done.Remove(s.done.Front()).(*session)
		delete(s.byUID, old.uid)
	}
}
