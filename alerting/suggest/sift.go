package suggest

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// A sift sorts what a pool wanted into what is suggested, what a person is to
// decide, and what is left out.
type sift struct {
	*poolLog
	pool   *allowlists.Pool
	config *Config

	like    *alerting.LikeNames
	wanted  []*wanted // to be suggested, by host
	doubts  []doubtful
	avoided []allowlists.Host // that no preset may cover: a detector spoke of them
	aside   []allowlists.Host // that no pattern may cover
}

// run sorts every host.
func (s *sift) run() {
	hosts := make([]*wanted, 0, len(s.hosts))
	for _, w := range s.hosts {
		hosts = append(hosts, w)
	}
	slices.SortFunc(hosts, func(a, b *wanted) int { return strings.Compare(a.host.String(), b.host.String()) })
	names := make([]allowlists.Host, len(hosts))
	for i, w := range hosts {
		names[i] = w.host
	}
	s.like = alerting.NewLikeNames(names, s.pool)
	s.avoided = slices.AppendSeq(slices.Collect(maps.Keys(s.marks.hosts)), maps.Keys(s.marks.rebound))
	for _, w := range hosts {
		w.address(s.marks.rebound[w.host])
		if kind := s.marks.of(w); kind != "" {
			s.avoided = append(s.avoided, w.host)
			s.leave(s.target(w), "an alert spoke of it: "+kind, w.evidence())
			continue
		}
		if why := s.noise(w); why != "" {
			s.aside = append(s.aside, w.host)
			s.leave(s.target(w), why, w.evidence())
			continue
		}
		why, rare := s.doubt(w), false
		if why == "" && w.jobs.count() < s.config.MinJobs {
			why, rare = w.jobs.tooFew(), true
		}
		if why != "" {
			s.aside = append(s.aside, w.host)
			s.doubts = append(s.doubts, doubtful{w, why, rare})
			continue
		}
		s.wanted = append(s.wanted, w)
	}
	s.aside = append(s.aside, s.avoided...)
}

// doubtful is a host that a person is to decide on.
type doubtful struct {
	*wanted
	why  string
	rare bool // seen in too few jobs, and nothing else
}

// maxReview bounds the lines for review: nobody reads more, and who asks for
// names without end would fill the file.
const maxReview = 100

// reviewed are the lines for review, the most wanted ones, without those that a
// preset allows anyway.
func (s *sift) reviewed(chosen []Preset) []Line {
	slices.SortStableFunc(s.doubts, func(a, b doubtful) int { return b.evidence().Count - a.evidence().Count })
	var lines []Line
	for _, d := range s.doubts {
		line := s.line(d.wanted)
		line.Why = d.why
		switch {
		case len(line.ResolvesTo) == 0 && slices.ContainsFunc(chosen, func(p Preset) bool { return covers(presetNamed(p.Name), d.wanted) }):
		case len(lines) == maxReview:
			s.leave(s.target(d.wanted), "one of more than are shown for review ("+d.why+")", d.evidence())
		default:
			lines = append(lines, line)
		}
	}
	return lines
}

// noise says why nobody needs a name that was asked for; "" if somebody may.
func (s *sift) noise(w *wanted) string {
	if why := s.shut(w); why != "" {
		return why
	}
	switch asker, led := s.chains[w.host]; {
	case w.opened.count > 0:
		return ""
	case strings.HasPrefix(w.host.String(), "_"):
		return "a name of a service (SRV), which programs do without"
	case led && s.reaches(asker):
		return "an alias that the answer for " + asker.String() + " led through"
	case w.search || s.echo(w.host):
		return "another name and a search suffix"
	case !w.exists:
		return "there is no such name"
	default:
		return ""
	}
}

// shut says why no line should ever open a host, whoever asks for it: it is, or
// leads to, what no job has business with, or what resolves_to cannot open.
func (s *sift) shut(w *wanted) string {
	shut := func(addr netip.Addr) bool {
		return addr.IsLoopback() || addr.IsUnspecified() || addr.IsMulticast() || addr == broadcast
	}
	switch {
	case isBelow(w.host, metadataNames), slices.ContainsFunc(w.special, allowlists.IsMetadata):
		return "it leads to a cloud metadata address"
	case isBelow(w.host, localNames):
		return "it is this machine itself"
	case slices.ContainsFunc(s.unopened(w), shut):
		return "it leads to this machine itself, or to no machine"
	default:
		return ""
	}
}

// broadcast is RFC 919's limited broadcast.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// metadataNames are names that clouds have for their metadata service, and
// localNames those that systems have for themselves; the same below them.
var (
	metadataNames = []string{
		"metadata.google.internal", "metadata.goog", "metadata", // Google; the last by its search suffix
		"instance-data.ec2.internal", "instance-data", // AWS
		"metadata.tencentyun.com", // Tencent
	}
	localNames = []string{"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"} // RFC 6761 section 6.3, hosts(5)
)

// isBelow reports whether a host is one of some names, or below one.
func isBelow(host allowlists.Host, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return host.String() == name || strings.HasSuffix(host.String(), "."+name)
	})
}

// reaches reports whether a host is allowed, or wanted as well.
func (s *sift) reaches(host allowlists.Host) bool {
	_, wanted := s.hosts[host]
	return wanted || matches(s.pool.Spec().Allow, host)
}

// echo reports whether a host is another that is wanted, or allowed, and a
// suffix of dns.search.
func (s *sift) echo(host allowlists.Host) bool {
	for _, suffix := range s.config.Search {
		front, ok := strings.CutSuffix(host.String(), "."+suffix.String())
		if !ok {
			continue
		}
		if other, err := allowlists.ParseHost(front); err == nil && s.reaches(other) {
			return true
		}
	}
	return false
}

// doubt says why a person is to look at a host, in however many jobs it was seen;
// "" if nobody has to.
func (s *sift) doubt(w *wanted) string {
	like, alike := s.like.Of(w.host)
	_, rebound := s.marks.rebound[w.host]
	switch {
	case s.marks.full:
		return "the log has more alerts than are remembered"
	case alike:
		return "its domain looks like " + like
	case len(s.unopened(w)) > 0:
		return "it leads to a private or other special address, which resolves_to opens"
	case rebound:
		return "an alert spoke of it: " + alerting.AlertRebinding
	case w.opened.count == 0 && !w.refused:
		return "asked for, and never connected to"
	case w.crowded:
		return "many ports"
	default:
		return ""
	}
}

// needed are the prefixes that a line has to open for a host.
func (s *sift) needed(w *wanted) []string {
	var needed []string
	for _, addr := range s.unopened(w) {
		needed = append(needed, netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	return needed
}

// unopened are the special addresses of a host that nothing opens yet.
func (s *sift) unopened(w *wanted) []netip.Addr {
	by := s.pool.DecideName(w.host, w.last())
	if !by.Allowed() {
		by = allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed}
	}
	return slices.DeleteFunc(slices.Clone(w.special), func(addr netip.Addr) bool {
		return s.pool.DecideAddr(by, addr, w.last()).Reason == allowlists.Allowed
	})
}

// opened are the special addresses that a rule of the pool opens for a host on
// other ports. A line for the host itself comes before that rule, and has to
// open them as well.
func (s *sift) opened(w *wanted) []string {
	by := s.pool.DecideName(w.host, w.last())
	if by.Rule == nil {
		return nil
	}
	var opened []string
	for _, prefix := range s.ownPrefixes(by.Rule) {
		opened = append(opened, prefix.String())
	}
	return opened
}

// ownPrefixes is resolves_to of a rule without that of its pool.
func (s *sift) ownPrefixes(r *allowlists.Rule) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(r.ResolvesTo), func(p netip.Prefix) bool { return slices.Contains(s.pool.Spec().ResolvesTo, p) })
}

// hides reports whether a new rule would come before one of the pool that opens
// special addresses, and so shut them.
func (s *sift) hides(pattern allowlists.Pattern) bool {
	return slices.ContainsFunc(s.pool.Spec().Allow, func(r allowlists.Rule) bool {
		return len(s.ownPrefixes(&r)) > 0 && (r.Host.Covers(pattern) || pattern.Covers(r.Host))
	})
}
