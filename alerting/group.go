package alerting

import (
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The times and bounds of groups.
const (
	firstHold      = 500 * time.Millisecond // how long findings below high gather before the first message
	quietIntervals = 6                      // a group closes after this many group_intervals without a finding
	groupClients   = 16                     // clients that a group names
	defaultGroups  = 4096                   // open groups; more fold
	criticalGroups = 1024                   // open critical groups; more share one per pool
)

// logSinkName is the event log as the queue sees it: a sink that takes every
// alert at once.
const logSinkName = "log"

// logMost is how many groups the event log is told of at once.
const logMost = 1024

// A group is what findings with one key come to, from the first until
// nothing came for a while and everybody who wants to know was told.
//
//	open -> told (first message) -> told again (digests) -> closed
//	  |\-> allowed by a later policy: those that were told are told so -> closed
//	  \--> folded into another group, which takes over its counts
//
// It belongs to groups, and is kept in the store as JSON.
type group struct {
	Alert
	Clients []netip.Addr      `json:"clients,omitempty"` // at most groupClients; the first owns the group
	Opened  time.Time         `json:"opened"`
	Touched time.Time         `json:"touched"` // the latest finding, by our clock
	Shares  map[string]*share `json:"shares"`  // by sink; one that is missing was told nothing
	Fold    *fold             `json:"fold,omitempty"`
	Tried   attempts          `json:"tried,omitzero"`
}

// A share is what one sink was told of a group.
type share struct {
	Told     int       `json:"told"`            // findings
	Messages int       `json:"messages"`        // messages
	Severity Severity  `json:"severity"`        // at the last message
	Next     time.Time `json:"next"`            // no digest before
	At       time.Time `json:"at"`              // the latest message
	Closed   bool      `json:"closed,omitzero"` // that the group is closed
}

// groupKey names the group of a finding.
func (f *finding) groupKey() string {
	return string(f.appendGroupKey(nil))
}

func (f *finding) appendGroupKey(b []byte) []byte {
	b = append(append(b, f.alert...), '/')
	b = append(append(b, f.pool...), '/')
	return append(b, f.subject...)
}

// newGroup opens a group with its first finding. Its id comes from the key and
// the first evidence, so that reading the log again after a crash gives the same.
func newGroup(key string, f *finding, now time.Time) *group {
	f.spell()
	id := sha256.Sum256([]byte(key + "\x00" + strings.Join(f.evidence, " ") + "\x00" + f.time.UTC().Format(time.RFC3339Nano)))
	g := &group{
		Alert: Alert{
			ID: groupID.EncodeToString(id[:8])[:12], Alert: f.alert, Severity: f.severity, Key: key, Pool: f.pool, Client: f.asker,
			Job: f.job, Reason: f.reason, First: f.time, Last: f.time, Host: f.host, Port: f.port, IP: f.ip,
			Suggest: f.suggest,
		},
		Opened: now, Shares: make(map[string]*share),
	}
	g.Summary, _ = cut(f.summary, maxAlertText)
	g.addClient(f.client)
	return g
}

// owner is the client that the group counts as one of; zero if it is not known.
func (g *group) owner() netip.Addr {
	if !g.Client.IsValid() || len(g.Clients) == 0 {
		return netip.Addr{}
	}
	return g.Clients[0]
}

// groupID writes ids as allowlists.NewID does.
var groupID = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// add counts a finding.
func (g *group) add(f *finding, now time.Time) {
	g.Count++
	g.Touched = now
	g.Tried.note(f)
	if f.time.Before(g.First) {
		g.First = f.time
	}
	if f.time.After(g.Last) {
		g.Last = f.time
	}
	if f.severity > g.Severity {
		f.spell()
		g.Severity = f.severity
		g.Summary, _ = cut(f.summary, maxAlertText)
	}
	if g.Port == 0 && f.port != 0 && g.Fold == nil { // the connection after its question
		f.spell()
		g.Port, g.Suggest, g.Reason = f.port, f.suggest, f.reason
		g.Summary, _ = cut(f.summary, maxAlertText)
	}
	if !g.IP.IsValid() && g.Fold == nil {
		g.IP = f.ip
	}
	g.addEvidence(f.evidence)
	g.addClient(f.client)
	if g.Fold != nil {
		g.addDestinations(f)
	}
}

func (g *group) addClient(client netip.Addr) {
	if client.IsValid() && len(g.Clients) < groupClients && !slices.Contains(g.Clients, client) {
		g.Clients = append(g.Clients, client)
	}
}

// snapshot is the alert as it stands, not shared with g.
func (g *group) snapshot() Alert {
	a := g.Alert
	a.Key, _, _ = strings.Cut(a.Key, closedMark)
	a.Evidence, a.Destinations = slices.Clone(g.Evidence), slices.Clone(g.Destinations)
	return a
}

// share is what a sink was told; made if it is missing.
func (g *group) share(sink string) *share {
	s := g.Shares[sink]
	if s == nil {
		s = &share{}
		g.Shares[sink] = s
	}
	return s
}

// untold is how many findings a sink does not know of.
func (g *group) untold(sink string) int {
	if s := g.Shares[sink]; s != nil {
		return g.Count - s.Told
	}
	return g.Count
}

// dueAt is when a sink is to be told what it does not know: soon for a new
// group and for one that became more severe, else with the next digest.
func (g *group) dueAt(sink string) time.Time {
	s := g.Shares[sink]
	switch {
	case g.Closed != "":
		return g.Opened
	case s == nil || s.Messages == 0:
		if g.Severity >= High {
			return g.Opened
		}
		return g.Opened.Add(firstHold)
	case g.Severity > s.Severity:
		return g.Opened
	default:
		return s.Next
	}
}

// told notes that a message about the group went to a sink.
func (g *group) told(sink string, of *item, times groupTimes, now time.Time) {
	s := g.share(sink)
	s.Told += of.New
	s.Messages++
	s.Closed = of.Closed != ""
	s.Severity = max(s.Severity, of.Severity)
	s.At = now
	s.Next = now.Add(times.interval)
	if first := g.Opened.Add(times.firstDigest); s.Messages == 1 && now.Before(first) {
		s.Next = first
	}
}

// groupTimes are the times of alerts that configuration sets.
type groupTimes struct{ firstDigest, interval time.Duration }

// quiet is how long a group stays open without a finding.
func (t groupTimes) quiet() time.Duration { return quietIntervals * t.interval }
