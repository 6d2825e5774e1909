package allowlists

import "strings"

// publicResolvers are names at which public DNS over HTTPS or TLS answers, and
// the names below them. A job that reaches one asks past our resolver, so a
// wildcard never opens one: a rule must name it exactly. Sources: the vendors'
// own pages, and the list at github.com/curl/curl/wiki/DNS-over-HTTPS.
var publicResolvers = func() map[string]bool {
	set := make(map[string]bool)
	for _, name := range strings.Fields(`
		dns.google dns.google.com dns64.dns.google 8888.google
		cloudflare-dns.com one.one.one.one 1dot1dot1dot1.com cloudflare-gateway.com
		dns.quad9.net dns9.quad9.net dns10.quad9.net dns11.quad9.net dns12.quad9.net
		doh.opendns.com doh.familyshield.opendns.com doh.sandbox.opendns.com doh.umbrella.com dns.umbrella.com
		dns.nextdns.io dns1.nextdns.io dns2.nextdns.io anycast.dns.nextdns.io doh.nextdns.io
		dns.adguard.com dns-family.adguard.com dns-unfiltered.adguard.com adguard-dns.com
		doh.cleanbrowsing.org family-filter-dns.cleanbrowsing.org
		freedns.controld.com dns.controld.com
		doh.mullvad.net dns.mullvad.net base.dns.mullvad.net
		doh.libredns.gr dot.libredns.gr doh.dns.sb dot.sb dns.sb
		dns.alidns.com doh.pub dot.pub dns.pub doh.360.cn dot.360.cn
		dns.twnic.tw dns0.eu zero.dns0.eu kids.dns0.eu
		dns.digitale-gesellschaft.ch doh.applied-privacy.net dot1.applied-privacy.net
		dns.switch.ch doh.ffmuc.net dot.ffmuc.net dnsforge.de doh.tiar.app dot.tiar.app
		public.dns.iij.jp dns.njal.la doh.bortzmeyer.fr odvr.nic.cz
		ordns.he.net dns.comss.one wikimedia-dns.org doh.crypto.sx doh.powerdns.org
		doh.xfinity.com dns.rabbitdns.org unicast.uncensoreddns.org anycast.uncensoreddns.org
		dns.decloudus.com open.dns0.eu doh.li dns.oszx.co jp.tiar.app dandelionsprout.asuscomm.com
		ns0.fdn.fr ns1.fdn.fr basic.bravedns.com sky.rethinkdns.com max.rethinkdns.com
		dns.cloudflare.com mask.icloud.com mask-h2.icloud.com`) {
		set[name] = true
	}
	return set
}()

// publicResolverTails are the last two labels of every public resolver, so that
// most names are cleared by one look-up.
var publicResolverTails = func() map[string]bool {
	set := make(map[string]bool)
	for name := range publicResolvers {
		set[lastTwo(name)] = true
	}
	return set
}()

// lastTwo cuts a name to its last two labels.
func lastTwo(name string) string {
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		return name[strings.LastIndexByte(name[:i], '.')+1:]
	}
	return name
}

// isPublicResolver reports whether h is a public resolver's name, or lies below one.
func isPublicResolver(h Host) bool {
	if !publicResolverTails[lastTwo(h.name)] {
		return false
	}
	for name, dotted := h.name, true; dotted; _, name, dotted = strings.Cut(name, ".") {
		if publicResolvers[name] {
			return true
		}
	}
	return false
}
