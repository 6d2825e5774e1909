package alerting

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// perDestination are the alerts that open a group for each destination, so that
// a job can open as many as it likes: those of one client fold. The words say
// what became of the destinations. The groups of all other alerts are few
// whatever a job does: one per client, day, or cause.
var perDestination = map[string]string{
	AlertDeniedEgress:    "destinations were refused to",
	AlertDirectIP:        "addresses that no answer gave were tried by",
	AlertSNIMismatch:     "hosts were asked for, and others named, by",
	AlertAddressMismatch: "hosts were claimed at addresses they never had by",
	AlertDNSTunnel:       "domains had data written into their names by",
	AlertForeignResolver: "resolvers were wanted by",
	AlertRebinding:       "names were answered with special addresses to",
	AlertLookalike:       "domains that look like allowed ones were asked for by",
	AlertFirstSeen:       "allowed but new destinations were reached by",
	AlertUploadVolume:    "hosts were sent more than usual or allowed by",
}

// gathers are the alerts whose groups stand for many destinations from their
// first finding on, and count them as a folded group does. The words say what
// became of the destinations.
var gathers = map[string]string{
	AlertScan:           "destinations that are not allowed were tried, as a scan does, by",
	AlertResolvedUnused: "names were asked for and never connected to by",
}

// The bounds of folded groups.
const (
	foldSeen      = 4096  // destinations that one folded group tells apart
	foldSeenTotal = 65536 // of all folded groups together, besides those that they list
)

// A fold makes a group stand for several: those of one client, or those of one
// alert and pool when there were too many; or for the destinations of gathers. Seen holds 8 bytes for each
// destination that was counted, sorted by time.
type fold struct {
	Groups int    `json:"groups"` // that folded into it
	Seen   []byte `json:"seen,omitempty"`

	seen map[uint64]bool // Seen as a set; made when needed
	room *int            // what is left of foldSeenTotal
	list int             // destinations to list
}

// addDestinations counts those of a finding.
func (g *group) addDestinations(f *finding) {
	for _, name := range f.destinations {
		g.addDestination(name)
	}
	if len(f.destinations) == 0 {
		g.addDestination(f.subject)
	}
}

// addDestination counts a destination that the group stands for, once.
func (g *group) addDestination(name string) {
	f := g.Fold
	f.index()
	sum := destinationHash(name)
	if f.seen[sum] {
		return
	}
	if len(f.seen) >= foldSeen || *f.room <= 0 && len(g.Destinations) >= f.list {
		g.More = true
		return
	}
	*f.room--
	f.seen[sum] = true
	f.Seen = binary.BigEndian.AppendUint64(f.Seen, sum)
	g.DestinationCount++
	if len(g.Destinations) < f.list {
		name, _ = cut(name, 253)
		g.Destinations = append(g.Destinations, name)
	}
	g.describeFold()
}

// destinationHash is FNV-1a, as the store has it.
func destinationHash(name string) uint64 {
	sum := uint64(14695981039346656037)
	for i := range len(name) {
		sum = (sum ^ uint64(name[i])) * 1099511628211
	}
	return sum
}

// index makes the set from what the store has.
func (f *fold) index() {
	if f.seen != nil {
		return
	}
	f.seen = make(map[uint64]bool, len(f.Seen)/8)
	for rest := f.Seen; len(rest) >= 8; rest = rest[8:] {
		f.seen[binary.BigEndian.Uint64(rest)] = true
	}
}

// describeFold writes the summary of a folded group.
func (g *group) describeFold() {
	who := "several clients"
	switch len(g.Clients) {
	case 0:
		who = "unknown clients"
	case 1:
		who = cmp.Or(g.Client, g.Clients[0]).String()
	}
	more := ""
	if g.More {
		more = "more than "
	}
	if words := cmp.Or(gathers[g.Alert.Alert], perDestination[g.Alert.Alert]); words != "" {
		g.Summary = fmt.Sprintf("%s%d %s %s in %s", more, g.DestinationCount, words, who, poolName(g.Pool))
		if gathers[g.Alert.Alert] != "" && len(g.Destinations) > 0 {
			g.Summary += ", " + g.Destinations[0] + " first"
		}
		return
	}
	g.Summary = fmt.Sprintf("%s: %s%d subjects, %s, in %s", g.Alert.Alert, more, g.DestinationCount, who, poolName(g.Pool))
}

// foldInto moves groups into the group with the given key, which is opened if
// it is not. Nothing is counted twice or lost: what a sink was told of the
// members it was told of the fold, and what is under way to it will be.
func (s *groups) foldInto(key string, members []*group) *group {
	into := s.open[key]
	if into == nil {
		first := members[0]
		f := finding{
			alert: first.Alert.Alert, severity: first.Severity, pool: first.Pool, client: first.owner(), asker: first.Client, job: first.Job,
			evidence: first.Evidence[:min(1, len(first.Evidence))], time: first.First, reason: first.Reason,
		}
		into = newGroup(key, &f, first.Opened)
		into.Fold = &fold{room: &s.foldRoom, list: s.limits.foldListed}
		s.insert(into)
	}
	for _, g := range members {
		s.absorb(into, g)
	}
	into.describeFold()
	s.touch(into)
	return into
}

// absorb moves one group into a folded one.
func (s *groups) absorb(into, g *group) {
	into.Count += g.Count
	into.Severity = max(into.Severity, g.Severity)
	if g.First.Before(into.First) {
		into.First = g.First
	}
	if g.Last.After(into.Last) {
		into.Last = g.Last
	}
	if g.Touched.After(into.Touched) {
		into.Touched = g.Touched
	}
	into.addEvidence(g.Evidence)
	for _, client := range g.Clients {
		into.addClient(client)
	}
	for sink, told := range g.Shares {
		into.share(sink).Told += told.Told
	}
	into.Fold.Groups++
	if g.Fold == nil {
		into.addDestination(s.subjectOf(g))
	} else {
		into.More = into.More || g.More
		for _, name := range g.Destinations {
			into.addDestination(name)
		}
		if g.DestinationCount > len(g.Destinations) {
			into.More = true
		}
	}
	into.Tried.join(g.Tried)
	s.repoint(g.Key, into.Key)
	s.remove(g)
}

// subjectOf is what a group's key says besides alert and pool.
func (s *groups) subjectOf(g *group) string {
	prefix := g.Alert.Alert + "/" + g.Pool + "/"
	return g.Key[min(len(prefix), len(g.Key)):]
}

// A foldOf is what the groups have in common that fold into one: alert, owner
// and severity. A client that is not known stands for all of its pool that are not.
type foldOf struct {
	alert    string
	client   clientOf
	severity Severity
}

// key names the folded group. Info stays apart: rebinding is info where an
// upstream filters, and must not fill the list of what is high.
func (of foldOf) key() string { return string(of.appendKey(nil)) }

func (of foldOf) appendKey(b []byte) []byte {
	b = append(append(b, of.alert...), '/')
	b = append(append(b, of.client.pool...), "/client "...)
	if of.client.key.IsValid() {
		b = of.client.key.AppendTo(b)
	} else {
		b = append(b, "unknown"...)
	}
	if of.severity == Info {
		b = append(b, " (info)"...)
	}
	return b
}

func (f *finding) foldOf() foldOf { return foldOf{f.alert, clientOf{f.pool, f.client}, f.severity} }

func (g *group) foldOf() foldOf {
	return foldOf{g.Alert.Alert, clientOf{g.Pool, g.owner()}, g.Severity}
}

// foldable reports whether the group may fold with others of its client:
// critical ones never do, nor what is a fold already.
func (g *group) foldable() bool {
	return perDestination[g.Alert.Alert] != "" && g.Fold == nil && g.Severity < Critical && g.Closed == ""
}

// foldClient folds the groups of one alert and client, if there are more than
// there may be, and reports whether it did.
func (s *groups) foldClient(of foldOf) bool {
	keys := s.owned[of]
	if len(keys) <= s.limits.foldGroups {
		return false
	}
	members := make([]*group, 0, len(keys))
	for key := range keys {
		members = append(members, s.open[key])
	}
	slices.SortFunc(members, func(a, b *group) int {
		return cmp.Or(a.First.Compare(b.First), a.Opened.Compare(b.Opened), cmp.Compare(a.Key, b.Key))
	})
	s.foldInto(of.key(), members)
	return true
}

// spillKey names the group into which an alert's groups of one pool fold when
// there are too many. No subject is "*".
func spillKey(alert, pool string) string { return alert + "/" + pool + "/*" }
