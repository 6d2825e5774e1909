package allowlists

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"sallyport/allowlists/diag"
)

// The kinds of what stands in pools, read after the other keys.
var poolsKind, rulesKind, presetsKind *kind

func init() {
	poolsKind = &kind{"a mapping of pool names to pools", parsePoolNodes}
	rulesKind = &kind{"a list of rules", parseNodes}
	presetsKind = &kind{"a list of presets", parseNodes}
}

func parsePoolNodes(l *loader, k *key, n *diag.Node) (any, bool) {
	if n.Kind != diag.Map {
		return nil, l.wrongKind(k, n)
	}
	return n, true
}

// poolName is what a pool may be called: the name goes into status lines,
// metrics and file names.
var poolName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// poolPlaces keeps where the parts of a pool stand, for lint.
type poolPlaces struct {
	pool  diag.Place
	mode  diag.Place
	lists map[string][]diag.Place // of sources, interfaces and resolves_to, by the key and the index in it
	// What follows is there until lint has read it.
	presets     []diag.Place       // by the index of PoolSpec.Presets
	carets      map[string][]int32 // of the rules of a list; where they stand is in the rules
	presetRules [][]Rule           // of each preset, by the same index
}

// fillPools turns the pools of the file into specifications.
func (l *loader) fillPools(all values) {
	pools, _ := all["pools"].value.(*diag.Node)
	if pools == nil {
		return
	}
	sources := make(map[netip.Prefix][]claim)
	for _, e := range pools.Entries {
		if !poolName.MatchString(e.Key) {
			l.report.Errorf(e.Place, "%q is no name for a pool; use letters, digits, -, _ and dots, at most 63", short(e.Key))
			continue
		}
		switch e.Value.Kind {
		case diag.Map:
			l.pool(e, sources)
		case diag.Bad:
		default:
			l.report.Errorf(e.Value.Place, "pool %q has %s where its keys belong; write them, or {} for a pool that allows nothing", e.Key, e.Value.Kind)
		}
	}
	names := make([]string, len(l.spec.Pools))
	known := make(map[string]bool)
	for i, p := range l.spec.Pools {
		names[i], known[p.Name] = p.Name, true
	}
	for _, n := range l.routePools {
		if n.Kind == diag.Text && !known[n.Text] {
			l.report.Errorf(n.Place, "%q is no pool; %s", short(n.Text), meant(n.Text, names, "pools"))
		}
	}
}

// itemPlaces are where the items of a list stand, or one value in its stead.
func itemPlaces(list *diag.Node) []diag.Place {
	if list == nil {
		return nil
	}
	if list.Kind != diag.List {
		return []diag.Place{list.Place}
	}
	places := make([]diag.Place, len(list.Items))
	for i, item := range list.Items {
		places[i] = item.Place
	}
	return places
}

// at is where an item of the pool's list stands: in a merged configuration,
// that may be another file than the one that names the pool first.
func (p *poolPlaces) at(list string, i int) diag.Place {
	if i < len(p.lists[list]) {
		return p.lists[list][i]
	}
	return p.pool
}

// A claim is a pool's claim to a source.
type claim struct {
	pool       string
	interfaces []string
}

// pool reads one pool.
func (l *loader) pool(e diag.Entry, sources map[netip.Prefix][]claim) {
	v, where := make(values), fmt.Sprintf("pool %q", e.Key)
	l.section(e.Value, "pools.*", where, v)
	own := func(name string) []string {
		path := "pools.*.listen." + name
		addrs := l.listens(fmt.Sprintf("listen.%s of %s", name, where), v[path])
		if len(addrs) > 0 { // so that to remove a pool without any wants no restart
			l.restart["pools."+e.Key+".listen."+name] = fmt.Sprint(addrs)
		}
		return addrs
	}
	spec := PoolSpec{
		Name: e.Key, Pos: e.Place.Pos,
		Mode:    map[string]Mode{"audit": Audit}[get[string](v, "pools.*.mode")],
		ECH:     map[string]ECHMode{"deny": ECHDeny}[get[string](v, "pools.*.ech")],
		Sources: get[[]netip.Prefix](v, "pools.*.sources"), Interfaces: get[[]string](v, "pools.*.interfaces"),
		ResolvesTo: get[[]netip.Prefix](v, "pools.*.resolves_to"),
		Listen:     PoolListen{Proxy: own("proxy"), DNS: own("dns"), Transparent: own("transparent")},
	}
	if len(spec.Interfaces) > 0 {
		l.restart["pools."+e.Key+".interfaces"] = fmt.Sprint(spec.Interfaces)
	}
	l.claimSources(v["pools.*.sources"].node, spec, sources)
	places := poolPlaces{pool: e.Place, mode: v["pools.*.mode"].at(), lists: make(map[string][]diag.Place), carets: make(map[string][]int32)}
	for _, name := range []string{"sources", "interfaces", "resolves_to"} {
		places.lists[name] = itemPlaces(v["pools.*."+name].node)
	}
	spec.Allow = l.rules(v, "allow", &spec, &places)
	spec.Deny = l.rules(v, "deny", &spec, &places)
	spec.Quiet = l.rules(v, "quiet", &spec, &places)
	l.addPresets(v, &spec, &places)
	l.spec.Pools = append(l.spec.Pools, spec)
	l.places[spec.Name] = places
}

// claimSources reports sources that another pool has too: a client can be in
// one pool only, unless the interfaces tell the pools apart.
func (l *loader) claimSources(list *diag.Node, spec PoolSpec, sources map[netip.Prefix][]claim) {
	for i, prefix := range spec.Sources {
		for _, other := range sources[prefix] {
			if disjoint(other.interfaces, spec.Interfaces) {
				continue
			}
			at := list.Place
			if i < len(list.Items) {
				at = list.Items[i].Place
			}
			l.report.Errorf(at, "source %s is one of pool %q too; give each client to one pool", prefix, other.pool)
			break
		}
		sources[prefix] = append(sources[prefix], claim{spec.Name, spec.Interfaces})
	}
}

// rules reads the allow, deny or quiet list of a pool.
func (l *loader) rules(v values, list string, spec *PoolSpec, places *poolPlaces) []Rule {
	nodes, _ := v["pools.*."+list].value.(*diag.Node)
	if nodes == nil {
		return nil
	}
	r := ruleReader{loader: l, path: "pools.*." + list + "[]", list: list, where: fmt.Sprintf("a rule of pool %q", spec.Name)}
	rules := make([]Rule, 0, len(nodes.Items))
	places.carets[list] = make([]int32, 0, len(nodes.Items))
	for _, item := range nodes.Items {
		l.pause()
		rule, ok := r.rule(item)
		if !ok {
			continue
		}
		if list == "allow" && !rule.Host.IsZero() {
			rule.ResolvesTo = joined(rule.ResolvesTo, spec.ResolvesTo)
		}
		rules = append(rules, rule)
		places.carets[list] = append(places.carets[list], int32(item.Caret))
	}
	return rules
}

// joined is two lists in one, which nobody may change; most rules have none of
// their own, and share that of their pool.
func joined(own, shared []netip.Prefix) []netip.Prefix {
	if len(own) == 0 {
		return slices.Clip(shared)
	}
	return slices.Concat(own, shared)
}
