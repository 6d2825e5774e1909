package report

import (
	"cmp"
	"net/netip"
	"slices"

	"sallyport/alerting"
)

// takeSystem takes an event of the daemon's own, of whatever name. Of a job's
// report it keeps what came after the job's first event, and the start before.
func (g *gather) takeSystem(e *alerting.Event) {
	if !g.inPool(e) && e.Pool != "" || e.Client.IsValid() && !g.ofJob(e) {
		return
	}
	s := System{Time: e.Time, Event: e.Event, Pool: e.Pool, Client: e.Client, Details: e.Details}
	switch {
	case g.config.Job != "" && g.report.Scope.First.IsZero():
		if e.Event == "started" {
			g.system = []System{s}
		}
	case len(g.system) < maxSystem:
		g.system = append(g.system, s)
	default:
		g.report.MoreSystem++
	}
}

// systemOfScope lists what was kept, in order, without what came after a job.
func (g *gather) systemOfScope() []System {
	list := []System{}
	for _, s := range g.system {
		if g.config.Job == "" || !s.Time.After(g.report.Scope.Last) {
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(a, b System) int { return a.Time.Compare(b.Time) })
	return list
}

// Unused are the allow rules of a pool that nothing in the report used.
type Unused struct {
	Pool string `json:"pool"`
	Mode string `json:"mode"`
	// Silent is set if no event of the report is of this pool; then nothing is
	// said of its rules.
	Silent  bool           `json:"silent,omitempty"`
	Own     int            `json:"own"`   // rules of the pool's own
	Rules   []UnusedRule   `json:"rules"` // those of them that are unused, at most maxUnused
	More    int            `json:"more_rules,omitempty"`
	Presets []UnusedPreset `json:"presets"` // those with unused rules, in the order of the policy
}

// maxUnused bounds the unused rules that are listed of a pool.
const maxUnused = 1000

// An UnusedRule is a line of the policy.
type UnusedRule struct {
	Rule  string `json:"rule"`
	Where string `json:"where"` // file:line
	Owner string `json:"owner,omitempty"`
}

// An UnusedPreset sums up the rules of a preset.
type UnusedPreset struct {
	Preset string `json:"preset"`
	Rules  int    `json:"rules"`
	Used   int    `json:"used"`
}

// unused finds the rules of each pool in scope that nothing used.
func (g *gather) unused() []Unused {
	list := []Unused{}
	for _, pool := range g.config.Policy.Pools() {
		if g.config.Pool != "" && pool.Name() != g.config.Pool {
			continue
		}
		u := Unused{Pool: pool.Name(), Mode: pool.Spec().Mode.String(), Rules: []UnusedRule{}, Presets: []UnusedPreset{}}
		if u.Silent = !g.judged[pool.Name()]; u.Silent {
			list = append(list, u)
			continue
		}
		presets := make(map[string]*UnusedPreset)
		order := []string{}
		for i := range pool.Spec().Allow {
			rule := &pool.Spec().Allow[i]
			used := g.used[rule]
			if rule.Preset != "" {
				p := presets[rule.Preset]
				if p == nil {
					p = &UnusedPreset{Preset: rule.Preset}
					presets[rule.Preset], order = p, append(order, rule.Preset)
				}
				p.Rules++
				if used {
					p.Used++
				}
				continue
			}
			u.Own++
			switch {
			case used:
			case len(u.Rules) < maxUnused:
				u.Rules = append(u.Rules, UnusedRule{rule.Text, rule.Where(), rule.Owner})
			default:
				u.More++
			}
		}
		for _, name := range order {
			if p := presets[name]; p.Used < p.Rules {
				u.Presets = append(u.Presets, *p)
			}
		}
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b Unused) int { return cmp.Compare(a.Pool, b.Pool) })
	return list
}

// joinPort is host:port, with brackets where an address needs them.
func joinPort(host string, port uint16) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(addr, port).String()
	}
	return host + ":" + portText(port)
}
