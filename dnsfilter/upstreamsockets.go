package dnsfilter

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// The bounds of sockets, for one upstream. A port is the kernel's random choice
// of some 28,000 and is known to nobody who is not on the way; what it is used
// for and how long bounds what finding one out is worth (RFC 5452 section 9.2).
const (
	socketUses  = 16              // questions, one after the other
	socketLife  = 2 * time.Second // from its first question on
	socketsIdle = 64
)

// sockets are connected UDP sockets to one upstream, each of a random port. Who
// takes one has it alone: questions at the same time go out from different
// ports. Which of several is taken is left to chance. Safe for concurrent use.
type sockets struct {
	addr netip.AddrPort

	mu    sync.Mutex // guards the rest
	idle  []*socket  // at most socketsIdle
	sweep *time.Timer
}

// A socket answers one question at a time.
type socket struct {
	*net.UDPConn
	uses int
	born time.Time
}

// take lends an idle socket, or a new one.
func (p *sockets) take() (*socket, error) {
	if s := p.takeIdle(); s != nil {
		return s, nil
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.addr))
	if err != nil {
		return nil, err
	}
	return &socket{UDPConn: conn, uses: 1, born: time.Now()}, nil
}

func (p *sockets) takeIdle() *socket {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		at, last := rand.IntN(len(p.idle)), len(p.idle)-1
		s := p.idle[at]
		p.idle[at], p.idle[last] = p.idle[last], nil
		p.idle = p.idle[:last]
		if time.Since(s.born) < socketLife {
			s.uses++
			return s
		}
		s.Close()
	}
	return nil
}

// giveBack takes a socket whose question was answered, and which nothing will
// set a deadline of any more. Any other is closed instead.
func (p *sockets) giveBack(s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.uses >= socketUses || len(p.idle) >= socketsIdle || time.Since(s.born) >= socketLife {
		s.Close()
		return
	}
	p.idle = append(p.idle, s)
	if p.sweep == nil {
		p.sweep = time.AfterFunc(socketLife, p.closeOld)
	}
}

// closeOld closes idle sockets whose life is over, and comes again while there
// are others.
func (p *sockets) closeOld() {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[:0]
	for _, s := range p.idle {
		if time.Since(s.born) < socketLife {
			kept = append(kept, s)
		} else {
			s.Close()
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	if p.sweep = nil; len(kept) > 0 {
		p.sweep = time.AfterFunc(socketLife/4, p.closeOld)
	}
}

// close closes them all; none is lent any more.
func (p *sockets) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.idle {
		s.Close()
	}
	p.idle = nil
	if p.sweep != nil {
		p.sweep.Stop()
	}
}
