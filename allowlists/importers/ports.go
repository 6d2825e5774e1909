package importers

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxPort is the highest port.
const maxPort = 65535

// maxListed is how many ports one rule of ours lists.
const maxListed = 64

// A span is a range of ports, both ends in it.
type span struct{ from, to int }

// ports is a set of ports: spans in order that do not touch. nil is empty.
type ports []span

func allPorts() ports { return ports{{1, maxPort}} }

// only is the set of the ports given.
func only(list ...int) ports {
	var set ports
	for _, port := range list {
		set = append(set, span{port, port})
	}
	return set.union(nil)
}

func (s ports) all() bool { return len(s) == 1 && s[0] == span{1, maxPort} }

// union is what either holds.
func (s ports) union(t ports) ports {
	both := slices.Concat(s, t)
	slices.SortFunc(both, func(a, b span) int { return a.from - b.from })
	var out ports
	for _, x := range both {
		if n := len(out); n > 0 && x.from <= out[n-1].to+1 {
			out[n-1].to = max(out[n-1].to, x.to)
			continue
		}
		out = append(out, x)
	}
	return out
}

// without is what s holds and t does not.
func (s ports) without(t ports) ports {
	var out ports
	for _, x := range s {
		for _, y := range t {
			if y.to < x.from || y.from > x.to {
				continue
			}
			if y.from > x.from {
				out = append(out, span{x.from, y.from - 1})
			}
			x.from = y.to + 1
		}
		if x.from <= x.to {
			out = append(out, x)
		}
	}
	return out
}

// with is what both hold.
func (s ports) with(t ports) ports { return s.without(s.without(t)) }

// covers reports whether s holds every port of t.
func (s ports) covers(t ports) bool { return len(t.without(s)) == 0 }

// list writes the ports one by one; ok is false where they are none, or more
// than a rule of ours lists. Every port is "*".
func (s ports) list() (text string, ok bool) {
	if s.all() {
		return "*", true
	}
	var all []string
	for _, x := range s {
		for port := x.from; port <= x.to; port++ {
			if len(all) == maxListed {
				return "", false
			}
			all = append(all, strconv.Itoa(port))
		}
	}
	return strings.Join(all, ","), len(all) > 0
}

// flow writes the ports as the value of the key ports.
func (s ports) flow() string {
	list, _ := s.list()
	if list == "*" {
		return `"*"`
	}
	return "[" + strings.ReplaceAll(list, ",", ", ") + "]"
}

// String writes the set for people.
func (s ports) String() string {
	var parts []string
	for _, x := range s[:min(len(s), 8)] {
		if x.from == x.to {
			parts = append(parts, strconv.Itoa(x.from))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", x.from, x.to))
		}
	}
	if len(s) > 8 {
		parts = append(parts, "...")
	}
	return strings.Join(parts, ",")
}

// parsePort reads a port of decimal digits.
func parsePort(text string) (int, bool) {
	if text == "" || len(text) > 5 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	port, err := strconv.Atoi(text)
	return port, err == nil && port >= 1 && port <= maxPort
}

// parsePorts reads ports with commas between them.
func parsePorts(text string) (ports, error) {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		port, ok := parsePort(part)
		if !ok {
			return nil, fmt.Errorf("%q is no list of ports; write them as 80,443", clean(text))
		}
		list = append(list, port)
	}
	return only(list...), nil
}

// itoa writes a number.
func itoa(n int) string { return strconv.Itoa(n) }
