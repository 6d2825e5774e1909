//go:build !linux

package proxy

import "net"

// listenKeepingAlive has keepAlive set on each connection that is accepted.
func listenKeepingAlive(config *net.ListenConfig) { config.KeepAliveConfig = keepAlive }
