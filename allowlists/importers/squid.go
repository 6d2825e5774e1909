package importers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// readSquid reads the acl and http_access lines of a squid.conf. The first line
// whose terms all hold decides; a pool is made for each set of clients that an
// allow line names.
func readSquid(d *draft, text []byte) error {
	conf, err := parseSquid(d.file, text)
	if err != nil {
		return err
	}
	keys := conf.clients()
	if len(keys) > maxPools || len(keys)*len(conf.access) > maxCompared {
		return errTooLarge
	}
	for _, key := range keys {
		name := ""
		if len(keys) > 1 && key != "" {
			name = d.options.Pool + "-" + key
		}
		w := &squidWalk{pool: d.newPool(name, "enforce"), conf: conf, key: key, tunnel: allPorts(), plain: allPorts()}
		w.run()
		if d.full() || conf.work > maxCompared {
			return errTooLarge
		}
	}
	return nil
}

// A squidWalk goes through the lines for one set of clients, and keeps what
// those before the present one leave open.
type squidWalk struct {
	*pool
	conf          *squidConf
	key           string      // the acl of the clients; "" for all
	only          []squidHost // what a "deny !sites" left; see limited
	limited       bool
	tunnel, plain ports  // the ports left for CONNECT, and for plain HTTP
	blocked       string // a deny line that cannot be said
	stopped       int    // the line after which nothing is reached
	anyPort       bool   // some rule opens every port
}

// A squidTerms is what a line asks for, its terms put together.
type squidTerms struct {
	hosts, notHosts   []squidHost
	named, notNamed   bool // there are such terms
	addrs             []netip.Prefix
	addressed         bool
	ports, notPorts   ports
	ported, notPorted bool
	connect, plain    bool   // CONNECT, !CONNECT
	local             bool   // is about Squid itself or the machine's own addresses
	never             bool   // !all
	clients           string // the acl of its clients, "" for all
	bad               string // why it cannot be said
}

// squidClients are the types of acl that are about who asks.
var squidClients = map[string]bool{"src": true, "srcdomain": true, "arp": true, "eui64": true, "src_as": true, "myportname": true, "localport": true, "localip": true}

// clients lists the sets of clients that allow lines name, in order.
func (c *squidConf) clients() []string {
	var keys []string
	for _, line := range c.access {
		if t := c.terms(line); line.allow && !t.local && !t.never && !slices.Contains(keys, t.clients) {
			keys = append(keys, t.clients)
		}
	}
	if len(keys) == 0 {
		return []string{""}
	}
	return keys
}

// terms puts the terms of a line together.
func (c *squidConf) terms(line squidAccess) squidTerms {
	t := squidTerms{ports: allPorts()}
	c.work += len(line.terms)
	for _, term := range line.terms {
		c.term(&t, term)
	}
	return t
}

// term adds one term to those before it.
func (c *squidConf) term(t *squidTerms, term squidTerm) {
	switch c.builtIn(term.name) {
	case "all":
		t.never = t.never || term.not
		return
	case "manager", "to_localhost", "to_linklocal":
		if term.not {
			return // neither is ever reached through Sallyport
		}
		t.local = true
		return
	case "CONNECT":
		t.connect, t.plain = t.connect || !term.not, t.plain || term.not
		return
	}
	a := c.acls[term.name]
	switch {
	case a == nil && term.name == "localhost" || a != nil && squidClients[a.kind]:
		c.client(t, term)
	case a == nil:
		t.because("acl %s is not in this file", term.name)
	case a.kind == "dstdomain" || a.kind == "dstdom_regex":
		t.addHosts(c, a, term.not)
	case a.kind == "port":
		t.addPorts(a, term.not)
	case a.kind == "dst" && !term.not:
		list, bad := a.prefixes()
		if bad != "" || t.addressed {
			t.because("acl %s: %s", a.name, orElse(bad, "a second set of addresses"))
		}
		t.addrs, t.addressed = list, true
	case a.kind == "method" && len(a.values) == 1 && a.values[0].text == "CONNECT":
		t.connect, t.plain = t.connect || !term.not, t.plain || term.not
	default:
		t.because("acl %s is about %s", a.name, a.kind)
	}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// builtIn gives the name of an acl that Squid has of its own, "" if the file
// makes something else of it.
func (c *squidConf) builtIn(name string) string {
	kinds := map[string][]string{"all": {"src"}, "manager": {"proto", "url_regex"}, "to_localhost": {"dst"}, "to_linklocal": {"dst"}, "CONNECT": {"method"}}
	a := c.acls[name]
	usual := a == nil || slices.Contains(kinds[name], a.kind)
	if name == "CONNECT" && a != nil {
		usual = a.kind == "method" && len(a.values) == 1 && a.values[0].text == "CONNECT"
	}
	if !usual {
		return ""
	}
	return name
}

// because says why a line cannot be said; the first cause is kept.
func (t *squidTerms) because(format string, args ...any) {
	if t.bad == "" {
		t.bad = fmt.Sprintf(format, args...)
	}
}

// client adds a term about who asks.
func (c *squidConf) client(t *squidTerms, term squidTerm) {
	name := term.name
	if term.not {
		name = "!" + name
	}
	switch {
	case t.clients == "" || t.clients == name:
		t.clients = name
	default:
		t.because("two sets of clients at once")
	}
}

// addHosts adds names: several terms hold together, so that what is left is
// what each of them has.
func (t *squidTerms) addHosts(c *squidConf, a *squidACL, not bool) {
	if c.work += 1 + len(a.values); c.work > maxCompared {
		t.because("the file is too large")
		return
	}
	hosts, bad := a.hosts()
	switch {
	case bad != "":
		t.because("acl %s: %s", a.name, bad)
	case not && t.notNamed:
		t.notHosts = append(t.notHosts, hosts...)
	case not:
		t.notHosts, t.notNamed = hosts, true
	case t.named:
		t.hosts = inBoth(t.hosts, hosts)
	default:
		t.hosts, t.named = hosts, true
	}
}

// addPorts adds ports in the same way.
func (t *squidTerms) addPorts(a *squidACL, not bool) {
	set, bad := a.ports()
	switch {
	case bad != "":
		t.because("acl %s: %s", a.name, bad)
	case not:
		t.notPorts, t.notPorted = t.notPorts.union(set), true
	default:
		t.ports, t.ported = t.ports.with(set), true
	}
}

// run goes through the lines.
func (w *squidWalk) run() {
	w.tellClients()
	for i, line := range w.conf.access {
		t := w.conf.terms(line)
		if t.never || !w.concerns(line, &t) {
			continue
		}
		if w.stopped > 0 {
			w.note(Same, "order", "line %d and what follows is never reached, as line %d decides about everything", line.line, w.stopped)
			break
		}
		if line.allow {
			w.allow(line, &t, i)
		} else {
			w.deny(line, &t, i)
		}
	}
	last := w.conf.access[len(w.conf.access)-1]
	if w.stopped == 0 && !last.allow {
		w.note(LeftOut, "default", "the last http_access line denies, so that what no line is for is allowed there; here it is refused")
	}
	if w.anyPort {
		w.tellPorts()
	}
	for _, other := range w.conf.others {
		w.note(LeftOut, "setting", "%s (line %d) decides or changes where requests go, too, and is not read", other.text, other.line)
	}
	w.settle(func(a, d placed) bool { return a.rank.order < d.rank.order })
}

// tellClients names the clients of the pool.
func (w *squidWalk) tellClients() {
	if w.key == "" {
		return
	}
	w.note(Same, "clients", "these rules are for the clients of acl %s only: give the pool its sources before it is used", w.key)
	if a := w.conf.acls[w.key]; a != nil && a.kind == "src" {
		if list, bad := a.prefixes(); bad == "" {
			for _, prefix := range list[:min(len(list), 16)] {
				w.Sources = append(w.Sources, prefix.String())
			}
		}
	}
}

// concerns reports whether a line can hold for the clients of this pool, and
// takes the term about them out.
func (w *squidWalk) concerns(line squidAccess, t *squidTerms) bool {
	other, not := strings.CutPrefix(t.clients, "!")
	if not && w.key == "" && !line.allow && len(line.terms) == 1 {
		w.key = other // what follows is for those clients only
		w.tellClients()
	}
	switch {
	case t.clients == "" || t.clients == w.key:
		return true
	case not && other == w.key:
		return false
	case line.allow:
		return false // a pool of its own is for them
	case !not && w.apart(other):
		return false
	}
	t.because("who of these clients is in acl %s cannot be told", other)
	return true
}

// apart reports whether no client is both of this pool and of an acl.
func (w *squidWalk) apart(name string) bool {
	mine, theirs := w.conf.acls[w.key], w.conf.acls[name]
	if mine == nil || theirs == nil || mine.kind != "src" || theirs.kind != "src" {
		return false
	}
	a, bad := mine.prefixes()
	b, bad2 := theirs.prefixes()
	if bad != "" || bad2 != "" || len(a)*len(b) > maxCompared {
		return false
	}
	return !slices.ContainsFunc(a, func(x netip.Prefix) bool {
		return slices.ContainsFunc(b, func(y netip.Prefix) bool { return x.Overlaps(y) })
	})
}
