package alerting

import (
	"sync"
	"time"

	"sallyport/allowlists"
)

// maxRuleHits bounds the rules that are counted; further ones are not.
const maxRuleHits = 1 << 17

// A RuleID names a rule of a pool over reloads, which may move it in its file.
type RuleID struct {
	Pool, Preset, Text string
}

// IDOfRule names a rule of a pool.
func IDOfRule(pool string, r *allowlists.Rule) RuleID { return RuleID{pool, r.Preset, r.Text} }

// A RuleHit is how often a rule decided: questions and connections together.
type RuleHit struct {
	Count int64
	Last  time.Time
}

// ruleHits counts since its start by which rule decisions were made. Safe for
// concurrent use.
type ruleHits struct {
	since time.Time

	mu        sync.Mutex // guards the rest
	hits      map[RuleID]*RuleHit
	uncounted int64
}

func newRuleHits() *ruleHits {
	return &ruleHits{since: time.Now(), hits: make(map[RuleID]*RuleHit)}
}

// count counts the rule of an event, and that of the quiet list, if it decides
// something. It takes the rules out, so that nobody keeps their policy.
func (r *ruleHits) count(e *Event) {
	rules := [...]*allowlists.Rule{e.rules.decided, e.rules.quiet}
	e.rules.decided, e.rules.quiet = nil, nil
	if rules[0] == nil && rules[1] == nil || !decides(e) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rule := range rules {
		if rule != nil {
			r.add(IDOfRule(e.Pool, rule), e.Time)
		}
	}
}

// missed notes a decision that was read back from the log, which has no more of
// its rule than the place.
func (r *ruleHits) missed(e *Event) {
	if e.Rule == "" || !decides(e) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uncounted++
}

// add counts one decision. The caller holds mu.
func (r *ruleHits) add(id RuleID, at time.Time) {
	hit := r.hits[id]
	if hit == nil {
		if len(r.hits) >= maxRuleHits {
			r.uncounted++
			return
		}
		hit = &RuleHit{}
		r.hits[id] = hit
	}
	hit.Count++
	hit.Last = at
}

// A RuleUse says how often the rules asked about decided, since when, and how
// many decisions are in no count.
type RuleUse struct {
	Since     time.Time
	Uncounted int64 // decisions: read back from the log, or by more rules than are counted
	Hits      map[RuleID]RuleHit
}

// RuleUse counts, of the given rules, the decisions of this run of the daemon.
// Rules that decided nothing are not in Hits. Safe for concurrent use.
func (a *Alerting) RuleUse(rules []RuleID) RuleUse {
	r := a.hits
	r.mu.Lock()
	defer r.mu.Unlock()
	use := RuleUse{Since: r.since, Uncounted: r.uncounted, Hits: make(map[RuleID]RuleHit)}
	for _, id := range rules {
		if hit := r.hits[id]; hit != nil {
			use.Hits[id] = *hit
		}
	}
	return use
}
