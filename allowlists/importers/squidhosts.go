package importers

import "strings"

// inBoth is what two sets of hosts share.
func inBoth(a, b []squidHost) []squidHost {
	out := coveredBy(a, b, true)
	return append(out, coveredBy(b, a, false)...)
}

// coveredBy are the hosts of a that some host of b covers; equal says whether
// the same counts.
func coveredBy(a, b []squidHost, equal bool) []squidHost {
	has := make(map[string]bool, len(b))
	for _, y := range b {
		has[y.text()] = true
	}
	var out []squidHost
	for _, x := range a {
		covered := equal && has[x.text()]
		for name := strings.TrimPrefix(x.host.String(), "*."); name != "" && !covered; {
			_, name, _ = strings.Cut(name, ".")
			covered = name != "" && has["*."+name]
		}
		if covered {
			out = append(out, x)
		}
	}
	return out
}

// text tells a host from others.
func (h *squidHost) text() string {
	if h.prefix.IsValid() {
		return h.prefix.String()
	}
	return h.host.String()
}

// within reports whether r covers s, ports aside.
func within(r, s rule) bool {
	if r.prefix.IsValid() || s.prefix.IsValid() {
		return r.prefix == s.prefix
	}
	return r.host.Covers(s.host)
}
