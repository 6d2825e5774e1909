package allowlists

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sallyport/allowlists/diag"
)

// A ruleLint looks at the rules of one pool.
type ruleLint struct {
	*loader
	spec   *PoolSpec
	places poolPlaces

	own   []Rule // the pool's own allow rules
	allow *coverIndex
	deny  *coverIndex
}

func (r *ruleLint) run() {
	r.own = r.spec.Allow[:len(r.places.carets["allow"])]
	r.allow, r.deny = newCoverIndex(r.own), newCoverIndex(r.spec.Deny)
	r.allow.ordered = true
	writable := newCoverIndex(r.writableHosts())
	for i := range r.own {
		r.pause()
		rule := &r.own[i]
		at := diag.Place{Pos: rule.Pos, Caret: int(r.places.carets["allow"][i])}
		r.breadth(rule, at)
		r.expiry(rule, at)
		r.shadow(rule, at)
		if rule.UploadLimit == 0 && !rule.Host.IsZero() && writesTo(rule, writable) {
			r.report.Warnf(at, "anyone can write data to %s with an account of their own; set upload_limit", rule.Host)
		}
	}
	for i, caret := range r.places.carets["quiet"] {
		if rule := &r.spec.Quiet[i]; r.allow.covering(rule, false) != nil && r.deny.covering(rule, false) == nil {
			r.report.Warnf(diag.Place{Pos: rule.Pos, Caret: int(caret)}, "%s is allowed, so that quiet changes nothing; remove one of the two", rule.Text)
		}
	}
	r.presets()
}

// breadth warns about rules that are wider, or narrower, than they look.
func (r *ruleLint) breadth(rule *Rule, at diag.Place) {
	if rule.Ports.All() {
		r.report.Warnf(at, "%s is allowed on every port; name the ports that are needed", rule.Text)
	}
	if rule.TLS == TLSOff && rule.Ports.Contains(443) {
		r.report.Warnf(at, "tls: off on port 443 of %s lets a job claim this name and speak to another behind the same address; leave tls out", rule.Text)
	}
	if base, below := strings.CutPrefix(rule.Host.String(), "*."); below {
		apex := Pattern{text: base, kind: patternExact}
		if r.allow.covering(&Rule{Host: apex, Ports: rule.Ports}, false) == nil {
			r.report.Warnf(at, "*.%s does not cover %s itself; add it if it is needed", base, base)
		}
	}
	if rule.Prefix.IsValid() && rule.Prefix.Bits() == 0 {
		r.report.Warnf(at, "cidr %s allows every public address; list the prefixes that are meant", rule.Prefix)
	}
	if opensMetadata(rule.Prefix) {
		r.report.Warnf(at, "cidr %s gives the jobs of this pool the credentials that a cloud keeps at this address; remove the rule unless that is meant", rule.Prefix)
	}
	for _, prefix := range rule.ResolvesTo {
		if !slices.Contains(r.spec.ResolvesTo, prefix) {
			r.lintOpen(at, prefix, rule.Text)
		}
	}
}

// expiry warns about rules that ended, or are about to.
func (r *ruleLint) expiry(rule *Rule, at diag.Place) {
	if rule.Expires.IsZero() {
		return
	}
	day := rule.Expires.Format(time.DateOnly)
	switch {
	case rule.Expired(r.now):
		r.report.Warnf(at, "%s ended on %s and allows nothing any more; remove it or set a later day", rule.Text, day)
	case rule.Expired(r.now.Add(r.expiryWarning)):
		r.report.Warnf(at, "%s ends on %s at 00:00 UTC; remove it or set a later day", rule.Text, day)
	}
}

// shadow warns about rules that change nothing.
func (r *ruleLint) shadow(rule *Rule, at diag.Place) {
	if by := r.deny.covering(rule, false); by != nil {
		r.report.Warnf(at, "%s is never allowed, as deny has %s (%s); remove one of the two", rule.Text, by.Text, by.Where())
		return
	}
	if by := r.allow.covering(rule, true); by != nil {
		r.report.Warnf(at, "%s is covered by %s (%s) already; remove one of the two", rule.Text, by.Text, by.Where())
	}
}

// presets warns about presets that add nothing, and about writable hosts.
func (r *ruleLint) presets() {
	if len(r.places.presetRules) == 0 {
		return
	}
	own := *r.allow
	own.ordered = false
	seen := []*coverIndex{&own} // of the pool, and of each preset before
	limited := newCoverIndex(slices.DeleteFunc(slices.Clone(r.own), func(rule Rule) bool { return rule.UploadLimit == 0 }))
	for i, rules := range r.places.presetRules {
		name, at := r.spec.Presets[i], r.places.presets[i]
		adds, open := false, []string{}
		for j := range rules {
			rule := &rules[j]
			if rule.Writable && limited.covering(rule, false) == nil && r.deny.covering(rule, false) == nil {
				open = append(open, rule.Text)
			}
			covers := func(x *coverIndex) bool { return x.covering(rule, true) != nil }
			adds = adds || !slices.ContainsFunc(seen, covers)
		}
		seen = append(seen, newCoverIndex(rules))
		if !adds && len(rules) > 0 {
			r.report.Warnf(at, "preset %q adds no rule that is not there already; remove it", name)
		}
		if len(open) > 0 {
			r.report.Warnf(at, "preset %q allows hosts where anyone can write data with an account of their own: %s; give them rules with upload_limit", name, listed(open))
		}
	}
}

// writableHosts lists the hosts that any preset marks as writable. Of the
// presets only those entries are parsed: all of them take longer than a start.
func (r *ruleLint) writableHosts() []Rule {
	if r.writable != nil || len(r.own) == 0 {
		return r.writable
	}
	text := []byte("hosts:\n")
	for _, name := range r.presetNames {
		preset, _ := r.preset(name)
		text = appendWritable(text, preset)
	}
	quiet := *r.loader
	quiet.report, quiet.preset = new(diag.Report), func(string) ([]byte, bool) { return text, true }
	r.writable = []Rule{}
	allow, _, _ := quiet.presetRules(presetUse{name: "writable"})
	for i := range allow {
		if allow[i].Writable {
			r.writable = append(r.writable, allow[i])
		}
	}
	return r.writable
}

// appendWritable appends the entries of a preset's hosts that say writable:
// each begins with a dash, two spaces in, as in all of presets/lists.
func appendWritable(text, preset []byte) []byte {
	hosts := false
	var entry []byte
	end := func() {
		if bytes.Contains(entry, []byte("writable: true")) {
			text = append(text, entry...)
		}
		entry = nil
	}
	for line := range bytes.Lines(preset) {
		top := len(line) > 1 && line[0] != ' ' && line[0] != '#'
		if top || bytes.HasPrefix(line, []byte("  - ")) {
			end()
		}
		if top {
			hosts = bytes.HasPrefix(line, []byte("hosts:"))
		} else if hosts {
			entry = append(entry, line...)
		}
	}
	end()
	return text
}

// writesTo reports whether a rule covers a host that anyone can write to, or is
// covered by one that is a pattern.
func writesTo(rule *Rule, writable *coverIndex) bool {
	covered := writable.coveringName(rule.Host, func(other *Rule) bool { return other.Host.Covers(rule.Host) })
	return covered != nil || !rule.Host.Exact() && slices.ContainsFunc(writable.names.rules, func(w Rule) bool { return rule.Host.Covers(w.Host) })
}

// A coverIndex finds a rule that covers another, without comparing all pairs.
type coverIndex struct {
	names hostTable // by the pattern's base
	nets  map[netip.Prefix][]*Rule
	any   []*Rule // patterns without a base
	// ordered says that of two rules that match the same, only the first in
	// the file covers the other.
	ordered bool
}

// maxPerBase bounds the rules looked at for one base, so that a file of
// nothing but partial labels is looked at in linear time.
const maxPerBase = 64

// newCoverIndex arranges rules, which it keeps.
func newCoverIndex(rules []Rule) *coverIndex {
	c := &coverIndex{nets: make(map[netip.Prefix][]*Rule)}
	named := make([]int32, 0, len(rules))
	for i := range rules {
		switch rule := &rules[i]; {
		case rule.Prefix.IsValid():
			if list := c.nets[rule.Prefix]; len(list) < maxPerBase {
				c.nets[rule.Prefix] = append(list, rule)
			}
		case rule.Host.Base() == "":
			c.any = append(c.any, rule)
		default:
			named = append(named, int32(i))
		}
	}
	c.names = newHostTable(rules, named, false)
	return c
}

// covering finds another rule that matches all that rule does: nil if there is
// none. With same, it must also treat it alike, so that rule is superfluous.
func (c *coverIndex) covering(rule *Rule, same bool) *Rule {
	fits := func(other *Rule) bool {
		if other == rule || other.Prefix.IsValid() != rule.Prefix.IsValid() {
			return false
		}
		if rule.Prefix.IsValid() && !coversPrefix(other.Prefix, rule.Prefix, same) {
			return false
		}
		if !rule.Prefix.IsValid() && !other.Host.Covers(rule.Host) {
			return false
		}
		return coversPorts(other.Ports, rule.Ports) && !(c.ordered && behind(other, rule)) && (!same || treatsAlike(other, rule))
	}
	if rule.Prefix.IsValid() {
		return c.coveringNet(rule.Prefix, fits)
	}
	if i := slices.IndexFunc(c.any, fits); i >= 0 {
		return c.any[i]
	}
	return c.coveringName(rule.Host, fits)
}

// coveringName finds the rule that fits among those that stand over the name of
// a pattern, or over what ends it.
func (c *coverIndex) coveringName(host Pattern, fits func(*Rule) bool) *Rule {
	if len(c.names.slots) == 0 {
		return nil
	}
	for base := host.Base(); base != ""; _, base, _ = strings.Cut(base, ".") {
		n := c.names.first(patternNone, base)
		for range maxPerBase {
			if n == noRule {
				break
			}
			if other := &c.names.rules[n]; fits(other) {
				return other
			}
			n = c.names.next[n]
		}
	}
	return nil
}

// coveringNet finds the rule that fits among those whose prefixes hold one.
func (c *coverIndex) coveringNet(prefix netip.Prefix, fits func(*Rule) bool) *Rule {
	for bits := prefix.Bits(); bits >= 0 && len(c.nets) > 0; bits-- {
		p, err := prefix.Addr().Prefix(bits)
		if err != nil {
			continue
		}
		if i := slices.IndexFunc(c.nets[p], fits); i >= 0 {
			return c.nets[p][i]
		}
	}
	return nil
}

// coversPrefix reports whether all of b lies in a. With same, a must also lift
// the special addresses that b lifts: a prefix that reaches beyond a special
// range lifts none, and metadata wants its exact address.
func coversPrefix(a, b netip.Prefix, same bool) bool {
	if a.Bits() > b.Bits() || !a.Contains(b.Addr()) {
		return false
	}
	return !same || a == b || !insideSpecial(b) || insideSpecial(a) && !IsMetadata(b.Addr())
}

// coversPorts reports whether every port of b is in a.
func coversPorts(a, b PortSet) bool {
	if a == b || a.All() || b.All() {
		return a == b || a.All()
	}
	return !slices.ContainsFunc(b.List(), func(p uint16) bool { return !a.Contains(p) })
}

// treatsAlike reports whether rule says nothing that other does not say too.
func treatsAlike(other, rule *Rule) bool {
	return other.TLS == rule.TLS && other.UploadLimit == rule.UploadLimit && other.Expires.Equal(rule.Expires) &&
		!slices.ContainsFunc(rule.ResolvesTo, func(p netip.Prefix) bool { return !slices.Contains(other.ResolvesTo, p) }) &&
		!slices.ContainsFunc(rule.DNSTypes, func(t uint16) bool { return !slices.Contains(other.DNSTypes, t) })
}

// behind reports whether rule matches exactly what other does, and stands
// before it.
func behind(other, rule *Rule) bool {
	twins := other.Host == rule.Host && other.Prefix == rule.Prefix && other.Ports == rule.Ports
	return twins && cmp.Or(cmp.Compare(other.Pos.File, rule.Pos.File), cmp.Compare(other.Pos.Line, rule.Pos.Line), cmp.Compare(other.Pos.Col, rule.Pos.Col)) > 0
}
