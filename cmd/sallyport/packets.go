package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sallyport/alerting"
	"sallyport/dnsfilter"
	"sallyport/proxy"
	"sallyport/proxy/firewall"
)

const (
	// maxPacketQueue is how many packets may wait for their event.
	maxPacketQueue = 1024
	// lossEvery is the least time between two events about packets without one.
	lossEvery = time.Minute
	// countEvery is how often the firewall's own counters are looked at.
	countEvery = 10 * time.Second
	// nameserversAge is how old the list of the machine's nameservers may be.
	nameserversAge = 10 * time.Second
)

// packets is what the firewall tells of: packets that it refused, and where
// questions were sent before it redirected them. Its methods are safe for
// concurrent use once openPackets has returned.
type packets struct {
	log    *firewall.PacketLog // nil where there is none
	fault  string              // why there is none, where there should be
	queue  chan firewall.Packet
	wanted firewall.Wanted

	mu          sync.Mutex // guards what follows
	missed      uint64     // found no room in queue
	taken       uint64     // refused or passed, as the log told
	nameservers []netip.Addr
	readAt      time.Time
}

// openPackets opens the log of what the firewall refused, while the daemon may
// still do that. Without --firewall it is a warning where it cannot.
func (d *daemon) openPackets() error {
	if d.placement == "" {
		return nil
	}
	d.packets.queue = make(chan firewall.Packet, maxPacketQueue)
	log, err := firewall.OpenPacketLog(firewall.DefaultLogGroup, d.packets.take)
	switch {
	case err == nil:
		d.packets.log = log
	case d.options.firewall != "":
		return err
	default:
		d.packets.fault = err.Error()
		d.log.Warn().Err(err).Msg("what the firewall refuses will have no event: only TCP and DNS are seen")
	}
	return nil
}

// packetDetails are those of the started event.
func (d *daemon) packetDetails() map[string]any {
	switch {
	case d.packets.log != nil:
		return map[string]any{"packets": "seen"}
	case d.packets.fault != "":
		return map[string]any{"packets": "not seen: " + d.packets.fault}
	default:
		return nil
	}
}

// take gets every packet that a rule logged, and waits for nothing.
func (p *packets) take(packet firewall.Packet) {
	if packet.Prefix == firewall.LogDNS {
		if packet.Protocol == firewall.ProtocolUDP {
			p.wanted.Note(packet.Src, packet.Dst.Addr(), time.Now())
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken++
	select {
	case p.queue <- packet:
	default:
		p.missed++
	}
}

// wantedBy gives the resolver that a question over UDP was sent to, by the
// client's address and port; the zero Addr where nobody knows.
func (p *packets) wantedBy(client netip.AddrPort) netip.Addr {
	if p.log == nil {
		return netip.Addr{}
	}
	p.log.Drain()
	return p.wanted.Of(client, time.Now())
}

// lost counts the packets that never came to be judged, of those that the
// firewall counted.
func (p *packets) lost(counted uint64) uint64 {
	p.log.Drain() // what was counted was logged before
	inKernel := p.log.Lost()
	p.mu.Lock()
	defer p.mu.Unlock()
	if counted > p.taken {
		inKernel = max(inKernel, counted-p.taken)
	}
	return p.missed + inKernel
}

// isForeign reports whether a resolver is neither this machine nor one of its
// nameservers.
func (d *daemon) isForeign(resolver netip.Addr) bool {
	return !resolver.IsLoopback() && !d.own.isLocal(resolver) && !d.packets.isNameserver(resolver)
}

// isNameserver reports whether resolv.conf has a resolver.
func (p *packets) isNameserver(resolver netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.readAt) > nameserversAge {
		p.readAt = time.Now()
		if found, err := dnsfilter.SystemNameservers(resolvConf); err == nil {
			p.nameservers = found
		}
	}
	return slices.Contains(p.nameservers, resolver)
}

// watchPackets makes events of what the firewall refused, until ctx ends.
func (d *daemon) watchPackets(ctx context.Context) error {
	if d.packets.log == nil {
		<-ctx.Done()
		return nil
	}
	defer d.packets.log.Close()
	reading := start(d.packets.log.Serve)
	ended := reading.ended
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	loss := packetLoss{counters: firewallCount()}
	for {
		select {
		case p := <-d.packets.queue:
			if !d.enforcement.probedPacket(p) {
				loss.observe(d, p)
			}
		case now := <-tick.C:
			loss.tell(d, now)
		case <-ended:
			ended = nil
			if err := reading.stop(); err != nil {
				d.log.Error().Err(err).Msg("what the firewall refuses has no event any more")
			}
		case <-ctx.Done():
			err := reading.stop()
			for len(d.packets.queue) > 0 {
				loss.observe(d, <-d.packets.queue)
			}
			loss.tell(d, time.Now().Add(lossEvery)) // what was not told yet is told now
			if err != nil {
				return fmt.Errorf("watching what the firewall refused: %w", err)
			}
			return nil
		}
	}
}

// asPacket is a packet as the proxy knows it. On a sidecar it is the job's,
// whatever it came in by.
func (d *daemon) asPacket(p firewall.Packet) proxy.Packet {
	packet := proxy.Packet{
		Time: p.Time, Passed: p.Prefix == firewall.LogPassed, Iface: p.In,
		Protocol: p.Protocol, Src: p.Src, Dst: p.Dst, Size: p.Size,
	}
	if d.placement == firewall.Sidecar {
		packet.Iface = ""
		if !p.Src.IsValid() {
			packet.Src = netip.AddrPortFrom(loopback, 0)
		}
	}
	return packet
}

// A packetLoss counts the packets that have no event. It is for one goroutine.
type packetLoss struct {
	lost, unrecorded uint64 // so far
	toldLost, told   uint64 // of these, already announced
	at               time.Time
	counters         uint64 // of the firewall, when looked at last
	counted          uint64 // by it, since the start
	countedAt        time.Time
}

// firewallCount is how many packets the firewall counted where it tells of
// them; 0 where nobody may look, and then what its rate leaves out is not known.
func firewallCount() uint64 {
	n, err := firewall.Countable()
	if err != nil {
		return 0
	}
	return n
}

// count looks at the firewall's counters. They begin again with every apply.
func (l *packetLoss) count(now time.Time) {
	if now.Sub(l.countedAt) < countEvery {
		return
	}
	l.countedAt = now
	n := firewallCount()
	if n < l.counters {
		l.counters = 0
	}
	l.counted += n - l.counters
	l.counters = n
}

func (l *packetLoss) observe(d *daemon, p firewall.Packet) {
	if d.proxy.ObservePacket(d.asPacket(p)) == proxy.PacketUnrecorded {
		l.unrecorded++
	}
}

// tell counts what was lost and announces it, at most once in lossEvery.
func (l *packetLoss) tell(d *daemon, now time.Time) {
	l.count(now)
	if lost := d.packets.lost(l.counted); lost > l.lost {
		d.proxy.LostPackets(lost - l.lost)
		l.lost = lost
	}
	if l.lost == l.toldLost && l.unrecorded == l.told || now.Sub(l.at) < lossEvery {
		return
	}
	d.log.Warn().Uint64("lost", l.lost-l.toldLost).Uint64("unrecorded", l.unrecorded-l.told).Msg("the firewall refused packets that have no event")
	d.alerts.System(alerting.SystemPacketsLost, map[string]any{"lost": l.lost - l.toldLost, "unrecorded": l.unrecorded - l.told})
	l.toldLost, l.told, l.at = l.lost, l.unrecorded, now
}
