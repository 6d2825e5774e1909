//go:build !linux

package dnsfilter

import (
	"errors"
	"syscall"
)

// byDevice needs Linux.
func byDevice(iface string) func(network, address string, c syscall.RawConn) error {
	return func(string, string, syscall.RawConn) error {
		if iface == "" {
			return nil
		}
		return errors.New("listening on one interface needs Linux")
	}
}
