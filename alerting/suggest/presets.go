package suggest

import (
	"cmp"
	"slices"

	"sallyport/allowlists"
)

// A preset is taken in place of its hosts if at least minPresetHosts of the log
// are in it, one of them in no other preset (github.com, which many name, says
// nothing of the service), and they are at least one in presetShare of its rules,
// so that a job which needs two hosts does not get twenty.
const (
	minPresetHosts = 2
	presetShare    = 4
)

// choosePresets takes presets for the hosts that they cover, the one with the
// most hosts first, of equals the smallest. It gives the hosts that are left.
func (s *sift) choosePresets(hosts []*wanted) (left []*wanted, chosen []Preset) {
	for {
		best, covered := s.bestPreset(hosts)
		if best == nil {
			break
		}
		p := Preset{Name: best.Name}
		for _, w := range covered {
			p.Hosts = append(p.Hosts, w.host.String())
			p.Evidence = p.Evidence.and(w.evidence())
		}
		for _, r := range best.Allow {
			if r.Writable {
				p.Writable = append(p.Writable, r.Host.String())
			}
		}
		chosen = append(chosen, p)
		hosts = slices.DeleteFunc(slices.Clone(hosts), func(w *wanted) bool { return slices.Contains(covered, w) })
	}
	slices.SortFunc(chosen, func(a, b Preset) int { return cmp.Compare(a.Name, b.Name) })
	return hosts, chosen
}

// bestPreset finds the preset to be taken next, and the hosts that it covers;
// nil if none is worth it.
func (s *sift) bestPreset(hosts []*wanted) (best *allowlists.PresetList, covered []*wanted) {
	lists := allowlists.PresetLists()
	for i := range lists {
		p := &lists[i]
		if slices.ContainsFunc(s.avoided, func(h allowlists.Host) bool { return matches(p.Allow, h) }) ||
			slices.ContainsFunc(p.Allow, func(r allowlists.Rule) bool { return s.hides(r.Host) }) {
			continue
		}
		var in []*wanted
		telling := false
		for _, w := range hosts {
			if covers(p.Allow, w) {
				in = append(in, w)
				telling = telling || inOnePreset(w)
			}
		}
		if !telling || len(in) < minPresetHosts || len(in)*presetShare < len(p.Allow) {
			continue
		}
		if best == nil || len(in) > len(covered) || len(in) == len(covered) && len(p.Allow) < len(best.Allow) {
			best, covered = p, in
		}
	}
	return best, covered
}

// inOnePreset reports whether no more than one preset covers a host.
func inOnePreset(w *wanted) bool {
	in := 0
	for _, p := range allowlists.PresetLists() {
		if covers(p.Allow, w) {
			in++
		}
	}
	return in == 1
}

// presetNamed gives the rules of a preset.
func presetNamed(name string) []allowlists.Rule {
	for _, p := range allowlists.PresetLists() {
		if p.Name == name {
			return p.Allow
		}
	}
	return nil
}

// matches reports whether a rule of a list names a host.
func matches(rules []allowlists.Rule, host allowlists.Host) bool {
	return slices.ContainsFunc(rules, func(r allowlists.Rule) bool { return r.Host.Matches(host) })
}

// covers reports whether rules allow every port of a host that is wanted.
func covers(rules []allowlists.Rule, w *wanted) bool {
	for _, port := range w.portList() {
		if !slices.ContainsFunc(rules, func(r allowlists.Rule) bool { return r.Host.Matches(w.host) && r.Ports.Contains(port) }) {
			return false
		}
	}
	return true
}
