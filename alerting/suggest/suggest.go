// Package suggest finds the smallest change of a pool's allowlist that an event
// log asks for. It trusts nothing in the log: who is in it may be the one that
// the list is to keep in. A destination is suggested only if several jobs went
// there and no detector spoke of it; everything else is told with its cause.
//
// The way through it: events are decided as enforce would (replay.Judge), what
// is refused is gathered by pool and host (gather), sifted (sift), and written
// as presets, patterns and hosts (presets, collapse, lines).
package suggest

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/alerting/replay"
	"sallyport/allowlists"
)

// Config is what a run needs to know.
type Config struct {
	Sources []*foreignlog.Source
	Spec    allowlists.PolicySpec // of the configuration
	Search  []allowlists.Host     // of dns.search
	Pool    string                // the only pool to look at; "" is all
	MinJobs int                   // that a destination is seen in before it is more than a review; 0 is 2
}

// A Result is what a log asks for.
type Result struct {
	Pools []Pool `json:"pools"` // those with anything to say, by name
	// Decisions counts the events of the log that a pool has a say in. Without
	// any, nothing was looked at.
	Decisions int `json:"decisions"`
	// Unplaced are the events of clients that no pool of the policy has.
	Unplaced Unplaced `json:"unplaced,omitzero"`
	// Unseen counts events of further destinations than are remembered. They
	// are not suggested.
	Unseen int `json:"unseen,omitempty"`
}

// Unplaced says whose events no pool has.
type Unplaced struct {
	Decisions int          `json:"decisions"`
	Clients   []netip.Addr `json:"clients"` // the first few
	More      bool         `json:"more_clients,omitempty"`
}

// A Pool is what one pool asks for.
type Pool struct {
	Pool    string    `json:"pool"`
	Presets []Preset  `json:"presets,omitempty"`
	Allow   []Line    `json:"allow,omitempty"`
	Review  []Line    `json:"review,omitempty"` // a person is to decide
	Left    []LeftOut `json:"left_out,omitempty"`
	// More counts causes to leave something out beyond maxLeft.
	More int `json:"more_left_out,omitempty"`
}

// Evidence is how often, by how many and when something was wanted.
type Evidence struct {
	Count    int       `json:"count"`
	Jobs     int       `json:"jobs"`
	MoreJobs bool      `json:"more_jobs,omitempty"` // there are more than were counted
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
}

// A Preset is a built-in list that covers destinations of the log.
type Preset struct {
	Name     string   `json:"preset"`
	Hosts    []string `json:"hosts"`              // of the log
	Writable []string `json:"writable,omitempty"` // patterns of it where anyone can write
	Evidence
}

// A Line is one line of an allow list.
type Line struct {
	Rule       string   `json:"rule"`                  // host or pattern, with ports that are not 443
	Hosts      []string `json:"hosts,omitempty"`       // of the log, where Rule is a pattern
	ResolvesTo []string `json:"resolves_to,omitempty"` // special addresses that its answers may have
	Writable   bool     `json:"writable,omitempty"`    // anyone can write there
	Preset     string   `json:"preset,omitempty"`      // that has it, too
	Why        string   `json:"why,omitempty"`         // it is for review
	Evidence
}

// A LeftOut is a destination that is not suggested. Target may hold anything: it
// is from the job.
type LeftOut struct {
	Target string `json:"target"`
	Why    string `json:"why"`
	Evidence
}

// Run reads every source to its end.
func Run(ctx context.Context, config Config) (*Result, error) {
	if config.MinJobs == 0 {
		config.MinJobs = 2
	}
	policy, err := replay.Enforced(config.Spec)
	if err != nil {
		return nil, err
	}
	g := newGather(policy, config)
	if err := replay.Each(ctx, config.Sources, g.take); err != nil {
		return nil, err
	}
	result := &Result{Pools: []Pool{}, Decisions: g.decisions, Unplaced: g.unplaced, Unseen: g.unseen}
	for _, name := range slices.Sorted(maps.Keys(g.pools)) {
		if p := g.pools[name].result(policy.Pool(name), &config); len(p.Presets)+len(p.Allow)+len(p.Review)+len(p.Left) > 0 {
			result.Pools = append(result.Pools, p)
		}
	}
	return result, nil
}

// result is what a pool's part of the log asks for.
func (p *poolLog) result(pool *allowlists.Pool, config *Config) Pool {
	s := sift{poolLog: p, pool: pool, config: config}
	s.run()
	out := Pool{Pool: pool.Name()}
	s.wanted, out.Presets = s.choosePresets(s.wanted)
	s.wanted, out.Allow = s.collapse(s.wanted)
	for _, w := range s.wanted {
		out.Allow = append(out.Allow, s.line(w))
	}
	out.Review = s.reviewed(out.Presets)
	slices.SortFunc(out.Allow, byRule)
	slices.SortFunc(out.Review, byRule)
	out.Left = slices.SortedFunc(maps.Values(p.left), byEvidence)
	out.More = p.moreLeft
	return out
}

// isQuestion reports whether an event is a dns event.
func isQuestion(e *alerting.Event) bool { return e.Kind == alerting.KindDNS }
