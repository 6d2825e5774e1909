package main

import (
	"net/netip"

	"github.com/spf13/cobra"

	"sallyport/allowlists"
	"sallyport/proxy/firewall"
)

// enforcementFlags are what run and firewall say alike, so that the one applies
// what the other measures.
type enforcementFlags struct {
	firewall firewall.Mode // run: apply this at the start; "" applies nothing
	uid      uint32        // our own user in a sidecar, and the one that run drops to
	cgroup   string        // our own cgroup v2 in a sidecar: a path, or self; "" knows us by the user
	services []string      // gateway: dhcp, ntp
}

// leavesRoot reports whether a start as root goes on as another user.
func (o *runOptions) leavesRoot() bool { return o.firewall != "" || o.uidSaid }

// privileges is what this process may still do, as events and status show it.
type privileges struct {
	UID          int      `json:"uid"`
	Capabilities []string `json:"capabilities"`
	Landlock     string   `json:"landlock"` // its ABI, or none
	Seccomp      string   `json:"seccomp"`  // filter, or none
}

// defaultUID is the user of the container image.
const defaultUID = 65532

// add defines the flags.
func (f *enforcementFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar((*string)(&f.firewall), "firewall", "", "apply this firewall at the start: sidecar or gateway")
	f.addShared(cmd)
}

// addShared defines those that every firewall command has too.
func (f *enforcementFlags) addShared(cmd *cobra.Command) {
	cmd.Flags().Uint32Var(&f.uid, "uid", defaultUID, "`number` of the user to run as after the start as root with --firewall; a sidecar's firewall lets it out")
	cmd.Flags().StringVar(&f.cgroup, "cgroup", "", "in a sidecar, let out by this cgroup v2 instead of by the user: a path such as system.slice/sallyport.service, or self")
	cmd.Flags().StringSliceVar(&f.services, "allow-input", nil, "on a gateway, services of this machine that runners may use: dhcp, ntp")
}

// The port that listen.transparent: auto takes.
const (
	transparentPort       = "3129"
	transparentPortNumber = 3129
)

// A placement is where this daemon stands; "" is explicit: nothing is
// redirected to it.
type placement = firewall.Mode

// placementOf is where a configuration puts the daemon: the mode that the
// command line says, else a gateway if a pool has interfaces or a transparent
// listener stands at an address of the network, else a sidecar if there is a
// transparent listener, else explicit.
func placementOf(said firewall.Mode, settings *allowlists.Settings, policy *allowlists.Policy) placement {
	if said != "" {
		return said
	}
	addrs := append([]string{}, settings.Listen.Transparent...)
	for _, pool := range policy.Pools() {
		addrs = append(addrs, pool.Spec().Listen.Transparent...)
	}
	if len(addrs) == 0 {
		return ""
	}
	for _, pool := range policy.Pools() {
		if len(pool.Spec().Interfaces) > 0 {
			return firewall.Gateway
		}
	}
	for _, addr := range addrs {
		if ap, err := netip.ParseAddrPort(addr); err == nil && !ap.Addr().IsLoopback() && !ap.Addr().IsUnspecified() {
			return firewall.Gateway
		}
	}
	return firewall.Sidecar
}

// placementName is the placement as events, metrics and status name it.
func (d *daemon) placementName() string {
	if d.placement == "" {
		return "explicit"
	}
	return string(d.placement)
}
