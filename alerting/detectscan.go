package alerting

import (
	"fmt"
	"net/netip"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// scan raises scan: within a window one client tried many different addresses
// or ports that are not allowed. One group per pool and client, which counts
// the destinations; while the scan is on, its further probes join that group
// and open no others.
//
// A scan is on from the probe that makes the window full until the window is no
// longer full for a window's time. A client that repeats itself before few
// destinations never fills it.
//
// State: the latest probes of each client, see scanClients.
type scan struct {
	least   int           // different destinations that make a scan
	window  time.Duration // within which they lie
	clients *scanClients
}

// maxScanDestinations bounds alerts.thresholds.scan_destinations, and so what
// is remembered of one client; schemakeys.go has it, too.
const maxScanDestinations = 1000

func newScan(config *correlatorConfig) *scan {
	least := min(config.number("scan_destinations", 20), maxScanDestinations)
	window := config.duration("scan_window", time.Minute)
	return &scan{least, window, newScanClients(least, window)}
}

func (d *scan) observe(e *Event, now time.Time) []finding {
	p, ok := probed(e)
	if !ok {
		return nil
	}
	c, fresh := d.clients.add(ofClient(e), p)
	was := now.Before(c.until)
	if len(c.probes) == d.least {
		c.until = now.Add(d.window)
	}
	byName := !p.to.Addr().IsValid()
	if !now.Before(c.until) || was && byName && !fresh {
		return nil
	}
	f := found(e, AlertScan, High)
	f.subject = f.client.String()
	f.host, f.port, f.ip = "", 0, netip.Addr{}
	f.beside = byName
	probes := []probe{p}
	if !was {
		probes = c.probes
		f.evidence = []string{probes[0].id, e.ID}
	}
	for _, p := range probes {
		f.destinations = append(f.destinations, p.String())
	}
	return []finding{f}
}

func (d *scan) expire(now time.Time) { d.clients.expire(now) }

// A probe is a try at a destination that is not allowed.
type probe struct {
	// to is the address and port. Without an address it is that port of any
	// host asked for by name: names alone make no scan, the ports of one do.
	to   netip.AddrPort
	via  string // udp, icmp or other; "" for TCP
	id   string // of the event
	time time.Time
}

// String is the probe's destination as people read it.
func (p probe) String() string {
	to := p.to.String()
	switch {
	case !p.to.Addr().IsValid():
		return fmt.Sprintf("port %d of hosts by name", p.to.Port())
	case p.to.Port() == 0:
		to = p.to.Addr().String()
	}
	if p.via != "" {
		return to + "/" + p.via
	}
	return to
}

// probeReasons are the reasons that keep a destination from being reached for
// what it is. Others blame the request, or ourselves.
var probeReasons = map[allowlists.Reason]bool{
	allowlists.NotInAllowlist: true, allowlists.PortNotAllowed: true, allowlists.ExpiredRule: true, allowlists.DeniedByRule: true,
	allowlists.AddressLiteral: true, allowlists.SpecialAddress: true, allowlists.AddressMismatch: true, allowlists.ResolverBypass: true,
	allowlists.ProtocolBlocked: true, allowlists.NoPool: true,
}

// probed gives the destination of a conn event that was refused, or would have
// been in audit, of a client that is known. What is quiet, what stays on the link, and QUIC to an address
// that we answered with (a browser tries it first) are none.
func probed(e *Event) (probe, bool) {
	if e.Kind != KindConn || !e.Client.IsValid() || !decides(e) || e.Quiet || !probeReasons[e.Cause()] {
		return probe{}, false
	}
	p := probe{id: e.ID, time: e.Time}
	if isPacket(e) {
		p.via = e.Via
	}
	known := len(e.Names) > 0
	switch {
	case !literal(e) && (!straight(e) || known):
		p.to = netip.AddrPortFrom(netip.Addr{}, e.Port)
		return p, e.Port != 0
	case !e.IP.IsValid() || staysOnLink(e.IP) || e.IP.IsLinkLocalUnicast() || e.IP.IsUnspecified():
		return probe{}, false
	case known && e.Via == proxy.ViaUDP && e.Port == 443:
		return probe{}, false
	}
	p.to = netip.AddrPortFrom(e.IP, e.Port)
	return p, true
}
