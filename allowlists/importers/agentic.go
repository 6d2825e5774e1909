package importers

import (
	"bytes"
	"net/netip"
	"regexp"
	"strings"

	"sallyport/allowlists/diag"
)

// readAgenticWorkflow reads the network part of a workflow of github/gh-aw, in
// the front matter of a Markdown file or as YAML, or a file of domains for the
// --allow-domains-file of its firewall.
func readAgenticWorkflow(d *draft, text []byte) error {
	front, lines := frontMatter(text)
	if front == nil && !keyed(text) {
		p := d.newPool("", "enforce")
		p.tellWeb()
		p.domainsFile(text)
		p.settle(nil)
		return nil
	}
	if front != nil {
		text = front
	}
	root, err := d.parse(append(bytes.Repeat([]byte("\n"), lines), text...))
	if err != nil {
		return err
	}
	network := root.Get("network")
	if network == nil || root.Kind != diag.Map {
		return fault(root.Place, "there is no key network, without which gh-aw allows its defaults; write network: defaults if they are meant")
	}
	p := d.newPool("", "enforce")
	p.tellWeb()
	switch network.Kind {
	case diag.Map:
		p.network(network)
	case diag.Text:
		p.allowed(word{network.Text, network.Pos.Line})
	default:
		return fault(network.Place, "network is %s; it takes a mapping, or the word defaults", network.Kind)
	}
	p.settle(func(_, _ placed) bool { return false })
	return nil
}

// frontMatter gives what stands between the first two lines of three dashes,
// and how many lines are before it; nil if the text does not begin with one, or
// has no second.
func frontMatter(text []byte) (front []byte, lines int) {
	rest, found := bytes.CutPrefix(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), []byte("---\n"))
	if !found {
		if rest, found = bytes.CutPrefix(text, []byte("---\r\n")); !found {
			return nil, 0
		}
	}
	end := 0
	for line := range bytes.Lines(rest) {
		if string(bytes.TrimRight(line, "\r\n")) == "---" {
			return rest[:end], 1
		}
		end += len(line)
	}
	return nil, 0
}

// tellWeb says which ports the firewall opens.
func (p *pool) tellWeb() {
	p.note(Same, "ports", "80 and 443, as the firewall opens no other")
}

// network reads allowed, blocked and what stands beside them.
func (p *pool) network(n *diag.Node) {
	p.leaveStrangers(n.Get("allowed"), "allowed")
	p.leaveStrangers(n.Get("blocked"), "blocked")
	for _, item := range textItems(n.Get("allowed")) {
		p.allowed(word{item.Text, item.Pos.Line})
	}
	for _, item := range textItems(n.Get("blocked")) {
		p.blocked(word{item.Text, item.Pos.Line})
	}
	if urls := below(n, "firewall", "allow-urls"); urls != nil {
		p.note(LeftOut, "request", "firewall.allow-urls (line %d) is about paths, and Sallyport does not look into a request", urls.Pos.Line)
	}
	for _, key := range []string{"hosted-web", "allowed-input"} {
		if other := n.Get(key); other != nil {
			p.note(LeftOut, "setting", "%s (line %d) is not about what leaves the runner, or known at run time only", key, other.Pos.Line)
		}
	}
}

// identifier is the name of an ecosystem, which has no dot.
var identifier = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// An ecosystem says which presets of ours are all within one of gh-aw, and
// which are like it and go beyond.
type ecosystem struct{ within, like []string }

// ecosystems are those that we have a preset for. A test holds the presets that
// are within one against its hosts.
var ecosystems = map[string]ecosystem{
	"containers":     {[]string{"mcr", "quay"}, []string{"docker-hub", "ghcr", "gcr"}},
	"dart":           {[]string{"dart"}, nil},
	"defaults":       {[]string{"pki"}, []string{"ubuntu"}},
	"dotnet":         {[]string{"nuget"}, nil},
	"elixir":         {[]string{"hex"}, nil},
	"github":         {nil, []string{"github-actions"}},
	"github-actions": {nil, []string{"github-actions"}},
	"go":             {[]string{"go"}, nil},
	"java":           {[]string{"maven"}, []string{"gradle"}},
	"linux-distros":  {[]string{"alpine"}, []string{"debian", "rpm"}},
	"node":           {[]string{"npm"}, nil},
	"php":            {[]string{"composer"}, nil},
	"python":         {[]string{"pypi"}, []string{"conda"}},
	"python-native":  {[]string{"pypi"}, []string{"crates", "conda"}},
	"ruby":           {[]string{"rubygems"}, nil},
	"rust":           {[]string{"crates"}, nil},
	"swift":          {[]string{"swift"}, nil},
	"terraform":      {nil, []string{"hashicorp"}},
}

// allowed reads an ecosystem or a domain.
func (p *pool) allowed(w word) {
	if !identifier.MatchString(w.text) || w.text == "localhost" {
		p.domain(p.entry(w.line, w.text), w.text, p.add)
		return
	}
	p.entries++
	e := &Entry{Line: w.line, Source: short(w.text)}
	p.Presets = append(p.Presets, e)
	known, found := ecosystems[w.text]
	if !found {
		e.note(LeftOut, "ecosystem", "no preset is for it; name the hosts that are needed")
		return
	}
	for _, name := range known.within {
		if item := plain(name); !p.seen["preset "+name] {
			p.seen["preset "+name] = true
			e.Rules = append(e.Rules, strings.Trim(item, `"`))
		}
	}
	e.Offered = append(e.Offered, known.like...)
	switch {
	case len(known.like) > 0:
		e.note(LeftOut, "ecosystem", "what it has beyond these presets is not allowed here; those commented out are like it, and have hosts that it has not")
	default:
		e.note(Narrower, "ecosystem", "the preset has no host that the ecosystem has not; what that has more is not allowed here")
	}
}

// blocked reads what is refused, which wins over what is allowed.
func (p *pool) blocked(w word) {
	e := p.denial(w.line, w.text)
	if identifier.MatchString(w.text) && w.text != "localhost" {
		e.note(LeftOut, "ecosystem", "its hosts are not refused here; look for them among what is allowed")
		return
	}
	p.domain(e, w.text, func(e *Entry, r rule, order rank) {
		if !r.host.Exact() && !strings.HasPrefix(r.host.String(), "*.") {
			e.Notes = nil
			e.note(LeftOut, "wildcard", "the * stood for dots and for none as well; such names are not refused here")
		}
		if r.ports.covers(only(80, 443)) {
			r.ports = allPorts()
		}
		p.refuse(e, r, order)
	})
}

// domainsFile reads a file of domains: one a line or with commas, # begins a
// comment.
func (p *pool) domainsFile(text []byte) {
	line := 0
	for row := range strings.Lines(string(text)) {
		line++
		row, _, _ = strings.Cut(row, "#")
		for part := range strings.SplitSeq(row, ",") {
			if part = strings.TrimSpace(part); part != "" {
				p.domain(p.entry(line, part), part, p.add)
			}
		}
	}
}

// domain reads [http://|https://]NAME: the name and every name below it. A *
// stands for any characters of names, dots and none as well, and then nothing
// more is meant.
func (p *pool) domain(e *Entry, text string, add func(*Entry, rule, rank)) {
	set := only(80, 443)
	if rest, ok := strings.CutPrefix(text, "http://"); ok {
		text, set = rest, only(80)
	} else if rest, ok := strings.CutPrefix(text, "https://"); ok {
		text, set = rest, only(443)
	}
	text = strings.TrimSuffix(strings.TrimSuffix(text, "/"), ".")
	stars := strings.Count(text, "*")
	patterns := []string{text}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	switch {
	case err == nil && addr.Zone() == "":
		p.literal(e, netip.PrefixFrom(addr, addr.BitLen()), set)
		return
	case stars == 0:
		text = strings.TrimPrefix(text, ".")
		patterns = []string{text, "*." + text}
		e.note(Same, "apex", "every name below it is meant, too: two rules")
	case stars == 1 && strings.HasPrefix(text, "*."):
	case stars == 1 && strings.Contains(text[:dotOf(text)], "*"):
		e.note(Narrower, "wildcard", "the * stood for any characters, dots and none as well; here for one or more within the label")
	default:
		e.note(LeftOut, "wildcard", "a * stands where none of ours may: once, in the first label")
		return
	}
	for _, pattern := range patterns {
		if r, ok := named(e, pattern, set); ok {
			add(e, r, rank{})
		}
	}
}
