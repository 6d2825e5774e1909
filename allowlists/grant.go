package allowlists

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sallyport/allowlists/diag"
)

// The bounds of grants.
const (
	MaxGrants     = 100            // that live at once
	MaxGrantTime  = 24 * time.Hour // what is needed for longer belongs into the configuration
	maxGrantWords = 200            // characters of a reason, and of a name
)

// A Grant lets a pool reach one host and port for a while, outside of the
// configuration: break-glass. It is an allow rule of the pool's own while it
// lasts, so deny lists, special addresses and first bytes are judged as ever.
type Grant struct {
	ID      string    `json:"id"`
	Pool    string    `json:"pool"`
	Host    string    `json:"host"` // HOST:PORT, in canonical form
	Reason  string    `json:"reason"`
	By      string    `json:"by"` // who asked for it, as far as that is known
	Granted time.Time `json:"granted"`
	// Ends has a reading of the monotonic clock in the process that made the
	// grant, so that a clock that is set back does not make it longer.
	Ends time.Time `json:"ends"`
}

// grantFile is what stands for the file in the position of a grant's rule.
const grantFile = "grant:"

// GrantID gives the id of the grant that a rule is; ok is false for a rule of
// the configuration, which stands on some line.
func (r *Rule) GrantID() (id string, ok bool) {
	if r == nil || r.Pos.Line != 0 {
		return "", false
	}
	return strings.CutPrefix(r.Pos.File, grantFile)
}

// NewGrant checks a wish for a grant from now on. target is HOST or HOST:PORT,
// one name without a wildcard; its port is 443 if it has none. The error is a
// finished sentence with its mend.
func NewGrant(policy *Policy, pool, target, reason, by string, now time.Time, lasts time.Duration) (Grant, error) {
	to, err := ParseTarget(target, 443)
	switch {
	case err != nil:
		return Grant{}, fmt.Errorf("%q is no HOST or HOST:PORT (%w)", target, err)
	case to.Addr.IsValid():
		return Grant{}, fmt.Errorf("%s is an address; a grant names a host, and a cidr rule of the configuration allows addresses", to.Addr)
	case lasts <= 0 || lasts > MaxGrantTime:
		return Grant{}, fmt.Errorf("a grant lasts up to %s, such as 1h; what is needed for longer belongs into the configuration", hours(MaxGrantTime))
	}
	if err := plainWords(reason); err != nil {
		return Grant{}, fmt.Errorf("the reason %w", err)
	}
	if err := plainWords(by); err != nil {
		return Grant{}, fmt.Errorf("the name of who asks %w", err)
	}
	p := policy.Pool(pool)
	if p == nil {
		var names []string
		for _, known := range policy.Pools() {
			names = append(names, known.Name())
		}
		return Grant{}, fmt.Errorf("there is no pool %q; %s", pool, meant(pool, names, "pools"))
	}
	if d := p.DecideConn(to.Host, to.Port, now); d.Reason == DeniedByRule {
		return Grant{}, fmt.Errorf("%s denies %s, and %w", d.Rule.Where(), to.Host, errGrantDenied)
	}
	return Grant{ID: NewID(), Pool: pool, Host: to.String(), Reason: reason, By: by, Granted: now, Ends: now.Add(lasts)}, nil
}

func hours(d time.Duration) string { return fmt.Sprintf("%d hours", d/time.Hour) }

// plainWords says what is wrong with words that others will read.
func plainWords(text string) error {
	switch {
	case strings.TrimSpace(text) == "":
		return errors.New("is missing; say in a few words what others should know")
	case utf8.RuneCountInString(text) > maxGrantWords:
		return fmt.Errorf("is longer than %d characters", maxGrantWords)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("has characters that do not print")
	default:
		return nil
	}
}

var errGrantDenied = errors.New("a deny list beats every grant")

// Ended reports whether the grant is over, by the clock that ran since it was
// made or by the time of day, which goes on while a machine sleeps; also if that
// was set back to before it was made.
func (g Grant) Ended(now time.Time) bool {
	return !now.Before(g.Ends) || !now.Round(0).Before(g.Ends.Round(0)) || now.Before(g.Granted)
}

// rule is the grant as a rule of a pool.
func (g Grant) rule(pool *PoolSpec) (Rule, error) {
	to, err := ParseTarget(g.Host, 0)
	if err != nil {
		return Rule{}, err
	}
	pattern, err := ParsePattern(to.Host.String())
	if err != nil {
		return Rule{}, err
	}
	return Rule{
		Text: g.Host, Pos: diag.Pos{File: grantFile + g.ID}, Host: pattern, Ports: NewPortSet(to.Port), ResolvesTo: pool.ResolvesTo,
		Reason: g.Reason, Owner: g.By, Expires: g.Ends,
	}, nil
}

// WithGrants gives a policy that is this one with these grants, and without
// those that it has: itself where there are neither. Grants of pools that it does
// not have are left out. It shares what was compiled: the rules may be many.
func (p *Policy) WithGrants(grants []Grant) (*Policy, error) {
	if len(grants) == 0 && len(p.grantEnds) == 0 {
		return p, nil
	}
	with := *p
	with.grantEnds = nil
	with.pools, with.byName = make([]*Pool, len(p.pools)), make(map[string]*Pool, len(p.pools))
	now := make(map[*Pool]*Pool, len(p.pools)) // by what it was before
	for i, pool := range p.pools {
		var rules []Rule
		for _, g := range grants {
			if g.Pool != pool.Name() {
				continue
			}
			rule, err := g.rule(&pool.spec)
			if err != nil {
				return nil, err
			}
			rules = append(rules, rule)
			with.grantEnds = append(with.grantEnds, g.Ends)
		}
		now[pool] = pool.withGranted(rules)
		with.pools[i], with.byName[pool.Name()] = now[pool], now[pool]
	}
	slices.SortFunc(with.grantEnds, time.Time.Compare)
	with.fallback = now[p.fallback]
	with.sources = make(map[netip.Prefix][]*Pool, len(p.sources))
	for prefix, pools := range p.sources {
		for _, pool := range pools {
			with.sources[prefix] = append(with.sources[prefix], now[pool])
		}
	}
	with.generation = generations.Add(1)
	return &with, nil
}

// withGranted is the pool with other grants: itself where there are neither.
func (p *Pool) withGranted(rules []Rule) *Pool {
	if len(rules) == 0 && p.grants == nil {
		return p
	}
	with := *p
	with.granted, with.grants = rules, nil
	if len(rules) > 0 {
		with.grants = newIndex(rules)
	}
	return &with
}

// keptGrants is what a restart finds.
type keptGrants struct {
	Seen   time.Time   `json:"seen"` // when it was written
	Grants []keptGrant `json:"grants"`
}

type keptGrant struct {
	Grant
	// Left was left when this was written, by the clock that no one sets.
	Left int64 `json:"left_ms"`
}

// EncodeGrants writes grants for ReadGrants, as they are now.
func EncodeGrants(grants []Grant, now time.Time) ([]byte, error) {
	kept := keptGrants{Seen: now.UTC(), Grants: []keptGrant{}}
	for _, g := range grants {
		kept.Grants = append(kept.Grants, keptGrant{g, g.Ends.Sub(now).Milliseconds()})
	}
	return json.MarshalIndent(kept, "", "  ")
}

// MaxGrantBytes is more than EncodeGrants writes of as many grants as there can be.
const MaxGrantBytes = 1 << 20

// ReadGrants reads what EncodeGrants wrote, and checks each as if it was asked
// for when it was made. None has more time left than it had then. Those that the
// policy has no pool for, or denies by now, are over too. After an error there are
// none.
func ReadGrants(text []byte, policy *Policy, now time.Time) (live, over []Grant, err error) {
	var kept keptGrants
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, nil, err
	}
	if len(kept.Grants) > MaxGrants {
		return nil, nil, fmt.Errorf("it has %d grants, and there can be %d", len(kept.Grants), MaxGrants)
	}
	since := max(0, now.Sub(kept.Seen)) // a clock that was set back tells nothing
	known := make(map[string]bool)
	for _, one := range kept.Grants {
		g := one.Grant
		if !IsID(g.ID) || known[g.ID] {
			return nil, nil, fmt.Errorf("%q is no id, or stands there twice", g.ID)
		}
		known[g.ID] = true
		left := min(g.Ends.Sub(now), time.Duration(one.Left)*time.Millisecond-since)
		if left <= 0 || g.Ended(now) || policy.Pool(g.Pool) == nil {
			over = append(over, g)
			continue
		}
		checked, err := NewGrant(policy, g.Pool, g.Host, g.Reason, g.By, g.Granted, g.Ends.Sub(g.Granted))
		switch {
		case errors.Is(err, errGrantDenied):
			over = append(over, g)
		case err != nil:
			return nil, nil, err
		default:
			checked.ID, checked.Ends = g.ID, now.Add(left)
			live = append(live, checked)
		}
	}
	return live, over, nil
}
