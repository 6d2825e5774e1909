package main

import (
	"context"
	"net/netip"
)

// An enforcement measures whether the firewall stands. Its methods are safe
// for concurrent use.
type enforcement struct{}

// prepareEnforcement starts what measuring needs while the daemon may still do
// everything: the child that probes by effect, under another user.
func (d *daemon) prepareEnforcement() error { return nil }

// measureEnforcement measures until ctx ends, and says in metric, event and
// status what it finds.
func (d *daemon) measureEnforcement(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// probedConn reports whether a redirected connection is a probe of ours, which
// is closed without a record.
func (e *enforcement) probedConn(netip.AddrPort) bool { return false }

// probedName reports whether a question is a probe of ours, which is refused
// without a record.
func (e *enforcement) probedName(string) bool { return false }

// enforcementStatus is what /api/v1/status says of it.
func (d *daemon) enforcementStatus() map[string]any {
	return map[string]any{"placement": "explicit", "enforced": false, "measured": "nothing: explicit mode leaves enforcement to the network around the job"}
}
