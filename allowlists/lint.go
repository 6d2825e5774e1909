package allowlists

import (
	"net/netip"
	"strings"

	"sallyport/allowlists/diag"
)

// lint adds warnings about what loads but is probably not meant.
func (l *loader) lint(root *diag.Node, all values) {
	if len(l.spec.Pools) == 0 {
		l.report.Warnf(root.Place, "there is no pool, so every client is refused; add one below pools")
	}
	l.lintSinks(all)
	interfaces := make(map[string]string)
	for i := range l.spec.Pools {
		spec := &l.spec.Pools[i]
		places := l.places[spec.Name]
		l.lintClients(spec, places, interfaces)
		r := ruleLint{loader: l, spec: spec, places: places}
		r.run()
		places.presets, places.carets, places.presetRules = nil, nil, nil
		l.places[spec.Name] = places
	}
	l.lintReach(all)
}

// lintSinks warns about alerts that others could read or forge.
func (l *loader) lintSinks(all values) {
	alerts := &l.settings.Alerts
	if plain(alerts.Slack.WebhookURL) {
		l.report.Warnf(all["alerts.slack.webhook_url"].at(), "alerts.slack.webhook_url is not https, so that its secret can be read on the way; use https://")
	}
	if plain(alerts.Webhook.URL) {
		l.report.Warnf(all["alerts.webhook.url"].at(), "alerts.webhook.url is not https, so that alerts can be read on the way; use https://")
	}
	if alerts.Webhook.URL != "" && alerts.Webhook.HMACSecret == "" {
		l.report.Warnf(all["alerts.webhook"].at(), "posts to alerts.webhook are not signed; set hmac_secret_file, so that the receiver can tell them from others")
	}
}

// plain reports whether a URL goes over the network without TLS.
func plain(url string) bool {
	rest, found := strings.CutPrefix(url, "http://")
	return found && !strings.HasPrefix(rest, "127.") && !strings.HasPrefix(rest, "localhost") && !strings.HasPrefix(rest, "[::1]")
}

// lintClients warns about who is in a pool, or is not.
func (l *loader) lintClients(spec *PoolSpec, places poolPlaces, interfaces map[string]string) {
	own := len(spec.Listen.Proxy) + len(spec.Listen.DNS) + len(spec.Listen.Transparent)
	if len(spec.Sources)+len(spec.Interfaces)+own == 0 && l.spec.DefaultPool != spec.Name {
		l.report.Warnf(places.pool, "no client is ever in pool %q; give it sources, or make it default_pool", spec.Name)
	}
	if len(spec.Allow) == 0 {
		l.report.Warnf(places.pool, "pool %q allows nothing; add allow rules or presets", spec.Name)
	}
	if spec.Mode == Audit {
		l.report.Warnf(places.mode, "pool %q is in audit: what is not allowed is reported, and forwarded all the same; set mode: enforce to refuse it", spec.Name)
	}
	for i, prefix := range spec.Sources {
		if prefix.Bits() == 0 {
			l.report.Warnf(places.at("sources", i), "pool %q takes every client (%s); name the runners' own prefixes", spec.Name, prefix)
		}
	}
	for i, prefix := range spec.ResolvesTo {
		l.lintOpen(places.at("resolves_to", i), prefix, "pool \""+spec.Name+"\"")
	}
	for i, name := range spec.Interfaces {
		if other, taken := interfaces[name]; taken && other != spec.Name {
			l.report.Warnf(places.at("interfaces", i), "pools %q and %q share the interface %s, where a job can take any address; give each pool an interface of its own", other, spec.Name, name)
		}
		interfaces[name] = spec.Name
	}
}

// lintOpen warns about a resolves_to that lifts every guard against rebinding, or
// the one of a metadata address.
func (l *loader) lintOpen(at diag.Place, prefix netip.Prefix, whose string) {
	if prefix.Bits() == 0 {
		l.report.Warnf(at, "resolves_to %s of %s lets names lead to every private address; list the ranges that are meant", prefix, whose)
	}
	if opensMetadata(prefix) {
		l.report.Warnf(at, "resolves_to %s of %s lets names lead to the credentials that a cloud keeps at this address; remove it unless that is meant", prefix, whose)
	}
}

// opensMetadata reports whether a prefix in a rule lifts the guard of a cloud's
// metadata address, which takes exactly this address.
func opensMetadata(p netip.Prefix) bool { return p.IsValid() && p.IsSingleIP() && IsMetadata(p.Addr()) }

// lintReach warns about pools whose clients cannot reach any listener.
func (l *loader) lintReach(all values) {
	local := func(addrs []string) bool {
		for _, addr := range addrs {
			if ap, err := netip.ParseAddrPort(addr); err != nil || !ap.Addr().IsLoopback() {
				return false
			}
		}
		return true
	}
	shared := l.settings.Listen
	if !local(shared.Proxy) || !local(shared.DNS) || !local(shared.Transparent) {
		return
	}
	for i := range l.spec.Pools {
		spec := &l.spec.Pools[i]
		if !local(spec.Listen.Proxy) || !local(spec.Listen.DNS) || !local(spec.Listen.Transparent) {
			continue
		}
		places := l.places[spec.Name]
		for i, prefix := range spec.Sources {
			if !prefix.Addr().IsLoopback() && prefix.Bits() > 0 {
				l.report.Warnf(places.at("sources", i), "clients of pool %q (%s) cannot reach a listener, as all are on loopback; set listen.proxy and listen.dns to an address they can reach", spec.Name, prefix)
				break
			}
		}
	}
}
