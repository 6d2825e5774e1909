package allowlists

import (
	"net/netip"
	"time"
)

// Settings is the daemon's part of a configuration file: everything but the
// pools, checked, with defaults filled in. The keys are those of
// docs/configuration.md; each type here documents only what the file cannot say.
type Settings struct {
	Listen Listen
	Admin  Admin
	DNS    DNS
	Limits Limits
	Log    Log
	Alerts Alerts
}

// Listen holds the addresses to bind, each "host:port" or "[v6]:port"; control
// may be "unix:/path". An empty list binds nothing.
type Listen struct {
	Proxy, DNS, Transparent, Admin []string
	Control                        string
}

// Admin guards the admin and control listeners.
type Admin struct {
	TokenFile string
	Hosts     []string // further names that the Host check accepts
}

// DNS configures the resolver.
type DNS struct {
	Upstreams    []string // "system", "10.0.0.2", "udp://…", "tcp://…", "tls://ip:853#name", "https://…"
	Search       []string // "system" or suffixes
	BlockedReply string   // "nxdomain" or "refused"
	NAT64        []netip.Prefix
	BookGrace    time.Duration
	CacheEntries int
	MaxTTL       time.Duration
	Stale        time.Duration
}

// Limits bound what clients can make the daemon hold.
type Limits struct {
	Connections, ConnectionsPerClient, Dials                            int
	HeaderBytes                                                         int64
	HeaderTimeout, HelloTimeout, DialTimeout, IdleTimeout, DrainTimeout time.Duration
	DNSPerClient                                                        int // questions a second
	BookEntries                                                         int
}

// Log configures the event log.
type Log struct {
	Events   string // "stdout" or a path
	Progress time.Duration
	OnError  string // "continue" or "deny"
}

// Alerts configures the correlator and the sinks.
type Alerts struct {
	GroupInterval time.Duration
	StateDir      string
	Baseline      Baseline
	Thresholds    map[string]Threshold // every key of docs/alerts.md, defaults filled in
	Slack         Slack
	Webhook       Webhook
	Alertmanager  Alertmanager
	Syslog        Syslog
	Links         Links
}

// A Threshold is one number of docs/alerts.md, in the unit its key names:
// a count, bytes, or a time in nanoseconds.
type Threshold int64

// Baseline says how long a pool learns before first-seen speaks.
type Baseline struct {
	Learn time.Duration
	Jobs  int
	File  string
}

// Slack is the Slack sink; an empty WebhookURL switches it off. WebhookURL is a secret.
type Slack struct {
	WebhookURL  string
	MinSeverity string
	Daily       TimeOfDay // of a summary; zero: none is sent
	Routes      []SlackRoute
}

// A TimeOfDay is a time in UTC on each day. The zero TimeOfDay is none.
type TimeOfDay struct {
	Set   bool
	Since time.Duration // midnight; less than a day
}

// SlackRoute sends the alerts of some pools or severities elsewhere. WebhookURL is a secret.
type SlackRoute struct {
	Pools       []string // empty: every pool
	MinSeverity string
	WebhookURL  string
}

// Alertmanager is the sink of that name; an empty URL switches it off. URL and
// Token are secrets.
type Alertmanager struct {
	URL         string // without the API's path
	Token       string
	MinSeverity string
}

// Syslog is the syslog sink; an empty Address switches it off.
type Syslog struct {
	Address     string // "udp://host:port", "tcp://…", "tls://…" or "unix:/path"
	CAFile      string
	MinSeverity string
}

// Links are templates of URLs; an empty one makes no link.
type Links struct {
	Docs  string // with {alert}
	Event string // with {id}
}

// Webhook is the generic sink; an empty URL switches it off. URL and HMACSecret are secrets.
type Webhook struct {
	URL        string
	HMACSecret string
}
