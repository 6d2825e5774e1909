package dnsfilter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/miekg/dns"
)

// bootstrap is the resolveFunc of the upstreams: it asks those that are listed
// by address, the healthy ones first. Who forges its answer gains nothing but a
// failed TLS handshake.
func (u *upstreams) bootstrap(ctx context.Context, host string) ([]netip.Addr, error) {
	var good, bad []*upstream
	for _, up := range u.list {
		switch t, ok := up.transport.(*httpsTransport); {
		case ok && t.name != "":
		case up.health.up():
			good = append(good, up)
		default:
			bad = append(bad, up)
		}
	}
	failed := errors.New("no upstream knows it")
	for _, up := range append(good, bad...) {
		addrs, err := u.lookup(ctx, up, host)
		if len(addrs) > 0 {
			return addrs, nil
		}
		if err != nil {
			failed = fmt.Errorf("asking %s: %w", up.name, err)
		}
	}
	return nil, fmt.Errorf("finding the address of %s: %w", host, failed)
}

// lookup asks one upstream for the addresses of a host. The error counts only if
// there are none.
func (u *upstreams) lookup(ctx context.Context, up *upstream, host string) (addrs []netip.Addr, failed error) {
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		q, err := newQuestion(host, qtype, queryFlags{})
		if err != nil {
			return nil, err
		}
		reply, err := u.try(ctx, up, q)
		if err != nil {
			failed = err
			continue
		}
		addrs = append(addrs, chainAddrs(q.name, reply)...)
	}
	return addrs, failed
}

// chainAddrs returns the addresses that an answer gives to name, along its aliases.
func chainAddrs(name string, reply *dns.Msg) []netip.Addr {
	var addrs []netip.Addr
	for _, record := range reply.Answer {
		if record.Header().Name != name {
			continue
		}
		switch record := record.(type) {
		case *dns.CNAME:
			name = record.Target
		case *dns.A:
			if addr, ok := netip.AddrFromSlice(record.A); ok {
				addrs = append(addrs, addr.Unmap())
			}
		case *dns.AAAA:
			if addr, ok := netip.AddrFromSlice(record.AAAA); ok {
				addrs = append(addrs, addr.Unmap())
			}
		}
	}
	return addrs
}
