package allowlists

import (
	"slices"
	"time"
)

// configKeys is the table of every key of the configuration file.
func configKeys() []key {
	return slices.Concat(listenKeys(), dnsKeys(), limitKeys(), poolKeys(), ruleKeys(), logKeys(), alertKeys(), thresholdKeys())
}

func listenKeys() []key {
	return []key{
		{path: "listen", kind: sectionKind, doc: "Addresses of the listeners that all pools share; exactly these are bound, never another", restart: true},
		{path: "listen.proxy", kind: listenKind, def: "127.0.0.1:3128", doc: "HTTP CONNECT and absolute-form HTTP", restart: true},
		{path: "listen.dns", kind: listenKind, def: "127.0.0.1:5300", doc: "DNS over UDP and TCP", restart: true},
		{path: "listen.transparent", kind: autoListenKind, def: `""`, doc: "Redirected TCP; auto means loopback in a sidecar and the addresses of each pool interface on a gateway", restart: true},
		{path: "listen.admin", kind: listenKind, def: "127.0.0.1:9180", doc: "/healthz, /readyz and /metrics, nothing else", restart: true},
		{path: "listen.control", kind: controlKind, def: `""`, doc: "API and web page: unix:/path (mode 0600), or an address together with admin.token_file", restart: true},
		{path: "admin", kind: sectionKind, doc: "Who may use the admin and control listeners", restart: true},
		{path: "admin.token_file", kind: pathKind, def: `""`, doc: "File that holds the bearer token of the control listener, at least 16 characters", restart: true},
		{path: "admin.hosts", kind: hostsKind, def: "[]", doc: "Further names that the Host check accepts; own addresses and localhost always are", restart: true},
	}
}

func dnsKeys() []key {
	return []key{
		{path: "dns", kind: sectionKind, doc: "The resolver"},
		{path: "dns.upstreams", kind: upstreamsKind, def: "[system]", doc: "Resolvers to ask: system (resolv.conf without our own listeners), an address, udp://, tcp://, tls://IP:853#NAME or https://", restart: true},
		{path: "dns.search", kind: searchKind, def: "[system]", doc: "Search suffixes whose echoes raise no alert; system takes those of resolv.conf", restart: true},
		{path: "dns.blocked", kind: wordKind, words: []string{"nxdomain", "refused"}, def: "nxdomain", doc: "Answer to a refused name", restart: true},
		{path: "dns.nat64", kind: nat64Kind, def: "[]", doc: "Prefixes whose addresses are judged as the IPv4 address they carry (RFC 6052)"},
		{path: "dns.book_grace", kind: durationKind, def: "1h", doc: "How long beyond its TTL an answer is good", restart: true},
		{path: "dns.cache_entries", kind: countKind, def: "65536", least: 1, doc: "Answers that the cache holds", restart: true},
		{path: "dns.max_ttl", kind: durationKind, def: "1h", least: int64(time.Second), doc: "Longest time an answer is cached", restart: true},
		{path: "dns.stale", kind: durationKind, def: "0s", doc: "How long expired answers are served when upstreams fail (RFC 8767)", restart: true},
	}
}

func limitKeys() []key {
	count := func(name, def, doc string) key {
		return key{path: "limits." + name, kind: countKind, def: def, least: 1, doc: doc, restart: true}
	}
	span := func(name, def, doc string) key {
		return key{path: "limits." + name, kind: durationKind, def: def, least: int64(time.Millisecond), doc: doc, restart: true}
	}
	return []key{
		{path: "limits", kind: sectionKind, doc: "Bounds for the whole daemon; a pool may hold half while another asks, a client a quarter of its pool's; a machine with several addresses on a pool's interface is one client", restart: true},
		count("connections", "16384", "Open connections"),
		count("connections_per_client", "2048", "Open connections of one client"),
		count("dials", "1024", "Dials in flight"),
		{path: "limits.header_bytes", kind: sizeKind, def: "65536", least: 1024, most: 16 << 20, doc: "Longest request head", restart: true},
		span("header_timeout", "10s", "Time for a request head to arrive"),
		span("hello_timeout", "10s", "Time for the first bytes of a tunnel to arrive"),
		span("dial_timeout", "10s", "Time for a dial"),
		span("idle_timeout", "15m", "Time without a byte in either direction before a tunnel is closed"),
		span("drain_timeout", "30s", "Time that open tunnels have at a stop"),
		{path: "limits.dns_per_client", kind: countKind, def: "1000", least: 1, unit: "questions a second", doc: "DNS questions of one client", restart: true},
		count("book_entries", "262144", "Entries of the book of answers"),
	}
}

func poolKeys() []key {
	return []key{
		{path: "pools", kind: poolsKind, doc: "Sets of runners, each with one allowlist; without any, every client is refused"},
		{path: "pools.*", kind: sectionKind, doc: "One pool; its name is letters, digits, -, _ and dots"},
		{path: "pools.*.mode", kind: wordKind, words: []string{"enforce", "audit", "block=enforce", "monitor=audit", "report=audit"}, def: "enforce", doc: "Whether what is not allowed is refused, or forwarded and reported"},
		{path: "pools.*.sources", kind: sourcesKind, def: "[]", doc: "Client addresses of the pool; the longest prefix wins, and two pools have the same only by interfaces in different VRFs"},
		{path: "pools.*.interfaces", kind: interfacesKind, def: "[]", doc: "On a gateway, the interfaces by which the pool's packets come in; with sources, both must hold", restart: true},
		{path: "pools.*.listen", kind: sectionKind, doc: "Listeners of the pool's own, instead of or beside sources", restart: true},
		{path: "pools.*.listen.proxy", kind: listenKind, def: "[]", doc: "As listen.proxy", restart: true},
		{path: "pools.*.listen.dns", kind: listenKind, def: "[]", doc: "As listen.dns", restart: true},
		{path: "pools.*.listen.transparent", kind: listenKind, def: "[]", doc: "As listen.transparent, without auto", restart: true},
		{path: "pools.*.resolves_to", kind: prefixesKind, def: "[]", doc: "Special-range addresses that the answers of every host rule of the pool may lie in"},
		{path: "pools.*.ech", kind: wordKind, words: []string{"outer", "deny"}, def: "outer", doc: "Whether an encrypted ClientHello passes if its outer name is the allowed host"},
		{path: "pools.*.presets", kind: presetsKind, def: "[]", doc: "Built-in lists: a name, or a mapping of preset, resolves_to and the preset's parameters"},
		{path: "pools.*.allow", kind: rulesKind, def: "[]", doc: "What the pool may reach: NAME, NAME:PORT,PORT or a mapping; port 443 unless said"},
		{path: "pools.*.deny", kind: rulesKind, def: "[]", doc: "What the pool may not reach, before any allow rule and preset; every port unless said"},
		{path: "pools.*.quiet", kind: rulesKind, def: "[]", doc: "What is refused without a denied-egress alert; every port unless said"},
		{path: "default_pool", kind: textKind, def: `""`, doc: "Pool of a client that no source matches; empty refuses it"},
	}
}

func ruleKeys() []key {
	rows := []key{
		{path: "pools.*.allow[].host", kind: textKind, doc: "Name, *.name or name with one * in its first label; either host or cidr must be given"},
		{path: "pools.*.allow[].cidr", kind: textKind, doc: "Addresses, for connections made to an address and not to a name"},
		{path: "pools.*.allow[].ports", kind: portsKind, def: "[443]", doc: `Ports, or "*" for every port`},
		{path: "pools.*.allow[].tls", kind: wordKind, words: []string{"require", "off"}, doc: "Whether a connection must begin with a ClientHello that names the host; require is the default on port 443, off elsewhere"},
		{path: "pools.*.allow[].resolves_to", kind: prefixesKind, def: "[]", doc: "Special-range addresses that the host's answers may lie in"},
		{path: "pools.*.allow[].dns_types", kind: dnsTypesKind, def: "[]", doc: "DNS types beyond A, AAAA, CNAME, HTTPS and SVCB"},
		{path: "pools.*.allow[].upload_limit", kind: sizeKind, least: 1, doc: "Most bytes that may be sent, TLS included, per connection, and per client and host in a rolling hour"},
		{path: "pools.*.allow[].anyone", kind: boolKind, def: "false", doc: "Needed for a wildcard directly over a private public suffix"},
		{path: "pools.*.allow[].reason", kind: textKind, def: `""`, doc: "Why the rule is there"},
		{path: "pools.*.allow[].owner", kind: textKind, def: `""`, doc: "Who answers for the rule"},
		{path: "pools.*.allow[].expires", kind: dateKind, doc: "Day, YYYY-MM-DD, at whose 00:00 UTC the rule ends"},
	}
	for _, list := range []string{"deny", "quiet"} {
		at := "pools.*." + list + "[]."
		rows = append(rows,
			key{path: at + "host", kind: textKind, doc: "As in allow; in deny any wildcard may be given"},
			key{path: at + "cidr", kind: textKind, doc: "As in allow"},
			key{path: at + "ports", kind: portsKind, def: `"*"`, doc: `Ports, or "*" for every port`},
			key{path: at + "reason", kind: textKind, def: `""`, doc: "Why the rule is there"},
			key{path: at + "owner", kind: textKind, def: `""`, doc: "Who answers for the rule"})
	}
	return append(rows,
		key{path: "pools.*.presets[].preset", kind: textKind, doc: "Name of the preset"},
		key{path: "pools.*.presets[].resolves_to", kind: prefixesKind, def: "[]", doc: "Special-range addresses that answers for the preset's hosts may lie in"})
}

func logKeys() []key {
	return []key{
		{path: "log", kind: sectionKind, doc: "The event log", restart: true},
		{path: "log.events", kind: pathKind, def: "stdout", doc: "stdout, or a file (mode 0640, reopened on SIGHUP)", restart: true},
		{path: "log.progress", kind: durationKind, def: "60s", least: int64(time.Second), doc: "How often a tunnel that is still open gets a line", restart: true},
		{path: "log.on_error", kind: wordKind, words: []string{"continue", "deny"}, def: "continue", doc: "Whether a log that cannot be written drops events, counted and announced, or refuses new work", restart: true},
	}
}

func alertKeys() []key {
	severities := []string{"info", "medium", "high", "critical"}
	return []key{
		{path: "alerts", kind: sectionKind, doc: "Alerts and where they go", restart: true},
		{path: "alerts.group_interval", kind: durationKind, def: "5m", least: int64(time.Second), doc: "How often an open group of alerts is reported again", restart: true},
		{path: "alerts.state_dir", kind: pathKind, def: `""`, doc: "Directory that keeps baseline, book of answers and undelivered alerts over restarts, kill -9 included; made (0700) if missing, one for each daemon", restart: true},
		{path: "alerts.baseline", kind: sectionKind, doc: "How first-seen learns", restart: true},
		{path: "alerts.baseline.learn", kind: durationKind, def: "7d", doc: "How long a pool learns before first-seen speaks", restart: true},
		{path: "alerts.baseline.jobs", kind: countKind, def: "50", doc: "How many jobs a pool learns from before first-seen speaks", restart: true},
		{path: "alerts.baseline.file", kind: pathKind, def: `""`, doc: "A baseline to start from", restart: true},
		{path: "alerts.thresholds", kind: sectionKind, doc: "The numbers of docs/alerts.md", restart: true},
		{path: "alerts.slack", kind: sectionKind, doc: "The Slack sink", restart: true},
		{path: "alerts.slack.webhook_url", kind: secretURLKind, def: `"${SLACK_WEBHOOK_URL}"`, doc: "Incoming webhook; empty, or the default while that variable is unset, switches Slack off", restart: true},
		{path: "alerts.slack.webhook_url_file", kind: secretFileKind, def: `""`, doc: "File that holds webhook_url", restart: true},
		{path: "alerts.slack.min_severity", kind: wordKind, words: severities, def: "medium", doc: "Lowest severity that is sent", restart: true},
		{path: "alerts.slack.daily", kind: clockKind, def: `""`, doc: "Time of day, in UTC, of a summary of the day before, sent to webhook_url even if nothing happened; empty: none", restart: true},
		{path: "alerts.slack.routes", kind: routesKind, def: "[]", doc: "Other webhooks for the alerts of some pools; the first route that fits takes the alert", restart: true},
		{path: "alerts.slack.routes[].pools", kind: textsKind, def: "[]", doc: "Pools of the route; empty means every pool", restart: true},
		{path: "alerts.slack.routes[].min_severity", kind: wordKind, words: severities, def: "medium", doc: "Lowest severity of the route", restart: true},
		{path: "alerts.slack.routes[].webhook_url", kind: secretURLKind, def: `""`, doc: "Incoming webhook of the route", restart: true},
		{path: "alerts.slack.routes[].webhook_url_file", kind: secretFileKind, def: `""`, doc: "File that holds webhook_url", restart: true},
		{path: "alerts.webhook", kind: sectionKind, doc: "The generic webhook sink", restart: true},
		{path: "alerts.webhook.url", kind: secretURLKind, def: `""`, doc: "Where alerts are posted; empty switches it off", restart: true},
		{path: "alerts.webhook.url_file", kind: secretFileKind, def: `""`, doc: "File that holds url", restart: true},
		{path: "alerts.webhook.hmac_secret", kind: secretKind, def: `""`, doc: "Secret that signs each post, HMAC-SHA256 over timestamp and body", restart: true},
		{path: "alerts.webhook.hmac_secret_file", kind: secretFileKind, def: `""`, doc: "File that holds hmac_secret", restart: true},
		{path: "alerts.alertmanager", kind: sectionKind, doc: "The Alertmanager sink", restart: true},
		{path: "alerts.alertmanager.url", kind: secretURLKind, def: `""`, doc: "Alertmanager's address, without /api/v2/alerts; https://USER:PASSWORD@HOST for basic authentication; empty switches it off", restart: true},
		{path: "alerts.alertmanager.url_file", kind: secretFileKind, def: `""`, doc: "File that holds url", restart: true},
		{path: "alerts.alertmanager.token", kind: secretKind, def: `""`, doc: "Bearer token of each post", restart: true},
		{path: "alerts.alertmanager.token_file", kind: secretFileKind, def: `""`, doc: "File that holds token", restart: true},
		{path: "alerts.alertmanager.min_severity", kind: wordKind, words: severities, def: "medium", doc: "Lowest severity that is sent", restart: true},
		{path: "alerts.syslog", kind: sectionKind, doc: "The syslog sink (RFC 5424)", restart: true},
		{path: "alerts.syslog.address", kind: syslogKind, def: `""`, doc: "udp://HOST, tcp://HOST or tls://HOST, each with a :PORT unless it is 514, 601 or 6514, or unix:/dev/log; empty switches it off", restart: true},
		{path: "alerts.syslog.ca_file", kind: pathKind, def: `""`, doc: "Certificates (PEM) to trust for tls:// instead of the system's; read at start", restart: true},
		{path: "alerts.syslog.min_severity", kind: wordKind, words: severities, def: "medium", doc: "Lowest severity that is sent", restart: true},
		{path: "alerts.links", kind: sectionKind, doc: "Links that messages carry; there are none without", restart: true},
		{path: "alerts.links.docs", kind: docsLinkKind, def: `""`, doc: "What explains a kind of alert: an https or http URL in which {alert} stands for its name", restart: true},
		{path: "alerts.links.event", kind: eventLinkKind, def: `""`, doc: "Where an event is looked up: an https or http URL in which {id} stands for its id", restart: true},
	}
}

func thresholdKeys() []key {
	row := func(name string, kind *kind, def, doc string) key {
		return key{path: thresholdsPath + "." + name, kind: kind, def: def, least: 1, doc: doc, restart: true}
	}
	capped := func(k key, most int64) key {
		k.most = most
		return k
	}
	return []key{
		row("denied_then_direct_window", durationKind, "30s", "denied-then-direct: time from a refused name to the direct connection"),
		row("address_mismatch_hold", durationKind, "10m", "address-mismatch: held back this long after a start without a kept book"),
		capped(row("scan_destinations", countKind, "20", "scan: different refused destinations or ports of one client; at most 1000"), 1000),
		row("scan_window", durationKind, "60s", "scan: within this time"),
		row("dns_tunnel_names", countKind, "100", "dns-tunnel: unique names under one registrable domain by one client"),
		row("dns_tunnel_bytes", sizeKind, "8KiB", "dns-tunnel: bytes that its names and repeats carry"),
		row("dns_tunnel_window", durationKind, "10m", "dns-tunnel: names and bytes are counted within this time"),
		row("dns_tunnel_day_bytes", sizeKind, "64KiB", "dns-tunnel: bytes that names and repeats carry in 24 hours"),
		capped(row("upload_factor", countKind, "10", "upload-volume: times the pool's usual within an hour; at most 1000"), 1000),
		row("upload_floor", sizeKind, "10MB", "upload-volume: no less than this is more than usual"),
		row("lookalike_min_letters", countKind, "5", "lookalike: letters of the shortest domain compared, digits aside"),
		row("resolved_unused_after", durationKind, "10m", "resolved-unused: time from the answer in which no connection used the name"),
		row("fold_groups", countKind, "5", "More open groups of one kind and client than this fold into one"),
		row("fold_listed", countKind, "10", "Destinations that a folded group lists"),
		row("first_digest", durationKind, "30s", "Time to the first digest of a group; later ones come every group_interval"),
		row("expiry_warning", durationKind, "14d", "How long before its end a rule is warned about"),
		row("first_seen_repeats", countKind, "2", "first-seen: distinct jobs or days before a destination enters the baseline"),
		row("webhook_keep", durationKind, "24h", "How long alerts are kept for a sink that has stopped"),
	}
}

// thresholdsPath is where the thresholds stand.
const thresholdsPath = "alerts.thresholds"

// presetKeys is the table of every key of a preset's file.
func presetKeys() []key {
	return []key{
		{path: "name", kind: textKind, doc: "Name of the preset"},
		{path: "description", kind: textKind, def: `""`, doc: "One sentence"},
		{path: "params", kind: textsKind, def: "[]", doc: "Parameters, written {name} in hosts"},
		{path: "hosts", kind: rulesKind, def: "[]", doc: "Hosts of the preset"},
		{path: "quiet", kind: rulesKind, def: "[]", doc: "What is refused without an alert"},
		{path: "downloads", kind: rulesKind, def: "[]", doc: "Files that jobs take from there, for presets verify; they allow nothing"},
		{path: "downloads[].url", kind: textKind, doc: "HTTPS URL of a file, on port 443 of a host of the preset"},
		{path: "downloads[].source", kind: textKind, def: `""`, doc: "Public source of the line"},
		{path: "downloads[].verified", kind: textKind, def: `""`, doc: "Day the source was read, or unverified"},
		{path: "hosts[].host", kind: textKind, doc: "As pools.*.allow[].host"},
		{path: "hosts[].cidr", kind: textKind, doc: "As pools.*.allow[].cidr"},
		{path: "hosts[].resolves_to", kind: prefixesKind, def: "[]", doc: "As pools.*.allow[].resolves_to"},
		{path: "hosts[].ports", kind: portsKind, def: "[443]", doc: "As pools.*.allow[].ports"},
		{path: "hosts[].source", kind: textKind, def: `""`, doc: "Public source of the line"},
		{path: "hosts[].verified", kind: textKind, def: `""`, doc: "Day the source was read, or unverified"},
		{path: "hosts[].writable", kind: boolKind, def: "false", doc: "Whether anyone can write data there with an account of their own"},
		{path: "hosts[].tls", kind: wordKind, words: []string{"require", "off"}, doc: "As pools.*.allow[].tls"},
		{path: "hosts[].dns_types", kind: dnsTypesKind, def: "[]", doc: "As pools.*.allow[].dns_types"},
		{path: "hosts[].anyone", kind: boolKind, def: "false", doc: "As pools.*.allow[].anyone"},
		{path: "hosts[].reason", kind: textKind, def: `""`, doc: "Why the host is needed"},
		{path: "quiet[].host", kind: textKind, doc: "As pools.*.quiet[].host"},
		{path: "quiet[].ports", kind: portsKind, def: `"*"`, doc: "As pools.*.quiet[].ports"},
		{path: "quiet[].source", kind: textKind, def: `""`, doc: "Public source of the line"},
		{path: "quiet[].verified", kind: textKind, def: `""`, doc: "Day the source was read, or unverified"},
		{path: "quiet[].reason", kind: textKind, def: `""`, doc: "Why it is noise"},
	}
}
