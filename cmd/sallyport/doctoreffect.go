package main

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// effectTime is how long doctor waits for an answer. A refusal comes at once.
const effectTime = time.Second

// dialOnce connects and leaves, without a byte.
func dialOnce(addr netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(context.Background(), effectTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err == nil {
		conn.Close()
	}
	return err
}

// sendOnce sends a datagram and waits for what comes back: nil is an answer.
func sendOnce(addr netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(context.Background(), effectTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "udp", addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(effectTime)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("sallyport doctor")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1)) // an ICMP error shows here
	return err
}
