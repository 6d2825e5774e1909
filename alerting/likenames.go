package alerting

import (
	"slices"

	"sallyport/allowlists"
)

// LikeNames finds, among names that nobody has allowed yet, those that might be
// taken for another: the alert lookalike knows only what a pool allows. It never
// changes.
type LikeNames struct {
	known   *lookalikes
	genuine map[likeDomain]bool // domains that a rule names
}

// likeLeast is how many letters a domain has, at least, that LikeNames looks at:
// the default of alerts.thresholds.lookalike_min_letters.
const likeLeast = 5

// NewLikeNames indexes hosts, what a pool allows, and what presets do.
func NewLikeNames(hosts []allowlists.Host, pool *allowlists.Pool) *LikeNames {
	l := &LikeNames{known: &lookalikes{}, genuine: make(map[likeDomain]bool)}
	seen := make(map[likeDomain]bool)
	add := func(host string, genuine bool) {
		d, ok := registrable(host)
		if ok && genuine {
			l.genuine[d] = true
		}
		if ok && !seen[d] && len(l.known.domains) < likePlaces {
			seen[d] = true
			l.known.add(d)
		}
	}
	for _, rules := range [][]allowlists.Rule{pool.Spec().Allow, pool.Granted(), allowlists.PresetRules()} {
		for i := range rules {
			add(rules[i].Host.Base(), true)
		}
	}
	for _, host := range hosts {
		add(host.String(), false)
	}
	slices.Sort(l.known.index)
	return l
}

// Of gives the domain, in canonical form, that a host's might be taken for; false if there is none,
// or a rule of the pool or of a preset names the host's own.
func (l *LikeNames) Of(host allowlists.Host) (domain string, ok bool) {
	d, ok := registrable(host.String())
	if !ok || l.genuine[d] {
		return "", false
	}
	like, _, ok := l.known.alike(d, likeLeast)
	if _, err := allowlists.ParseHost(like.String()); ok && err != nil {
		return "another", true
	}
	return like.String(), ok
}
