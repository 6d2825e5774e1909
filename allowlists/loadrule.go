package allowlists

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"sallyport/allowlists/diag"
)

// A ruleReader reads the rules of one list.
type ruleReader struct {
	*loader
	path  string // of an item in the schema
	list  string // "allow", "deny" or "quiet"
	where string // the list, in messages
}

// allows reports whether the list permits anything.
func (r *ruleReader) allows() bool { return r.list == "allow" }

// rule reads one item: text, or a mapping.
func (r *ruleReader) rule(n *diag.Node) (Rule, bool) {
	switch n.Kind {
	case diag.Text:
		rule := Rule{Pos: n.Pos}
		return rule, r.target(n, "", &rule) && r.finish(n, &rule)
	case diag.Map:
		if spaced(n) {
			r.report.Errorf(n.Place, "%s has nothing right behind its colon, so YAML takes %s for a key; write the port there, such as registry.example.com:443", r.where, short(n.Entries[0].Key))
			return Rule{}, false
		}
		return r.mapping(n)
	case diag.Bad:
	case diag.Null:
		r.report.Errorf(n.Place, "%s is empty; remove it or name a host", r.where)
	default:
		r.report.Errorf(n.Place, "%s is %s; it takes a host such as registry.example.com, or a mapping with host or cidr", r.where, n.Kind)
	}
	return Rule{}, false
}

// spaced reports whether a mapping is a host and its port with a space
// between them: no key of a rule has a dot.
func spaced(n *diag.Node) bool {
	if len(n.Entries) != 1 || !strings.ContainsRune(n.Entries[0].Key, '.') {
		return false
	}
	kind := n.Entries[0].Value.Kind
	return kind != diag.Map && kind != diag.List
}

// mapping reads a rule that is written out.
func (r *ruleReader) mapping(n *diag.Node) (Rule, bool) {
	v := make(values)
	before := r.report.Count()
	r.keys(n, r.path, r.where, v)
	at := func(name string) setting { return v[r.path+"."+name] }
	rule := Rule{
		Pos:   n.Pos,
		Ports: get[PortSet](v, r.path+".ports"), TLS: map[string]TLSMode{"require": TLSRequire, "off": TLSOff}[get[string](v, r.path+".tls")],
		ResolvesTo: get[[]netip.Prefix](v, r.path+".resolves_to"), DNSTypes: get[[]uint16](v, r.path+".dns_types"),
		UploadLimit: get[int64](v, r.path+".upload_limit"), Writable: get[bool](v, r.path+".writable"), Anyone: get[bool](v, r.path+".anyone"),
		Reason: get[string](v, r.path+".reason"), Owner: get[string](v, r.path+".owner"), Expires: get[time.Time](v, r.path+".expires"),
	}
	host, cidr := at("host"), at("cidr")
	switch {
	case host.node == nil && cidr.node == nil:
		r.report.Errorf(n.Place, "%s has neither host nor cidr; name what it is for", r.where)
	case host.node != nil && cidr.node != nil:
		r.report.Errorf(cidr.at(), "host and cidr are both given; make two rules of it")
	case host.value == nil && cidr.value == nil: // reported already
	case cidr.node != nil:
		r.cidr(cidr.node, v, &rule)
	case r.target(host.node, "host", &rule):
		r.finish(host.node, &rule)
	}
	return rule, r.report.Count() == before
}

// cidr reads the cidr of a rule that is written out.
func (r *ruleReader) cidr(n *diag.Node, v values, rule *Rule) {
	prefix, err := readPrefix(n.Text)
	if err != nil {
		r.report.Errorf(n.Place, "%s", err)
		return
	}
	for _, name := range []string{"tls", "resolves_to", "dns_types", "anyone"} {
		if s := v[r.path+"."+name]; s.node != nil {
			r.report.Errorf(s.at(), "%s goes with host, not with cidr; remove it", name)
		}
	}
	rule.Prefix = prefix
	r.finish(n, rule)
}

// target reads "NAME[:PORTS]" from the text of n into rule. In deny and quiet
// it may be an address or a prefix as well.
func (r *ruleReader) target(n *diag.Node, key string, rule *Rule) bool {
	if done, ok := r.address(n, rule); done {
		return ok
	}
	host, ports, hasPort := cutPort(n.Text)
	if hasPort {
		if key != "" && !rule.Ports.Empty() {
			r.report.Errorf(n.Place, "host names a port, and ports is given; keep one of them")
			return false
		}
		set, ok := r.ports(n, host, ports)
		if !ok {
			return false
		}
		rule.Ports = set
	}
	pattern, err := ParsePattern(host)
	if err != nil {
		r.report.Errorf(n.Place, "%s", err)
		return false
	}
	rule.Host = pattern
	return r.wide(n, rule)
}

// address handles a text that is an address, a prefix or a URL, and no name.
func (r *ruleReader) address(n *diag.Node, rule *Rule) (done, ok bool) {
	text := n.Text
	bare, fits := barePrefix(text)
	ports := ""
	if !fits {
		host, after, hasPort := cutPort(text)
		if bare, fits = barePrefix(host); !hasPort || !fits {
			return r.notName(n)
		}
		ports = after
	}
	if r.allows() {
		r.report.Errorf(n.Place, "%q is an address, and a host rule matches names only; write {cidr: %q, ports: [%s]}", short(text), bare, orElse(ports, "443"))
		return true, false
	}
	rule.Prefix = bare
	if ports == "" {
		return true, true
	}
	rule.Ports, ok = r.ports(n, text[:len(text)-len(ports)-1], ports)
	return true, ok
}

// barePrefix reads an address or a prefix, which may stand in brackets. Most
// texts are names, and are told by their letters.
func barePrefix(text string) (netip.Prefix, bool) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F', c == '.', c == ':', c == '/', c == '[', c == ']':
		default:
			return netip.Prefix{}, false
		}
	}
	prefix, err := readPrefix(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return prefix, err == nil
}

// notName reports texts that people take for host names.
func (r *ruleReader) notName(n *diag.Node) (done, ok bool) {
	text := n.Text
	switch {
	case text == "":
		r.report.Errorf(n.Place, "%s is empty; remove it or name a host", r.where)
	case strings.Contains(text, "://"):
		host := "the host"
		if u, err := url.Parse(text); err == nil && u.Hostname() != "" {
			host = u.Hostname()
		}
		r.report.Errorf(n.Place, "a URL is no host; rules cannot see paths, so write %s alone", host)
	case strings.Contains(text, "/"):
		if prefix, err := netip.ParsePrefix(text); err == nil {
			_, err = readPrefix(text)
			r.report.Errorf(n.Place, "%s, as cidr", orElse(fmt.Sprint(err), prefix.String()))
			return true, false
		}
		host, _, _ := strings.Cut(text, "/")
		r.report.Errorf(n.Place, "%q holds a path, which rules cannot see; write %q alone", short(text), short(host))
	default:
		return false, true
	}
	return true, false
}

// orElse gives text, or another where that is empty.
func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// ports reads what stands after the colon of "NAME:PORTS".
func (r *ruleReader) ports(n *diag.Node, host, text string) (PortSet, bool) {
	if text == "*" {
		return AllPorts(), true
	}
	var ports []uint16
	at, fine := len(host)+1, true
	for _, part := range strings.Split(text, ",") {
		port, ok := r.port(part, n.At(at))
		fine = fine && ok
		ports = append(ports, port)
		at += len(part) + 1
	}
	return NewPortSet(ports...), fine
}

// wide refuses wildcards that would let in whoever takes a name.
func (r *ruleReader) wide(n *diag.Node, rule *Rule) bool {
	icann, private := rule.Host.PublicSuffix()
	text := rule.Host.String()
	switch {
	case r.list == "deny":
	case text == "*":
		r.report.Errorf(n.Place, `"*" would match every name; name one domain, such as "*.example.com"`)
		return false
	case icann && r.allows():
		r.report.Errorf(n.Place, "%q would allow every .%s name; name one domain, such as \"*.example.%s\"", text, rule.Host.Base(), rule.Host.Base())
		return false
	case icann:
		r.report.Errorf(n.Place, "%q would cover every .%s name; name one domain, such as \"*.example.%s\"", text, rule.Host.Base(), rule.Host.Base())
		return false
	case private && r.allows() && !rule.Anyone:
		r.report.Errorf(n.Place, "%q covers names that anyone can take below %s; name one, or add anyone: true", text, rule.Host.Base())
		return false
	}
	return true
}

// finish fills in what a rule of this list has by default, and its text.
func (r *ruleReader) finish(n *diag.Node, rule *Rule) bool {
	normal := AllPorts()
	if r.allows() {
		normal = NewPortSet(443)
	}
	if rule.Ports.Empty() {
		rule.Ports = normal
	}
	rule.Text = rule.Host.String()
	if rule.Prefix.IsValid() {
		rule.Text = "cidr " + rule.Prefix.String()
	}
	if rule.Ports != normal {
		if rule.Prefix.IsValid() {
			rule.Text += " port " + rule.Ports.String()
		} else {
			rule.Text += ":" + rule.Ports.String()
		}
	}
	return true
}
