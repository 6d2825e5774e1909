package allowlists

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/allowlists/diag"
)

// fillSettings turns values into Settings.
func (l *loader) fillSettings(v values) {
	s := &l.settings
	s.Listen = Listen{
		Proxy:       l.listens("listen.proxy", v["listen.proxy"]),
		DNS:         l.listens("listen.dns", v["listen.dns"]),
		Transparent: l.listens("listen.transparent", v["listen.transparent"]),
		Admin:       l.listens("listen.admin", v["listen.admin"]),
		Control:     get[string](v, "listen.control"),
	}
	s.Admin = Admin{TokenFile: get[string](v, "admin.token_file"), Hosts: get[[]string](v, "admin.hosts")}
	s.DNS = DNS{
		Upstreams: get[[]string](v, "dns.upstreams"), Search: get[[]string](v, "dns.search"),
		BlockedReply: get[string](v, "dns.blocked"), NAT64: get[[]netip.Prefix](v, "dns.nat64"),
		BookGrace: get[time.Duration](v, "dns.book_grace"), CacheEntries: get[int](v, "dns.cache_entries"),
		MaxTTL: get[time.Duration](v, "dns.max_ttl"), Stale: get[time.Duration](v, "dns.stale"),
	}
	s.Limits = Limits{
		Connections: get[int](v, "limits.connections"), ConnectionsPerClient: get[int](v, "limits.connections_per_client"),
		Dials: get[int](v, "limits.dials"), HeaderBytes: get[int64](v, "limits.header_bytes"),
		HeaderTimeout: get[time.Duration](v, "limits.header_timeout"), HelloTimeout: get[time.Duration](v, "limits.hello_timeout"),
		DialTimeout: get[time.Duration](v, "limits.dial_timeout"), IdleTimeout: get[time.Duration](v, "limits.idle_timeout"),
		DrainTimeout: get[time.Duration](v, "limits.drain_timeout"), DNSPerClient: get[int](v, "limits.dns_per_client"),
		BookEntries: get[int](v, "limits.book_entries"),
	}
	s.Log = Log{Events: get[string](v, "log.events"), Progress: get[time.Duration](v, "log.progress"), OnError: get[string](v, "log.on_error")}
	s.Alerts = Alerts{
		GroupInterval: get[time.Duration](v, "alerts.group_interval"), StateDir: get[string](v, "alerts.state_dir"),
		Baseline:   Baseline{Learn: get[time.Duration](v, "alerts.baseline.learn"), Jobs: get[int](v, "alerts.baseline.jobs"), File: get[string](v, "alerts.baseline.file")},
		Thresholds: thresholds(v),
		Slack: Slack{
			WebhookURL: l.slackWebhook(v), MinSeverity: get[string](v, "alerts.slack.min_severity"),
			Daily: get[TimeOfDay](v, "alerts.slack.daily"), Routes: l.routes(v["alerts.slack.routes"]),
		},
		Webhook: Webhook{URL: l.secretPair(v, "alerts.webhook.url"), HMACSecret: l.secretPair(v, "alerts.webhook.hmac_secret")},
		Alertmanager: Alertmanager{
			URL: l.secretPair(v, "alerts.alertmanager.url"), Token: l.secretPair(v, "alerts.alertmanager.token"),
			MinSeverity: get[string](v, "alerts.alertmanager.min_severity"),
		},
		Syslog: Syslog{
			Address: get[string](v, "alerts.syslog.address"), CAFile: get[string](v, "alerts.syslog.ca_file"),
			MinSeverity: get[string](v, "alerts.syslog.min_severity"),
		},
		Links: Links{Docs: get[string](v, "alerts.links.docs"), Event: get[string](v, "alerts.links.event")},
	}
	l.expiryWarning = get[time.Duration](v, thresholdsPath+".expiry_warning")
	l.spec.NAT64 = s.DNS.NAT64
	for _, suffix := range s.DNS.Search {
		if h, err := ParseHost(suffix); suffix != "system" && err == nil {
			l.search = append(l.search, h)
		}
	}
	l.checkControl(v)
	l.checkSinks(v)
	l.rememberRestart(v)
}

// thresholds gathers the keys below alerts.thresholds.
func thresholds(v values) map[string]Threshold {
	all := make(map[string]Threshold)
	for path, s := range v {
		name, found := strings.CutPrefix(path, thresholdsPath+".")
		if !found {
			continue
		}
		switch number := s.value.(type) {
		case int:
			all[name] = Threshold(number)
		case int64:
			all[name] = Threshold(number)
		case time.Duration:
			all[name] = Threshold(number)
		}
	}
	return all
}

// checkControl holds the control listener against the rule that TCP needs a token.
func (l *loader) checkControl(v values) {
	control := l.settings.Listen.Control
	if control == "" || strings.HasPrefix(control, "unix:") {
		return
	}
	l.listens("listen.control", setting{value: []string{control}, node: v["listen.control"].node})
	if l.settings.Admin.TokenFile == "" {
		l.report.Errorf(v["listen.control"].at(), "listen.control is an address, but admin.token_file is empty; name a file with a token, or use unix:/run/sallyport/control.sock")
	}
}

// rememberRestart keeps the text of every value that needs a restart, but for
// secrets, of which only a change can be told.
func (l *loader) rememberRestart(v values) {
	for path, s := range v {
		if k := l.schema.byPath[path]; k != nil && k.restart && k.kind != sectionKind && s.value != nil {
			l.restart[path] = fmt.Sprint(s.value)
		}
	}
	alerts := &l.settings.Alerts
	for path, text := range map[string]string{
		"alerts.slack.webhook_url": alerts.Slack.WebhookURL,
		"alerts.webhook.url":       alerts.Webhook.URL, "alerts.webhook.hmac_secret": alerts.Webhook.HMACSecret,
		"alerts.alertmanager.url": alerts.Alertmanager.URL, "alerts.alertmanager.token": alerts.Alertmanager.Token,
	} {
		l.restart[path] = text
	}
	l.restart["alerts.slack.routes"] = fmt.Sprint(l.settings.Alerts.Slack.Routes)
}

// NeedsRestart lists the keys whose value differs in next and takes effect
// only at a restart, sorted. It never gives a value.
func (f *File) NeedsRestart(next *File) []string {
	changed := make(map[string]bool)
	for path, text := range f.restart {
		if next.restart[path] != text {
			changed[path] = true
		}
	}
	for path := range next.restart {
		if _, known := f.restart[path]; !known {
			changed[path] = true
		}
	}
	return slices.Sorted(maps.Keys(changed))
}

// routesKind is the kind of alerts.slack.routes, whose nodes routes reads.
var routesKind *kind

func init() { routesKind = &kind{"a list of routes", parseNodes} }

// parseNodes takes a list as it is, for a reader that comes later.
func parseNodes(l *loader, k *key, n *diag.Node) (any, bool) {
	if n.Kind != diag.List {
		return nil, l.wrongKind(k, n)
	}
	return n, true
}

// routes reads alerts.slack.routes.
func (l *loader) routes(s setting) []SlackRoute {
	list, _ := s.value.(*diag.Node)
	if list == nil {
		return nil
	}
	const at = "alerts.slack.routes[]"
	var routes []SlackRoute
	for _, item := range list.Items {
		if item.Kind != diag.Map {
			l.report.Errorf(item.Place, "a route is %s; it takes a mapping of pools, min_severity and webhook_url", item.Kind)
			continue
		}
		v := make(values)
		l.section(item, at, "a route", v)
		route := SlackRoute{
			Pools: get[[]string](v, at+".pools"), MinSeverity: get[string](v, at+".min_severity"),
			WebhookURL: l.secretPair(v, at+".webhook_url"),
		}
		if !v.given(at+".webhook_url") && !v.given(at+".webhook_url_file") {
			l.report.Errorf(item.Place, "a route has no webhook_url; give it one, or webhook_url_file")
		}
		if pools := v[at+".pools"].node; pools != nil && pools.Kind == diag.List {
			l.routePools = append(l.routePools, pools.Items...)
		}
		routes = append(routes, route)
	}
	return routes
}
