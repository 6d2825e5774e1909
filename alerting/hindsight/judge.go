package hindsight

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
)

// A judge turns records into the events that the daemon would have recorded.
type judge struct {
	*run
	past *dnsfilter.Past
	// Between these times there were answers to hold connections against; zero
	// if no log shows any.
	answersFrom, answersTo time.Time
	shows                  map[int]bool // the files that showed answers
}

func newJudge(r *run) judge {
	return judge{run: r, past: dnsfilter.NewPast(r.policy, r.config.Search), shows: make(map[int]bool)}
}

// cover notes that a file shows the answers of a time.
func (j *judge) cover(at time.Time, file int) {
	j.shows[file] = true
	if j.answersFrom.IsZero() || at.Before(j.answersFrom) {
		j.answersFrom = at
	}
	if at.After(j.answersTo) {
		j.answersTo = at
	}
}

// covered reports whether a connection can be held against answers.
func (j *judge) covered(at time.Time) bool {
	if j.answersFrom.IsZero() || at.Before(j.answersFrom.Add(-j.config.Skew)) {
		return false
	}
	if !at.After(j.answersTo.Add(j.config.Grace)) {
		return true
	}
	for file := range j.shows { // nobody asked for long, but the log goes on
		if j.merger.goesOn(file) {
			return true
		}
	}
	return false
}

// question judges a question, writes its answer down and tells of it.
func (j *judge) question(q *foreignlog.Query, at time.Time, id string) {
	if slices.Contains(j.config.Askers, q.Client) {
		if host, err := allowlists.HostFromDNS(q.Name); err == nil {
			j.book.add("", host, id, q.Answers, at, at.Add(j.lifetime(q)))
		}
		return
	}
	pool, ok := j.poolOf(q.Client)
	if !ok {
		if host, err := allowlists.HostFromDNS(q.Name); j.config.AnyAsker && err == nil {
			j.book.add("", host, id, q.Answers, at, at.Add(j.lifetime(q)))
		}
		return
	}
	qtype, known := dnsfilter.TypeNumber(q.Type)
	class := q.Class
	if class == 0 {
		class = 1
	}
	mnemonic := dnsfilter.TypeText(qtype)
	if !known {
		mnemonic, qtype = q.Type, 65280 // of those for private use, RFC 6895 section 3.1: no rule lists it by this name
	}
	r := j.past.Judge(pool, q.Name, qtype, class, q.Answers, at)
	e := alerting.Event{
		Kind: alerting.KindDNS, ID: id, Time: at, Pool: pool.Name(), Client: q.Client, By: alerting.ByClient, Name: q.Name, Host: r.Host.String(),
		Type: mnemonic, RCode: q.RCode, CNAMEs: q.CNAMEs, Cached: q.Cached, Upstream: q.Upstream, TTL: q.TTL, Took: q.Took, Search: r.Search,
		Answers: r.Answers, Removed: r.Removed,
	}
	if len(j.config.Resolvers) > 0 && q.Resolver.IsValid() && !slices.Contains(j.config.Resolvers, q.Resolver) {
		e.Resolver = q.Resolver
	}
	d := j.override(r.Decision, q.Refused)
	if d.Reason == allowlists.Allowed {
		d, e.Error = failed(d, q.RCode)
	}
	decided(&e, d)
	j.tell(e)
	if d.Allowed() && len(r.Answers) > 0 && !r.Host.IsZero() {
		key := pool.Name()
		if j.config.AnyAsker {
			key = ""
		}
		j.book.add(key, r.Host, id, r.Answers, at, at.Add(j.lifetime(q)))
	}
}

// lifetime is how long an answer counts.
func (j *judge) lifetime(q *foreignlog.Query) time.Duration {
	ttl := q.TTL
	if ttl == 0 {
		ttl = j.config.TTL
	}
	if j.config.MaxTTL > 0 {
		ttl = min(ttl, j.config.MaxTTL)
	}
	return ttl + j.config.Grace
}

// override puts the log's own refusal in place of a decision, where those count.
func (j *judge) override(d allowlists.Decision, refused bool) allowlists.Decision {
	switch {
	case !j.own:
		return d
	case refused:
		return allowlists.Decision{Reason: allowlists.NotInAllowlist, Quiet: d.Quiet, QuietBy: d.QuietBy}
	case d.Reason == allowlists.SpecialAddress || d.Reason == allowlists.DNSTypeBlocked: // it was not refused
		return allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.AllowedByAudit, Would: d.Reason}
	default:
		return d
	}
}

// failed is a decision for, of which the world made nothing.
func failed(d allowlists.Decision, rcode string) (allowlists.Decision, string) {
	switch rcode {
	case "NXDOMAIN":
		d.Reason = allowlists.NoSuchHost
	case "SERVFAIL", "REFUSED", "FORMERR", "NOTIMP":
		d.Reason = allowlists.UpstreamFailed
	default:
		return d, ""
	}
	return d, "the resolver answered " + rcode
}

// decided puts a decision into an event.
func decided(e *alerting.Event, d allowlists.Decision) {
	e.Verdict, e.Reason, e.Quiet, e.Rule, e.Would = d.Verdict, d.Reason, d.Quiet, d.Rule.Where(), 0
	if d.Reason == allowlists.AllowedByAudit {
		e.Would = d.Would
	}
}

// names lists the names that a pool was answered with for an address, newest
// first, and the id of the question behind the first.
func (j *judge) names(pool *allowlists.Pool, addr netip.Addr, at time.Time) (names []string, dnsID string) {
	if !addr.IsValid() {
		return nil, ""
	}
	known := j.book.at(pool.Name(), addr, at, j.config.Skew)
	for _, n := range j.book.at("", addr, at, j.config.Skew) {
		if pool.DecideName(n.host, at).Allowed() { // else the pool would not have been answered
			known = append(known, n)
		}
	}
	for i, n := range known[:min(len(known), maxNames)] {
		if i == 0 {
			dnsID = n.id
		}
		names = append(names, n.host.String())
	}
	return names, dnsID
}

// measure counts how far a connection is from its answer.
func (j *judge) measure(pool *allowlists.Pool, addr netip.Addr, at time.Time) {
	if !addr.IsValid() {
		return
	}
	if after, ok := j.book.nearest(pool.Name(), addr, at); ok {
		j.offsets.add(after)
	} else if after, ok := j.book.nearest("", addr, at); ok {
		j.offsets.add(after)
	}
}

// literal reads a host that is an address.
func literal(host string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return addr.WithZone("").Unmap(), err == nil
}
