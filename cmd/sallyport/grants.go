package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// grants are what was let out past the configuration, each for a while. The
// policy that serves has them as rules, whatever is reloaded.
type grants struct {
	mu   sync.Mutex // held over every change of the policy that serves
	live []allowlists.Grant
	path string    // of the file that keeps them; "" for none
	kept time.Time // when that was written last
	// To be told once the log is open: which hold from before, which ended while no
	// daemon ran, and why kept ones do not hold.
	recalled, over []allowlists.Grant
	lost           string
}

// grantsFile is what keeps grants, in alerts.state_dir.
const grantsFile = "grants.json"

// Why a grant is over, in events.
const (
	grantTime    = "time"
	grantRemoved = "removed"
	grantPolicy  = "policy"
	grantState   = "state"
)

// keepGrantsEvery is how often what is left of grants is kept.
const keepGrantsEvery = time.Minute

// recallGrants brings back the grants of before a restart. A file that cannot
// be read is set aside, and grants nothing.
func (d *daemon) recallGrants() error {
	if d.settings.Alerts.StateDir == "" {
		return nil
	}
	g := &d.grants
	g.mu.Lock()
	defer g.mu.Unlock()
	g.path = filepath.Join(d.settings.Alerts.StateDir, grantsFile)
	text, err := readGrants(g.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	now := time.Now()
	if err == nil {
		g.live, g.over, err = allowlists.ReadGrants(text, d.policy.Load(), now)
	}
	var policy *allowlists.Policy
	if err == nil {
		policy, err = d.policy.Load().WithGrants(g.live)
	}
	if err == nil {
		g.recalled = g.live
		d.serveGranted(policy)
	} else {
		g.live, g.over = nil, nil
		g.lost = fmt.Sprintf("reading %s: %v", g.path, errors.Join(err, setGrantsAside(g.path, now)))
		d.log.Error().Str("error", g.lost).Msg("what was granted before does not hold; grant it again if it is still needed")
	}
	return nil
}

// tellGrants says in the event log what became of kept grants.
func (d *daemon) tellGrants() {
	now := time.Now()
	for _, one := range d.grants.recalled {
		d.alerts.System(alerting.SystemGranted, grantDetails(one, true))
	}
	for _, one := range d.grants.over {
		why := grantPolicy
		if one.Ended(now) {
			why = grantTime
		}
		d.alerts.System(alerting.SystemGrantEnded, map[string]any{"id": one.ID, "pool": one.Pool, "host": one.Host, "why": why})
	}
	if d.grants.lost != "" {
		d.alerts.System(alerting.SystemGrantEnded, map[string]any{"why": grantState, "error": d.grants.lost})
	}
}

// errGrantsFull says that there are as many grants as there may be.
var errGrantsFull = fmt.Errorf("%d grants hold already; remove one, or write what is needed into the configuration", allowlists.MaxGrants)

// grant lets a pool out. What could not be kept is not granted. Safe for concurrent use.
func (d *daemon) grant(pool, target, reason, by string, lasts time.Duration) (allowlists.Grant, error) {
	g := &d.grants
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.live) >= allowlists.MaxGrants {
		return allowlists.Grant{}, errGrantsFull
	}
	granted, err := allowlists.NewGrant(d.policy.Load(), pool, target, reason, by, time.Now(), lasts)
	if err != nil {
		return allowlists.Grant{}, err
	}
	before := g.live
	g.live = append(slices.Clone(before), granted)
	policy, err := d.policy.Load().WithGrants(g.live)
	if err == nil {
		err = g.keep(time.Now())
	}
	if err != nil {
		g.live = before
		return allowlists.Grant{}, err
	}
	d.alerts.System(alerting.SystemGranted, grantDetails(granted, false))
	d.log.Warn().Str("id", granted.ID).Str("pool", pool).Str("host", granted.Host).Str("by", by).Time("ends", granted.Ends).Msg("granted for a while")
	d.serveGranted(policy)
	return granted, nil
}

// grantDetails are those of the event granted; recalled says that it holds from
// before a restart.
func grantDetails(g allowlists.Grant, recalled bool) map[string]any {
	details := map[string]any{
		"id": g.ID, "pool": g.Pool, "host": g.Host, "ends": g.Ends.UTC().Format(time.RFC3339), "reason": g.Reason, "by": g.By,
	}
	if recalled {
		details["recalled"] = true
	}
	return details
}

// endGrants ends those grants for which over gives why. by is who ended them,
// "" where nobody did. It reports how many. Where somebody did and that cannot be
// kept, so that a restart would bring them back, none ends, and the error says so.
func (d *daemon) endGrants(over func(allowlists.Grant) (why string), by string) (int, error) {
	g := &d.grants
	g.mu.Lock()
	defer g.mu.Unlock()
	reasons := make(map[string]string)
	var ended, live []allowlists.Grant
	for _, one := range g.live {
		if why := over(one); why != "" {
			reasons[one.ID] = why
			ended = append(ended, one)
		} else {
			live = append(live, one)
		}
	}
	if len(ended) == 0 {
		return 0, nil
	}
	before := g.live
	g.live = live
	policy, err := d.policy.Load().WithGrants(live)
	if err == nil {
		err = g.keep(time.Now())
	}
	switch {
	case err != nil && (by != "" || policy == nil):
		g.live = before
		return 0, err
	case err != nil: // time and the policy would end them after a restart, too
		d.log.Error().Err(err).Msg("ending what was granted")
	}
	d.serveGranted(policy)
	for _, one := range ended {
		details := map[string]any{"id": one.ID, "pool": one.Pool, "host": one.Host, "why": reasons[one.ID]}
		if by != "" {
			details["by"] = by
		}
		d.alerts.System(alerting.SystemGrantEnded, details)
	}
	return len(ended), nil
}

// expireGrants ends those whose time is over.
func (d *daemon) expireGrants(now time.Time) {
	_, err := d.endGrants(func(g allowlists.Grant) string {
		if g.Ended(now) {
			return grantTime
		}
		return ""
	}, "")
	if err != nil {
		d.log.Error().Err(err).Msg("ending what was granted") // its rule has ended by itself
	}
}

// serveGranted makes a policy with other grants the one that serves. mu is held.
func (d *daemon) serveGranted(policy *allowlists.Policy) {
	d.policy.Store(policy)
	d.metrics.policyLoaded(policy)
	d.policyChanged()
}

// adopt makes a policy from the configuration the one that serves, with what is
// granted, and ends the grants that it has no pool for.
func (d *daemon) adopt(policy *allowlists.Policy) (*allowlists.Policy, error) {
	d.grants.mu.Lock()
	policy, err := policy.WithGrants(d.grants.live)
	if err == nil {
		d.policy.Store(policy)
	}
	d.grants.mu.Unlock()
	if err == nil {
		_, err = d.endGrants(func(g allowlists.Grant) string {
			if policy.Pool(g.Pool) == nil {
				return grantPolicy
			}
			return ""
		}, "")
	}
	return policy, err
}

// list gives the grants that hold.
func (g *grants) list() []allowlists.Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]allowlists.Grant{}, g.live...)
}

// expireRules tells the parts when a rule has reached its end, so that what it
// alone allowed is closed within a second, and ends grants.
func (d *daemon) expireRules(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			d.grants.keepOn(time.Now(), 0, d.log)
			return nil
		case now := <-tick.C:
			if d.policy.Load().ExpiresBetween(last, now) {
				d.policyChanged()
			}
			d.expireGrants(now)
			d.grants.keepOn(now, keepGrantsEvery, d.log)
			last = now
		}
	}
}
