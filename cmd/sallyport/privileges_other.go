//go:build !linux

package main

import "os"

// becomeUser needs Linux.
func (d *daemon) becomeUser() error { return nil }

// dropPrivileges needs Linux.
func (d *daemon) dropPrivileges() error {
	d.privileges = privileges{UID: os.Geteuid(), Capabilities: []string{}, Landlock: "none", Seccomp: "none"}
	return nil
}
