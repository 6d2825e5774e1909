//go:build !linux

package main

// vrfOf knows no interfaces: only Linux has VRFs.
func vrfOf(string) (vrf string, ok bool) { return "", false }
