package alerting

import (
	"fmt"
	"net/netip"
	"time"

	"sallyport/allowlists"
)

// The alerts of docs/alerts.md that are raised now.
const (
	AlertDeniedEgress     = "denied-egress"
	AlertDirectIP         = "direct-ip"
	AlertDeniedThenDirect = "denied-then-direct"
	AlertSNIMismatch      = "sni-mismatch"
	AlertAddressMismatch  = "address-mismatch"
	AlertMetadataAccess   = "metadata-access"
	AlertScan             = "scan"
	AlertDNSTunnel        = "dns-tunnel"
	AlertForeignResolver  = "foreign-resolver"
	AlertRebinding        = "rebinding"
	AlertFirstSeen        = "first-seen"
	AlertUploadVolume     = "upload-volume"
	AlertLookalike        = "lookalike"
	AlertResolvedUnused   = "resolved-unused"
	AlertPolicy           = "policy"
)

// alertKinds are the alerts above, in the order of docs/alerts.md.
var alertKinds = []string{
	AlertDeniedEgress, AlertDirectIP, AlertDeniedThenDirect, AlertSNIMismatch, AlertAddressMismatch, AlertMetadataAccess,
	AlertScan, AlertDNSTunnel, AlertForeignResolver, AlertRebinding, AlertFirstSeen, AlertUploadVolume, AlertLookalike,
	AlertResolvedUnused, AlertPolicy,
}

// A Severity orders alerts. The zero Severity is info.
type Severity uint8

// The severities, lowest first.
const (
	Info Severity = iota
	Medium
	High
	Critical
)

var severityNames = [...]string{Info: "info", Medium: "medium", High: "high", Critical: "critical"}

// String gives the word used in events and configuration.
func (s Severity) String() string { return severityNames[min(s, Critical)] }

// ParseSeverity finds the severity of that name.
func ParseSeverity(name string) (Severity, error) {
	for s, known := range severityNames {
		if known == name {
			return Severity(s), nil
		}
	}
	return Info, fmt.Errorf("severity %q is unknown; it is info, medium, high or critical", name)
}

// MarshalText gives the word used in events.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText gives.
func (s *Severity) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSeverity(string(text))
	return err
}

// The bounds of an Alert.
const (
	maxEvidence   = 10  // ids: the first nine and the latest
	maxAlertText  = 512 // bytes of one text
	maxAlertHosts = 10  // destinations listed by a folded group, unless alerts.thresholds.fold_listed says otherwise
)

// An Alert is one group of findings, as it stands: what people are told. Host,
// Summary and Destinations may hold text from the job, bounded but not escaped.
// An Alert that was handed on is never changed again.
type Alert struct {
	ID       string          `json:"id"` // of the group: the same in every message about it, also after a restart
	Alert    string          `json:"alert"`
	Severity Severity        `json:"severity"`
	Summary  string          `json:"summary"`
	Key      string          `json:"key"` // names the group: alert/pool/subject
	Pool     string          `json:"pool"`
	Client   netip.Addr      `json:"client,omitzero"` // of the first event
	Job      *allowlists.Job `json:"job,omitempty"`   // of the first
	Reason   string          `json:"reason,omitempty"`
	Count    int             `json:"count"`    // findings so far
	First    time.Time       `json:"first"`    // when the first event was
	Last     time.Time       `json:"last"`     // when the latest event was
	Evidence []string        `json:"evidence"` // ids of dns and conn events, at most maxEvidence
	Host     string          `json:"host,omitempty"`
	Port     uint16          `json:"port,omitempty"`
	IP       netip.Addr      `json:"ip,omitzero"`
	Suggest  string          `json:"suggest,omitempty"` // the exact line of an allow list, where one would do
	Closed   string          `json:"closed,omitempty"`  // why the group is closed, where a policy did it; "" else

	// Of a folded group, and of one that gathers destinations from the first on,
	// as scan does: how many it stands for and the first of them. More is set if there are more than were counted.
	DestinationCount int      `json:"destination_count,omitempty"`
	Destinations     []string `json:"destinations,omitempty"`
	More             bool     `json:"more,omitempty"`
}

// event is the alert's line in the event log.
func (a *Alert) event(now time.Time) Event {
	return Event{
		Time: eventTime(now), Kind: KindAlert, ID: a.ID, Pool: a.Pool, Client: a.Client, Job: a.Job,
		Alert: a.Alert, Severity: a.Severity.String(), Summary: a.Summary, Key: a.Key, Count: a.Count,
		First: a.First, Last: a.Last, Evidence: a.Evidence, Host: a.Host, Port: a.Port, IP: a.IP, Suggest: a.Suggest, Closed: a.Closed,
	}
}

// addEvidence keeps the first ids and the latest.
func (a *Alert) addEvidence(ids []string) {
	for _, id := range ids {
		switch n := len(a.Evidence); {
		case id == "" || n > 0 && a.Evidence[n-1] == id:
		case n < maxEvidence:
			a.Evidence = append(a.Evidence, id)
		default:
			a.Evidence[n-1] = id
		}
	}
}
