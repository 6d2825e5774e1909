package main

import (
	"net/netip"
	"time"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
)

// A statusAnswer is the body of /api/v1/status; docs/control.md has every field.
type statusAnswer struct {
	Version    string           `json:"version"`
	Time       time.Time        `json:"time"`
	State      string           `json:"state"`
	Policy     uint64           `json:"policy"`
	Pools      []poolStatus     `json:"pools"`
	Upstreams  []upstreamStatus `json:"upstreams"`
	Listen     listenStatus     `json:"listen"`
	Sessions   int              `json:"sessions"`
	Enforced   measurement      `json:"enforced"`
	Privileges privileges       `json:"privileges"`
	Grants     []grantAnswer    `json:"grants"`
}

// A poolStatus sums a pool up.
type poolStatus struct {
	Name       string         `json:"name"`
	Mode       string         `json:"mode"`
	Sources    []netip.Prefix `json:"sources"`
	Interfaces []string       `json:"interfaces"`
	Presets    []string       `json:"presets"`
	Rules      int            `json:"rules"` // of allow, those of the presets included
	Deny       int            `json:"deny"`
	Quiet      int            `json:"quiet"`
}

// An upstreamStatus is dnsfilter.UpstreamStatus for a program.
type upstreamStatus struct {
	Name      string    `json:"name"`
	Up        bool      `json:"up"`
	Failures  int       `json:"failures"`
	Retry     time.Time `json:"retry,omitzero"`
	LastError string    `json:"last_error,omitempty"`
}

// listenStatus has the addresses that are bound.
type listenStatus struct {
	Proxy       []string `json:"proxy"`
	Transparent []string `json:"transparent"`
	DNS         []string `json:"dns"`
}

// stateNames are the states of a daemon as status shows them.
var stateNames = map[int32]string{stateStarting: "starting", stateReady: "ready", stateStopping: "stopping"}

// status is what /api/v1/status answers now.
func (d *daemon) status() statusAnswer {
	policy := d.policy.Load()
	answer := statusAnswer{
		Version: version, Time: time.Now().UTC().Truncate(time.Second), State: stateNames[d.state.Load()], Policy: policy.Generation(),
		Pools: []poolStatus{}, Upstreams: []upstreamStatus{},
		Listen: listenStatus{
			Proxy: addrTexts(d.proxy.ListenerAddrs(false)), Transparent: addrTexts(d.proxy.ListenerAddrs(true)), DNS: addrTexts(d.dns.Addrs()),
		},
		Sessions: d.proxy.Status().Sessions, Enforced: d.enforcementStatus(), Privileges: d.privileges, Grants: d.grantAnswers(),
	}
	for _, pool := range policy.Pools() {
		answer.Pools = append(answer.Pools, statusOfPool(pool.Spec()))
	}
	for _, up := range d.dns.Upstreams() {
		answer.Upstreams = append(answer.Upstreams, statusOfUpstream(up))
	}
	return answer
}

func statusOfPool(spec *allowlists.PoolSpec) poolStatus {
	return poolStatus{
		Name: spec.Name, Mode: spec.Mode.String(),
		// A list without items is [], not null.
		Sources: append([]netip.Prefix{}, spec.Sources...), Interfaces: append([]string{}, spec.Interfaces...), Presets: append([]string{}, spec.Presets...),
		Rules: len(spec.Allow), Deny: len(spec.Deny), Quiet: len(spec.Quiet),
	}
}

func statusOfUpstream(up dnsfilter.UpstreamStatus) upstreamStatus {
	return upstreamStatus{Name: up.Name, Up: up.Up, Failures: up.Failures, Retry: up.Retry.UTC(), LastError: up.LastError}
}
