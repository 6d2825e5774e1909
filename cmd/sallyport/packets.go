package main

import "context"

// openPackets opens the log of what the firewall refused, while the daemon may
// still do that.
func (d *daemon) openPackets() error { return nil }

// watchPackets makes events of what the firewall refused, until ctx ends.
func (d *daemon) watchPackets(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
