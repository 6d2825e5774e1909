//go:build !linux

package main

import (
	"io"

	"sallyport/proxy/firewall"
)

// startProbe needs Linux.
func startProbe(uint32) (io.Writer, io.Reader, error) { return nil, nil, firewall.ErrUnsupported }

// giveUpEverything needs Linux.
func giveUpEverything() error { return nil }
