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
	ids     map[string]string          // events that are evidence of a client's doings
	scans   []scan
}

// A scan is a client that looked around.
type scan struct {
	client      netip.Addr
	first, last time.Time
}

// maxScans bounds the scans of one pool that are remembered.
const maxScans = 1024

func newMarks() marks {
	return marks{hosts: make(map[allowlists.Host]string), domains: make(map[allowlists.Host]string), ids: make(map[string]string)}
}

// alert takes an alert, and gives how much there is to remember of it.
func (m *marks) alert(e *alerting.Event) int {
	before := m.size()
	host, err := allowlists.ParseHost(e.Host)
	switch e.Alert {
	case alerting.AlertDNSTunnel, alerting.AlertLookalike:
		if domain, ok := subjectOf(e); ok {
			m.domains[domain] = e.Alert
		}
	case alerting.AlertScan:
		if len(m.scans) < maxScans {
			m.scans = append(m.scans, scan{e.Client, e.First, e.Last})
		}
		m.evidence(e)
		return m.size() - before
	case alerting.AlertDeniedThenDirect:
		m.evidence(e)
	case alerting.AlertDirectIP, alerting.AlertMetadataAccess, alerting.AlertForeignResolver, alerting.AlertRebinding,
		alerting.AlertSNIMismatch, alerting.AlertUploadVolume:
	default:
		return 0
	}
	if err == nil {
		m.hosts[host] = e.Alert
	}
	return m.size() - before
}

func (m *marks) size() int { return len(m.hosts) + len(m.domains) + len(m.ids) }

func (m *marks) evidence(e *alerting.Event) {
	for _, id := range e.Evidence {
		m.ids[id] = e.Alert
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
	for _, id := range w.ids {
		if kind := m.ids[id]; kind != "" {
			return kind
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
