package alerting

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// A detector knows one alert, or two that exclude each other. It is called from
// one goroutine at a time, keeps bounded state, and never keeps or changes the
// event's slices. now is when the event was, as far as windows are concerned.
type detector interface {
	// What it returns is the caller's until the next call.
	observe(e *Event, now time.Time) []finding
	// expire forgets what is older than any window.
	expire(now time.Time)
}

// A waiter is a detector that finds something when nothing has happened for a
// while. due is called now and then, at expireEvery.
type waiter interface {
	due(now time.Time) []finding
}

// A finding is one event, or two joined, that people should know of. Findings
// with the same alert, pool and subject are one group.
type finding struct {
	alert    string
	severity Severity
	pool     string
	client   netip.Addr // by which groups are kept apart: allowlists.Subject.Key
	asker    netip.Addr // the client as the event has it, for people
	job      *allowlists.Job
	subject  string // names the group, with alert and pool
	summary  string // one sentence, without the count
	reason   string
	host     string // canonical where it can be
	port     uint16
	ip       netip.Addr
	suggest  string
	evidence []string
	time     time.Time // of the event
	// destinations are those that a group of gathers counts; only of such alerts.
	destinations []string
	beside       bool // replaces no finding of the same event
	// words, where it is not nil, finds summary and suggest, once somebody wants
	// to know: most findings only count. event is theirs, until observe's caller
	// has counted the finding.
	words func(*finding, *Event)
	event *Event
}

// spell sees to it that summary and suggest are there.
func (f *finding) spell() {
	if f.words != nil {
		f.words(f, f.event)
		f.words, f.event = nil, nil
	}
}

// found begins a finding about an event.
func found(e *Event, alert string, severity Severity) finding {
	return finding{
		alert: alert, severity: severity, pool: e.Pool, client: e.Subject().Key(), asker: e.Client, job: e.Job, reason: e.Cause().String(),
		host: hostOf(e), port: e.Port, ip: e.IP, evidence: []string{e.ID}, time: e.Time,
	}
}

// replaced lists which findings of the same event an alert makes needless.
var replaced = map[string][]string{
	AlertDeniedThenDirect: {AlertDirectIP, AlertDeniedEgress},
	AlertMetadataAccess:   {AlertDeniedThenDirect, AlertDirectIP, AlertDeniedEgress, AlertRebinding},
	AlertRebinding:        {AlertDeniedEgress},
	AlertScan:             {AlertDirectIP, AlertDeniedEgress},
	AlertDNSTunnel:        {AlertDeniedEgress},
	AlertLookalike:        {AlertDeniedEgress},
}

// settle drops the findings that another one replaces.
func settle(findings []finding) []finding {
	if len(findings) < 2 {
		return findings
	}
	needless := make(map[string]bool)
	for _, f := range findings {
		if f.beside {
			continue
		}
		for _, alert := range replaced[f.alert] {
			needless[alert] = true
		}
	}
	kept := findings[:0]
	for _, f := range findings {
		if !needless[f.alert] {
			kept = append(kept, f)
		}
	}
	return kept
}

// clientOf names a client within its pool.
type clientOf struct {
	pool string
	key  netip.Addr
}

// ofClient is whose event e is.
func ofClient(e *Event) clientOf { return clientOf{e.Pool, e.Subject().Key()} }

// hostOf is the host name that an event is about, canonical where it can be;
// "" if it is about an address. It is found out once.
func hostOf(e *Event) string {
	if !e.about.known {
		e.about.host, e.about.canonical = aboutHost(e)
		e.about.known = true
	}
	return e.about.host
}

// aboutHost finds hostOf out, and whether that is canonical.
func aboutHost(e *Event) (name string, canonical bool) {
	name = e.Host
	if e.Kind == KindDNS && name == "" {
		name = e.Name
	}
	if name == "" || isLiteral(name) {
		return "", false
	}
	if host, err := allowlists.ParseHost(name); err == nil {
		return host.String(), true
	}
	name, _ = cut(name, maxAlertText/2)
	return name, false
}

// isLiteral reports whether a host as a client wrote it is an IP address.
func isLiteral(host string) bool {
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	// One ends with a digit or has a colon; to find out what ails a name costs more.
	if host == "" || host[len(host)-1]-'0' > 9 && strings.IndexByte(host, ':') < 0 {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// literal reports whether a conn event is about an address that no name stood
// for.
func literal(e *Event) bool { return e.Kind == KindConn && hostOf(e) == "" && e.IP.IsValid() }

// isPacket reports whether a conn event is about packets that no listener took.
func isPacket(e *Event) bool {
	return e.Via == proxy.ViaUDP || e.Via == proxy.ViaICMP || e.Via == proxy.ViaOther
}

// broadcast is the address of everyone on a link.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// staysOnLink reports whether packets to an address go nowhere but to
// neighbours: discovery of services, of names and of addresses.
func staysOnLink(addr netip.Addr) bool { return addr.IsMulticast() || addr == broadcast }

// decides reports whether the event carries a verdict that no other line of
// the same id carries: questions, refusals and the first line of a connection,
// and the close of a tunnel that was refused after it.
func decides(e *Event) bool {
	switch e.Kind {
	case KindDNS:
		return true
	case KindConn:
		return e.Phase == PhaseRefused || e.Phase == PhaseOpen || e.Phase == PhaseClose && e.Refused()
	default:
		return false
	}
}

// destination is host:port, address:port, or what of it is known.
func destination(host string, ip netip.Addr, port uint16) string {
	switch {
	case host == "" && !ip.IsValid():
		return "an unknown destination"
	case host == "" && port != 0:
		return netip.AddrPortFrom(ip, port).String()
	case host == "":
		return ip.String()
	case port != 0:
		return host + ":" + strconv.Itoa(int(port))
	default:
		return host
	}
}

// poolName is a pool as a sentence names it.
func poolName(pool string) string {
	if pool == "" {
		return "no pool"
	}
	return "pool " + pool
}
