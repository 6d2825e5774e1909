package webui

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// maxRules is how many rules one page shows.
const maxRules = 250

// A poolView sums up a pool.
type poolView struct {
	Name       string
	Mode       string
	Sources    []string
	Interfaces []string
	Presets    []string
	Rules      int
	Unused     int // allow rules that decided nothing since the start
	Deny       int
	Quiet      int
}

// A poolsPage is the list of pools.
type poolsPage struct {
	Pools  []poolView
	Grants []grantView
	Since  time.Time
}

// A grantView is a grant that opens a pool for a while, outside of the
// configuration.
type grantView struct {
	ID, Pool, Text, By, Reason string
	Ends                       time.Time
}

// grantsOf are the grants of a pool that have not ended.
func grantsOf(pool *allowlists.Pool, now time.Time) (grants []grantView) {
	rules := pool.Granted()
	for i := range rules {
		rule := &rules[i]
		if id, ok := rule.GrantID(); ok && !rule.Expired(now) {
			grants = append(grants, grantView{ID: id, Pool: pool.Name(), Text: rule.Text, By: rule.Owner, Reason: rule.Reason, Ends: rule.Expires})
		}
	}
	return grants
}

// pools shows the pools of the policy in force.
func (p *Pages) pools(w http.ResponseWriter, r *http.Request) {
	page := poolsPage{}
	for _, pool := range p.config.Policy().Pools() {
		view, since := p.viewOf(pool)
		page.Pools, page.Since = append(page.Pools, view), since
		page.Grants = append(page.Grants, grantsOf(pool, time.Now())...)
	}
	p.show(w, r, http.StatusOK, "pools", "Pools", page)
}

// viewOf sums up a pool.
func (p *Pages) viewOf(pool *allowlists.Pool) (poolView, time.Time) {
	spec := pool.Spec()
	use := p.useOf(spec.Name, spec.Allow)
	view := poolView{
		Name: spec.Name, Mode: spec.Mode.String(), Interfaces: spec.Interfaces, Presets: spec.Presets,
		Rules: len(spec.Allow), Deny: len(spec.Deny), Quiet: len(spec.Quiet),
	}
	for i := range spec.Allow {
		if use.Hits[alerting.IDOfRule(spec.Name, &spec.Allow[i])].Count == 0 {
			view.Unused++
		}
	}
	for _, source := range spec.Sources {
		view.Sources = append(view.Sources, source.String())
	}
	return view, use.Since
}

// useOf asks how often rules of a pool decided.
func (p *Pages) useOf(pool string, rules []allowlists.Rule) alerting.RuleUse {
	ids := make([]alerting.RuleID, len(rules))
	for i := range rules {
		ids[i] = alerting.IDOfRule(pool, &rules[i])
	}
	return p.config.Events.RuleUse(ids)
}

// A ruleView is a rule with how often it decided.
type ruleView struct {
	List  string // allow, deny, quiet
	Text  string
	Where string
	Of    string // the preset; "" for a rule of the pool's own
	Notes []string
	Hits  int64
	Last  time.Time // zero: never
	Ended bool      // it has expired
}

// A poolPage is a pool with its rules.
type poolPage struct {
	Pool      poolView
	Since     time.Time
	Uncounted int64
	Text      string // that a rule must hold
	Show      string // "", unused, used
	Rules     []ruleView
	Matching  int
	From, To  int    // which of them, from 1
	Before    string // the query of the page before; "" if there is none
	Behind    string
}

// pool shows the effective rules of a pool: its own and those of its presets.
func (p *Pages) pool(w http.ResponseWriter, r *http.Request) {
	pool := p.config.Policy().Pool(r.PathValue("name"))
	if pool == nil {
		p.wrong(w, r, http.StatusNotFound, "The policy in force has no such pool.")
		return
	}
	query := r.URL.Query()
	page := poolPage{Text: strings.ToLower(strings.TrimSpace(query.Get("rule"))), Show: query.Get("show")}
	page.Pool, page.Since = p.viewOf(pool)
	var all []ruleView
	now := time.Now()
	spec := pool.Spec()
	for _, list := range []struct {
		name  string
		rules []allowlists.Rule
	}{{"allow", pool.Granted()}, {"allow", spec.Allow}, {"deny", spec.Deny}, {"quiet", spec.Quiet}} {
		use := p.useOf(spec.Name, list.rules)
		page.Uncounted = use.Uncounted
		for i := range list.rules {
			rule := &list.rules[i]
			hit := use.Hits[alerting.IDOfRule(spec.Name, rule)]
			if page.chooses(rule, hit) {
				all = append(all, viewOfRule(list.name, rule, hit, now))
			}
		}
	}
	page.cut(all, query.Get("from"))
	p.show(w, r, http.StatusOK, "pool", "Pool "+spec.Name, page)
}

// chooses reports whether a rule is among those that are asked for.
func (page *poolPage) chooses(rule *allowlists.Rule, hit alerting.RuleHit) bool {
	if page.Show == "unused" && hit.Count > 0 || page.Show == "used" && hit.Count == 0 {
		return false
	}
	return page.Text == "" || strings.Contains(strings.ToLower(rule.Text+" "+rule.Where()), page.Text)
}

// cut takes the rules of one page.
func (page *poolPage) cut(all []ruleView, from string) {
	first, err := strconv.Atoi(from)
	if err != nil || first < 1 || first > len(all) {
		first = 1
	}
	last := min(first+maxRules-1, len(all))
	page.Matching = len(all)
	if len(all) > 0 {
		page.Rules, page.From, page.To = all[first-1:last], first, last
	}
	link := func(at int) string {
		query := url.Values{"from": {strconv.Itoa(at)}}
		if page.Text != "" {
			query.Set("rule", page.Text)
		}
		if page.Show != "" {
			query.Set("show", page.Show)
		}
		return query.Encode()
	}
	if first > 1 {
		page.Before = link(max(1, first-maxRules))
	}
	if last < len(all) {
		page.Behind = link(last + 1)
	}
}

// viewOfRule is a rule for a person.
func viewOfRule(list string, rule *allowlists.Rule, hit alerting.RuleHit, now time.Time) ruleView {
	v := ruleView{
		List: list, Text: rule.Text, Where: rule.Where(), Of: rule.Preset, Hits: hit.Count, Last: hit.Last, Ended: rule.Expired(now),
	}
	note := func(format string, say bool) {
		if say {
			v.Notes = append(v.Notes, format)
		}
	}
	_, granted := rule.GrantID()
	note("granted, outside of the configuration", granted)
	note("has expired", v.Ended)
	if !rule.Expires.IsZero() && !v.Ended {
		note("until "+rule.Expires.UTC().Format("2006-01-02 15:04 UTC"), true)
	}
	note("TLS required", rule.TLS == allowlists.TLSRequire)
	note("TLS not looked into", rule.TLS == allowlists.TLSOff)
	note("anyone can write there", rule.Writable)
	note("a wildcard that anyone may register under", rule.Anyone)
	note("at most "+sizeText(rule.UploadLimit)+" up", rule.UploadLimit > 0)
	if len(rule.ResolvesTo) > 0 {
		note("may resolve to "+strconv.Itoa(len(rule.ResolvesTo))+" special ranges", true)
	}
	note("owner "+rule.Owner, rule.Owner != "")
	note(rule.Reason, rule.Reason != "")
	return v
}
