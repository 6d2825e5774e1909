package suggest

import (
	"maps"
	"slices"
	"strings"

	"sallyport/allowlists"
)

// How many hosts make a pattern: numbered ones (mirror1, mirror2), and any that
// stand below one name.
const (
	minNumbered = 2
	minSiblings = 5
	minPrefix   = 3 // letters before the number
)

// collapse puts patterns in place of hosts of one service with the same ports:
// numbered hosts first, then those below one name. It gives the hosts that are
// left. Where enough numbered hosts were seen in enough jobs, the others of the
// service need no jobs of their own: each job gets another mirror.
func (s *sift) collapse(hosts []*wanted) (left []*wanted, lines []Line) {
	for _, step := range []struct {
		least int
		key   func(allowlists.Host) string
		rare  bool // takes hosts of too few jobs as well
	}{{minNumbered, numbered, true}, {minSiblings, siblings, false}} {
		groups := make(map[string][]*wanted)
		for _, w := range hosts {
			if pattern := step.key(w.host); pattern != "" {
				pattern = rule(pattern, w.portList())
				groups[pattern] = append(groups[pattern], w)
			}
		}
		for _, text := range slices.Sorted(maps.Keys(groups)) {
			group := groups[text]
			if len(group) < step.least {
				continue
			}
			var rare []*wanted
			if step.rare {
				rare = s.rare(text, step.key)
			}
			if !s.safe(text, rare) {
				continue
			}
			s.doubts = slices.DeleteFunc(s.doubts, func(d doubtful) bool { return slices.Contains(rare, d.wanted) })
			s.aside = slices.DeleteFunc(s.aside, func(h allowlists.Host) bool { return hasHost(rare, h) })
			line := Line{Rule: text}
			for _, w := range slices.Concat(group, rare) {
				line.Hosts = append(line.Hosts, w.host.String())
				line.Evidence = line.Evidence.and(w.evidence())
			}
			lines = append(lines, line)
			hosts = slices.DeleteFunc(slices.Clone(hosts), func(w *wanted) bool { return slices.Contains(group, w) })
		}
	}
	return hosts, lines
}

// rare are the hosts of a pattern with its ports that were seen in too few jobs.
func (s *sift) rare(text string, key func(allowlists.Host) string) (hosts []*wanted) {
	for _, d := range s.doubts {
		if pattern := key(d.host); d.rare && pattern != "" && rule(pattern, d.portList()) == text {
			hosts = append(hosts, d.wanted)
		}
	}
	return hosts
}

func hasHost(hosts []*wanted, host allowlists.Host) bool {
	return slices.ContainsFunc(hosts, func(w *wanted) bool { return w.host == host })
}

// numbered is the pattern of a host whose first label has a number after some
// letters, "mirror*.example.com"; "" for another.
func numbered(host allowlists.Host) string {
	label, rest, _ := strings.Cut(host.String(), ".")
	end := strings.LastIndexAny(label, "0123456789") + 1
	start := len(strings.TrimRight(label[:end], "0123456789"))
	if !strings.Contains(rest, ".") || start < minPrefix || start == end {
		return ""
	}
	return label[:start] + "*" + label[end:] + "." + rest
}

// siblings is the pattern of everything below the name above a host.
func siblings(host allowlists.Host) string {
	_, rest, _ := strings.Cut(host.String(), ".")
	if !strings.Contains(rest, ".") {
		return ""
	}
	return "*." + rest
}

// safe reports whether a pattern covers nothing that it should not: no public
// suffix, no host that anyone can write to, none that was left out or is for a
// person to decide but for some, and no rule that says more.
func (s *sift) safe(text string, some []*wanted) bool {
	text, _, _ = strings.Cut(text, ":")
	pattern, err := allowlists.ParsePattern(text)
	if err != nil {
		return false
	}
	if icann, private := pattern.PublicSuffix(); icann || private {
		return false
	}
	bars := func(h allowlists.Host) bool { return pattern.Matches(h) && !hasHost(some, h) }
	if slices.ContainsFunc(s.aside, bars) || s.hides(pattern) {
		return false
	}
	return !slices.ContainsFunc(allowlists.PresetRules(), func(r allowlists.Rule) bool {
		return r.Writable && (pattern.Covers(r.Host) || r.Host.Covers(pattern))
	})
}
