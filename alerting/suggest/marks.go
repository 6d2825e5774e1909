package suggest

import (
	"strings"
	"time"

	"net/netip"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// marks are the destinations of a pool that a detector spoke of. Whom it spoke
// of for an attempt that policy refused is never suggested, however many jobs
// went there.
type marks struct {
	hosts   map[allowlists.Host]string // the kind of alert
	domains map[allowlists.Host]string // the same for everything at and below a name
	// rebound are the hosts that led to special addresses, and the worst of those
	// as the alert has it: a person may know them for names of a private network.
	rebound map[allowlists.Host]netip.Addr
	scans   []scan
	full    bool // there were more alerts than are remembered
}

// A scan is a client that looked around.
type scan struct {
	client      netip.Addr
	first, last time.Time
}

// maxScans bounds the scans of one pool that are remembered.
const maxScans = 1024

func newMarks() marks {
	return marks{hosts: make(map[allowlists.Host]string), domains: make(map[allowlists.Host]string), rebound: make(map[allowlists.Host]netip.Addr)}
}

// alert takes an alert, and gives how much there is to remember of it. recent are
// the hosts of events that it may name as evidence.
func (m *marks) alert(e *alerting.Event, recent map[string]allowlists.Host) int {
	before := m.size()
	host, err := allowlists.ParseHost(e.Host)
	switch e.Alert {
	case alerting.AlertDNSTunnel, alerting.AlertLookalike:
		if domain, ok := subjectOf(e); ok {
			m.domains[domain] = e.Alert
		}
	case alerting.AlertScan:
		m.scan(scan{e.Client, e.First, e.Last})
		m.evidence(e, recent)
		return m.size() - before
	case alerting.AlertDeniedThenDirect:
		m.evidence(e, recent)
	case alerting.AlertRebinding:
		if err == nil {
			m.rebound[host] = e.IP
		}
		return m.size() - before
	case alerting.AlertDirectIP, alerting.AlertMetadataAccess, alerting.AlertForeignResolver,
		alerting.AlertSNIMismatch, alerting.AlertUploadVolume:
	default:
		return 0
	}
	if err == nil {
		m.hosts[host] = e.Alert
	}
	return m.size() - before
}

// scan takes a scan, of which the log has a line whenever it went on.
func (m *marks) scan(s scan) {
	for i := range m.scans {
		if known := &m.scans[i]; known.client == s.client && known.first.Equal(s.first) {
			known.last = s.last
			return
		}
	}
	m.scans = append(m.scans, s)
}

func (m *marks) size() int { return len(m.hosts) + len(m.domains) + len(m.rebound) }

// evidence marks the hosts of the events that an alert about a client names.
func (m *marks) evidence(e *alerting.Event, recent map[string]allowlists.Host) {
	for _, id := range e.Evidence {
		if host, ok := recent[id]; ok {
			m.hosts[host] = e.Alert
		}
	}
}

// subjectOf is the domain that an alert's group is about: its key is
// "kind/pool/domain", for a tunnel with the client behind it.
func subjectOf(e *alerting.Event) (allowlists.Host, bool) {
	subject := e.Key[strings.LastIndexByte(e.Key, '/')+1:]
	subject, _, _ = strings.Cut(subject, " ")
	host, err := allowlists.ParseHost(subject)
	return host, err == nil
}

// event takes a decision that says by itself what an alert would say.
func (m *marks) event(e *alerting.Event) {
	var kind string
	switch e.Cause() {
	case allowlists.SNIMismatch, allowlists.HostMismatch:
		kind = alerting.AlertSNIMismatch
	case allowlists.UploadLimit:
		kind = alerting.AlertUploadVolume
	default:
		return
	}
	if host, err := allowlists.ParseHost(e.Host); err == nil && m.size() < maxTold {
		m.hosts[host] = kind
	}
}

// of gives the kind of alert that spoke of a host; "" if none did.
func (m *marks) of(w *wanted) string {
	if kind := m.hosts[w.host]; kind != "" {
		return kind
	}
	for name, dotted := w.host.String(), true; dotted; _, name, dotted = strings.Cut(name, ".") {
		if host, err := allowlists.ParseHost(name); err == nil && m.domains[host] != "" {
			return m.domains[host]
		}
	}
	first, last := w.span()
	for _, s := range m.scans {
		if !w.many && len(w.clients) == 1 && w.clients[0] == s.client && !first.Before(s.first) && !last.After(s.last) {
			return alerting.AlertScan
		}
	}
	return ""
}
