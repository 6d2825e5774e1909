// Package report tells what left, or tried to leave, in one job, one pool or
// one period, from event logs: connections by destination, refusals with the
// line that would allow them, alerts, what happened to the daemon, rules that
// nothing used, and what the log lacks.
//
// The way through it: events are gathered into tables of bounded size (gather),
// finished into a Report, which is what the JSON shows, laid out as sections
// (view), and written as Markdown or HTML. Nearly every text in a Report may be
// from a job: it is cleaned and escaped where it is written, never before.
package report

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"sallyport/alerting/foreignlog"
	"sallyport/alerting/replay"
	"sallyport/allowlists"
)

// Config is what a run needs to know.
type Config struct {
	Sources []*foreignlog.Source
	Job     string    // a run id, or a client's address; "" is every job
	Pool    string    // "" is every pool
	Since   time.Time // inclusive; zero is the log's begin
	Until   time.Time // exclusive; zero is the log's end
	// Policy tells which rules were not used; nil leaves that out. Search are
	// its suffixes of dns.search.
	Policy *allowlists.Policy
	Search []allowlists.Host
}

// A Report is what a log says of a job, a pool or a period. docs/report.schema.json
// describes its JSON.
type Report struct {
	Version  int    `json:"v"`
	Scope    Scope  `json:"scope"`
	Totals   Totals `json:"totals"`
	Timeline []Slot `json:"timeline"` // in order; slots without an event are left out
	// SlotSeconds is how long each slot is.
	SlotSeconds  int           `json:"slot_seconds"`
	Destinations []Destination `json:"destinations"`
	// More are the connections to further destinations than have rows.
	More         *Traffic  `json:"more_destinations,omitempty"`
	Refusals     []Refusal `json:"refusals"`
	WouldRefuse  []Refusal `json:"would_refuse"`            // let pass by audit alone
	MoreRefusals int       `json:"more_refusals,omitempty"` // events that found no row in either
	Alerts       []Alert   `json:"alerts"`
	MoreAlerts   int       `json:"more_alerts,omitempty"` // that found no row
	System       []System  `json:"system"`
	MoreSystem   int       `json:"more_system,omitempty"` // that found no row
	Unused       []Unused  `json:"unused,omitempty"`      // where a policy was given
	Lacks        []Lack    `json:"lacks"`
}

// A Scope says what a report is about.
type Scope struct {
	Job   string    `json:"job,omitempty"` // as asked for
	Pool  string    `json:"pool,omitempty"`
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	First time.Time `json:"first,omitzero"` // of the events that it has
	Last  time.Time `json:"last,omitzero"`
	Pools []string  `json:"pools"` // of those events, at most maxPools
	// Identity is what the first event of the job says of it.
	Identity *allowlists.Job `json:"identity,omitempty"`
}

// Traffic is what became of connections.
type Traffic struct {
	Connections int   `json:"connections"`
	Allowed     int   `json:"allowed"` // those of audit and those that failed included
	Audit       int   `json:"audit"`   // allowed only as the pool is in audit
	Failed      int   `json:"failed"`  // allowed, and the world could not
	Refused     int   `json:"refused"` // by their first bytes included
	Sent        int64 `json:"sent"`    // bytes, from the job to the world
	Received    int64 `json:"received"`
}

// Totals count everything, also what has no row.
type Totals struct {
	Traffic
	Questions        int            `json:"questions"` // of clients
	RefusedQuestions int            `json:"refused_questions"`
	AuditQuestions   int            `json:"audit_questions"` // answered only as the pool is in audit
	Clients          int            `json:"clients"`
	MoreClients      bool           `json:"more_clients,omitempty"` // there are more than were counted
	Alerts           map[string]int `json:"alerts"`                 // groups by severity
}

// A Slot is what happened in a part of the time.
type Slot struct {
	Start   time.Time `json:"start"`
	Allowed int       `json:"allowed"` // connections, but those of audit alone
	Audit   int       `json:"audit"`
	Refused int       `json:"refused"` // connections and questions
	Alerts  int       `json:"alerts"`
}

// A Destination is where connections went, or wanted to. Host may hold anything.
type Destination struct {
	Pool string     `json:"pool"`
	Host string     `json:"host,omitempty"`
	IP   netip.Addr `json:"ip,omitzero"` // where there is no host
	Port uint16     `json:"port,omitempty"`
	Via  string     `json:"via,omitempty"` // udp, icmp or other, of packets
	Traffic
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Rules []string  `json:"rules,omitempty"` // file:line, as the events have it; at most maxRules
}

// A Refusal is what was refused for one reason, or would be by enforce.
type Refusal struct {
	Pool    string     `json:"pool"`
	Kind    string     `json:"kind"` // "dns" or "conn"
	Host    string     `json:"host,omitempty"`
	Type    string     `json:"type,omitempty"` // of a question that is not for addresses
	IP      netip.Addr `json:"ip,omitzero"`    // where there is no host
	Port    uint16     `json:"port,omitempty"`
	Via     string     `json:"via,omitempty"` // udp, icmp or other, of packets
	Reason  string     `json:"reason"`
	Rule    string     `json:"rule,omitempty"` // that refused it
	Quiet   bool       `json:"quiet,omitempty"`
	Count   int        `json:"count"`
	First   time.Time  `json:"first"`
	Last    time.Time  `json:"last"`
	ID      string     `json:"id"`                 // of the last event
	AllowBy string     `json:"allow_by,omitempty"` // the line that would allow it, where one would do and no grave alert spoke of it
	Alert   string     `json:"alert,omitempty"`    // the alert of severity high or critical that did
	Explain string     `json:"explain,omitempty"`  // the command that tells its story
}

// An Alert is one group as it stood at its last line.
type Alert struct {
	ID       string     `json:"id"`
	Alert    string     `json:"alert"`
	Severity string     `json:"severity"`
	Pool     string     `json:"pool"`
	Client   netip.Addr `json:"client,omitzero"`
	Summary  string     `json:"summary"`
	Host     string     `json:"host,omitempty"`
	IP       netip.Addr `json:"ip,omitzero"`
	Port     uint16     `json:"port,omitempty"`
	Count    int        `json:"count"`
	First    time.Time  `json:"first"`
	Last     time.Time  `json:"last"`
	Evidence []string   `json:"evidence"`
	AllowBy  string     `json:"allow_by,omitempty"`
	Closed   string     `json:"closed,omitempty"`
	Explain  string     `json:"explain,omitempty"`
}

// A System is something that happened to the daemon, or was done to it.
type System struct {
	Time    time.Time      `json:"time"`
	Event   string         `json:"event"`
	Pool    string         `json:"pool,omitempty"`
	Client  netip.Addr     `json:"client,omitzero"`
	Details map[string]any `json:"details,omitempty"`
}

// Run reads every source to its end.
func Run(ctx context.Context, config Config) (*Report, error) {
	sources := slices.Clone(config.Sources)
	slices.SortStableFunc(sources, func(a, b *foreignlog.Source) int { return a.First.Compare(b.First) })
	g := newGather(&config)
	if err := replay.Each(ctx, sources, g.take); err != nil {
		return nil, err
	}
	return g.finish(sources), nil
}

// explainCommand is the command that tells the story of an id; "" if the text
// is none, so that nobody copies what a log forged.
func explainCommand(id string) string {
	if !allowlists.IsID(id) {
		return ""
	}
	return "sallyport explain " + id
}
