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
// left.
func (s *sift) collapse(hosts []*wanted) (left []*wanted, lines []Line) {
	for _, step := range []struct {
		least int
		key   func(allowlists.Host) string
	}{{minNumbered, numbered}, {minSiblings, siblings}} {
		groups := make(map[string][]*wanted)
		for _, w := range hosts {
			if pattern := step.key(w.host); pattern != "" {
				pattern = rule(pattern, w.portList())
				groups[pattern] = append(groups[pattern], w)
			}
		}
		for _, text := range slices.Sorted(maps.Keys(groups)) {
			group := groups[text]
			if len(group) < step.least || !s.safe(text) {
				continue
			}
			line := Line{Rule: text}
			for _, w := range group {
				line.Hosts = append(line.Hosts, w.host.String())
				line.Evidence = line.Evidence.and(w.evidence())
			}
			lines = append(lines, line)
			hosts = slices.DeleteFunc(slices.Clone(hosts), func(w *wanted) bool { return slices.Contains(group, w) })
		}
	}
	return hosts, lines
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
// person to decide, and no rule that says more.
func (s *sift) safe(text string) bool {
	text, _, _ = strings.Cut(text, ":")
	pattern, err := allowlists.ParsePattern(text)
	if err != nil {
		return false
	}
	if icann, private := pattern.PublicSuffix(); icann || private {
		return false
	}
	if slices.ContainsFunc(s.aside, pattern.Matches) || s.hides(pattern) {
		return false
	}
	return !slices.ContainsFunc(allowlists.PresetRules(), func(r allowlists.Rule) bool {
		return r.Writable && (pattern.Covers(r.Host) || r.Host.Covers(pattern))
	})
}
