package main

import (
	"errors"

	"sallyport/proxy/firewall"
)

// applyFirewall puts the tables of this daemon's placement into the kernel, if
// the command line asks for it.
func (d *daemon) applyFirewall() error {
	if d.options.firewall == "" {
		return nil
	}
	return errors.New("not built yet")
}

// firewallPlan is what the kernel should hold for this daemon.
func (d *daemon) firewallPlan() (*firewall.Plan, error) { return nil, errors.New("not built yet") }
