package importers

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sallyport/allowlists"
)

// A draft is an import that is being made.
type draft struct {
	file    string
	options Options
	ports   ports // instead of every port; nil to keep that
	pools   []*pool
	names   map[string]bool // of the pools
	entries int
	err     error // the first that fail was told
}

// full reports whether there is more than a result may have. What makes pools
// in a loop asks for it.
func (d *draft) full() bool { return d.entries > maxRules || len(d.pools) > maxPools }

// fail ends the import with an error, once the source is read.
func (d *draft) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// A pool is one that is being made.
type pool struct {
	*draft
	Pool
	// closed says that the source refuses what no rule of its own names.
	closed bool
	denied []placed // what deny is to have; see settle
	given  []placed // what allow has
	// shadows are rules that were left out and still decide in the source, with
	// a pattern of ours that covers them.
	shadows []placed
	seen    map[string]bool
}

// A rule is one of ours: exactly one of host and prefix is set.
type rule struct {
	host   allowlists.Pattern
	prefix netip.Prefix
	ports  ports
}

// A placed rule knows the entry it is part of, and its rank in the source.
type placed struct {
	rule
	entry *Entry
	rank  rank
}

// A rank is what a format decides conflicts by: an order, or how specific a
// rule is.
type rank struct {
	order int
	kind  rankKind
}

// A rankKind tells apart what a format ranks otherwise.
type rankKind uint8

// newDraft checks the options.
func newDraft(file string, options Options) (*draft, error) {
	if options.Pool == "" {
		options.Pool = "imported"
	}
	if options.Pool != poolName(options.Pool) {
		return nil, fmt.Errorf("%q is no name for a pool; use letters, digits, -, _ and dots", clean(options.Pool))
	}
	d := &draft{file: file, options: options, names: make(map[string]bool)}
	if options.Ports != "" && options.Ports != "*" {
		set, err := parsePorts(options.Ports)
		if err != nil {
			return nil, err
		}
		d.ports = set
	}
	return d, nil
}

// newPool begins a pool. An empty name is that of the options; another comes
// behind it, made to fit.
func (d *draft) newPool(name, mode string) *pool {
	full := d.options.Pool
	if name != "" {
		full = poolName(name)
	}
	for n, base := 2, full; d.names[full]; n++ {
		full = poolName(base[:min(len(base), 55)] + "-" + strconv.Itoa(n))
	}
	d.names[full] = true
	p := &pool{draft: d, Pool: Pool{Name: full, Mode: mode}, closed: mode == "enforce", seen: make(map[string]bool)}
	d.pools = append(d.pools, p)
	return p
}

// poolName makes a name that our loader takes for a pool's.
func poolName(text string) string {
	name := strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-' {
			return c
		}
		return '-'
	}, text)
	name = strings.TrimLeft(name, "._-")
	if name == "" {
		return "imported"
	}
	return name[:min(len(name), 63)]
}

// note tells something of the whole pool, once.
func (p *pool) note(effect Effect, about, format string, args ...any) {
	n := Note{effect, about, clean(fmt.Sprintf(format, args...))}
	if !slices.Contains(p.Notes, n) {
		p.Notes = append(p.Notes, n)
	}
}

// note tells something of one rule, once.
func (e *Entry) note(effect Effect, about, format string, args ...any) {
	n := Note{effect, about, clean(fmt.Sprintf(format, args...))}
	if !slices.Contains(e.Notes, n) {
		e.Notes = append(e.Notes, n)
	}
}

// entry begins what comes of one rule of the source.
func (p *pool) entry(line int, source string) *Entry {
	p.entries++
	e := &Entry{Line: line, Source: short(source)}
	p.Allow = append(p.Allow, e)
	return e
}

// denial begins what comes of one rule of the source that refuses.
func (p *pool) denial(line int, source string) *Entry {
	p.entries++
	e := &Entry{Line: line, Source: short(source)}
	p.Deny = append(p.Deny, e)
	return e
}

// everyPort is what a rule without ports opens.
func (p *pool) everyPort() ports {
	if p.ports != nil {
		return p.ports
	}
	return allPorts()
}

// tellPorts says of a pool that its source opens every port.
func (p *pool) tellPorts() {
	if p.ports != nil {
		p.note(Narrower, "ports", "the source looks at no port; --ports left %s", p.ports)
		return
	}
	p.note(Same, "ports", "the source looks at no port, so every port is open here, too; name the ports that are needed (--ports 443 does that)")
}

// add gives an entry a rule of ours that means just what the source said,
// unless our loader would refuse it.
func (p *pool) add(e *Entry, r rule, order rank) {
	if why, mend := p.refused(r); why != "" {
		if mend != "" {
			e.Offered = append(e.Offered, mend)
		}
		e.note(LeftOut, "name", "%s", why)
		return
	}
	p.given = append(p.given, placed{r, e, order})
	if item := r.item(false); !p.seen[item] {
		p.seen[item] = true
		e.Rules = append(e.Rules, item)
	}
}

// addWider is add of a rule that allows more than the source did: it is only
// offered unless the options ask for it.
func (p *pool) addWider(e *Entry, r rule, order rank, about, why string) {
	if p.options.Wider {
		e.note(Wider, about, "%s", why)
		p.add(e, r, order)
		return
	}
	if refusal, mend := p.refused(r); refusal == "" {
		e.Offered = append(e.Offered, r.item(false))
	} else if mend != "" {
		e.Offered = append(e.Offered, mend)
	}
	e.note(LeftOut, about, "%s; the line below would allow more (--wider takes it)", why)
}

// refused says why our loader would not take a rule, and what it would take
// once a person has looked at it.
func (p *pool) refused(r rule) (why, mend string) {
	if _, ok := r.ports.list(); !ok {
		return "ports " + r.ports.String() + " are more than a rule can list", ""
	}
	if r.host.IsZero() {
		return "", ""
	}
	icann, private := r.host.PublicSuffix()
	switch {
	case icann:
		return fmt.Sprintf("%s would allow every .%s name", r.host, r.host.Base()), ""
	case private:
		return fmt.Sprintf("anyone can take a name below %s; the line below says that this is meant", r.host.Base()),
			fmt.Sprintf("{host: %q, ports: %s, anyone: true}", r.host, r.ports.flow())
	}
	return "", ""
}

// exact adds one name.
func (p *pool) exact(e *Entry, name string, set ports, order rank) {
	if r, ok := named(e, name, set); ok {
		p.add(e, r, order)
	}
}

// below adds every name below one.
func (p *pool) below(e *Entry, name string, set ports, order rank) {
	if r, ok := named(e, "*."+name, set); ok {
		p.add(e, r, order)
	}
}

// partial adds a pattern with one * inside its first label, where the source's
// * also stands for nothing and for dots.
func (p *pool) partial(e *Entry, pattern string, set ports, order rank) {
	if r, ok := named(e, pattern, set); ok {
		e.note(Narrower, "wildcard", "the * stood for any characters, dots and none as well; here for one or more within the label")
		p.add(e, r, order)
	}
}

// named makes a rule of a pattern. What is no name of ours is left out.
func named(e *Entry, pattern string, set ports) (rule, bool) {
	host, err := allowlists.ParsePattern(pattern)
	if err != nil {
		e.note(LeftOut, "name", "%s", err)
		return rule{}, false
	}
	return rule{host: host, ports: set}, true
}

// literal offers what stands for an address among names.
func (p *pool) literal(e *Entry, addr netip.Prefix, set ports) {
	e.Offered = append(e.Offered, rule{prefix: addr, ports: set}.item(false))
	e.note(LeftOut, "address", "an address among names; the line below allows connections to it that carry no name")
}

// item writes a rule as an item of a list in YAML.
func (r rule) item(deny bool) string {
	normal := ports{{443, 443}}
	if deny {
		normal = allPorts()
	}
	list, _ := r.ports.list()
	switch {
	case r.prefix.IsValid() && r.ports.all() && deny:
		return fmt.Sprintf("{cidr: %q}", r.prefix)
	case r.prefix.IsValid():
		return fmt.Sprintf("{cidr: %q, ports: %s}", r.prefix, r.ports.flow())
	case slices.Equal(r.ports, normal):
		return plain(r.host.String())
	case r.ports.all():
		return plain(r.host.String() + ":*")
	default:
		return plain(r.host.String() + ":" + list)
	}
}

// plain quotes a host where YAML could take it for something else: only a
// letter at the start and a dot make sure that it is neither a number nor a
// word with a meaning.
func plain(host string) string {
	if strings.Contains(host, "*") || !strings.Contains(host, ".") || host[0] < 'a' || host[0] > 'z' {
		return `"` + host + `"`
	}
	return host
}

// result is the draft with its conflicts settled.
func (d *draft) result(format string) *Result {
	result := &Result{Format: format}
	for _, p := range d.pools {
		for _, n := range p.Notes {
			if n.Effect == LeftOut {
				result.LeftOut++
			}
		}
		for _, e := range slices.Concat(p.Presets, p.Allow, p.Deny) {
			if slices.ContainsFunc(e.Notes, func(n Note) bool { return n.Effect == LeftOut }) {
				result.LeftOut++
			}
		}
		result.Pools = append(result.Pools, p.Pool)
	}
	return result
}
