package hindsight

import (
	"net/netip"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/allowlists"
)

// takeOwn takes a line of our own event log. Without a policy it counts as it
// is; with one the question or connection is judged again. Alerts of then are
// left out: they are to be found anew.
func (r *run) takeOwn(line []byte, file int) error {
	e, err := alerting.ParseEvent(line)
	if err != nil {
		return nil // a line of another version; Stats cannot know
	}
	switch e.Kind {
	case alerting.KindDNS:
		r.summary.Questions++
		r.judge.cover(e.Time, file)
	case alerting.KindConn:
		if e.Phase == alerting.PhaseOpen || e.Phase == alerting.PhaseRefused {
			r.summary.Connections++
		}
	default:
		return nil
	}
	if r.own {
		r.tell(e)
		return nil
	}
	if e.Kind == alerting.KindDNS {
		q := questionOf(&e)
		if e.By == alerting.ByProxy && e.Refused() {
			return nil
		}
		r.judge.question(q, e.Time, e.ID)
		return nil
	}
	if c := connOf(&e); c != nil {
		if s, fresh := r.parts.add(c, e.Time, e.ID); fresh {
			r.queue.push(entry{at: e.Time, session: s})
		}
	}
	return nil
}

// questionOf is a dns event as a question to be judged again.
func questionOf(e *alerting.Event) *foreignlog.Query {
	q := &foreignlog.Query{
		Client: e.Client, Name: e.Name, Type: e.Type, RCode: e.RCode, Answers: append(append([]netip.Addr(nil), e.Answers...), e.Removed...),
		CNAMEs: e.CNAMEs, Took: e.Took, Cached: e.Cached, Upstream: e.Upstream,
	}
	if e.Refused() {
		q.RCode = ""
	}
	return q
}

// connOf is a conn event as a connection to be judged again; nil for one that
// says nothing new.
func connOf(e *alerting.Event) *foreignlog.Conn {
	c := &foreignlog.Conn{
		Client: e.Client, ClientPort: e.ClientPort, Via: e.Via, Explicit: e.Via == foreignlog.ViaConnect || e.Via == foreignlog.ViaHTTP,
		Host: e.Host, Port: e.Port, IP: e.IP, TLS: e.SNI != "" || e.Reason == allowlists.SNIMissing, SNI: e.SNI, ALPN: e.ALPN, Method: e.Method,
		UID: "event " + e.ID, Error: e.Error,
	}
	if e.Redialled {
		c.IP = e.Original
	}
	switch e.Phase {
	case alerting.PhaseOpen, alerting.PhaseRefused:
		return c
	case alerting.PhaseClose:
		c.Part, c.Sent, c.Received, c.Took = foreignlog.Flow, e.Sent, e.Received, e.Took
		return c
	default:
		return nil
	}
}
