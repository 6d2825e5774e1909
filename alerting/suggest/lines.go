package suggest

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/allowlists"
)

// span is from the first to the last event of a host.
func (w *wanted) span() (first, last time.Time) {
	e := w.evidence()
	return e.First, e.Last
}

// last is when the host was wanted last.
func (w *wanted) last() time.Time { return w.evidence().Last }

// evidence is what is known of the wish for a host: its connections, or if there
// were none the questions for it.
func (w *wanted) evidence() Evidence {
	t := w.opened
	if t.count == 0 {
		t = w.asked
	}
	e := Evidence{Count: t.count, Jobs: w.jobs.count(), MoreJobs: w.jobs.more, First: t.first, Last: t.last}
	if w.asked.count > 0 && w.asked.first.Before(e.First) {
		e.First = w.asked.first
	}
	if w.asked.last.After(e.Last) {
		e.Last = w.asked.last
	}
	return e
}

// and is the evidence of two. A job of both counts once only if that is all
// there is: the number is the higher one, and so never too high.
func (e Evidence) and(other Evidence) Evidence {
	if e.Count == 0 {
		return other
	}
	e.Count += other.Count
	e.Jobs, e.MoreJobs = max(e.Jobs, other.Jobs), e.MoreJobs || other.MoreJobs
	if other.First.Before(e.First) {
		e.First = other.First
	}
	if other.Last.After(e.Last) {
		e.Last = other.Last
	}
	return e
}

// String gives "12 times in 3 jobs, 2026-11-20 to 2026-11-23".
func (e Evidence) String() string {
	jobs := counted(e.Jobs, "job")
	if e.MoreJobs {
		jobs = "more than " + jobs
	}
	text := counted(e.Count, "time")
	if e.Jobs > 0 {
		text += " in " + jobs
	}
	first, last := e.First.UTC().Format(time.DateOnly), e.Last.UTC().Format(time.DateOnly)
	if first == last {
		return text + ", " + first
	}
	return text + ", " + first + " to " + last
}

// counted is a number of things.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// portList are the ports of a host's line: 443 where nobody connected.
func (w *wanted) portList() []uint16 {
	if len(w.ports) == 0 {
		return []uint16{443}
	}
	ports := slices.Clone(w.ports)
	slices.Sort(ports)
	return ports
}

// rule is a host or pattern with its ports, as a line has them.
func rule(pattern string, ports []uint16) string {
	if len(ports) == 1 && ports[0] == 443 {
		return pattern
	}
	return pattern + ":" + allowlists.NewPortSet(ports...).String()
}

func portText(port uint16) string { return strconv.Itoa(int(port)) }

// target is a host as what is left out shows it.
func (s *sift) target(w *wanted) string { return rule(w.host.String(), w.portList()) }

// line is a host's line.
func (s *sift) line(w *wanted) Line {
	l := Line{Rule: rule(w.host.String(), w.portList()), ResolvesTo: slices.Concat(s.opened(w), s.needed(w)), Evidence: w.evidence()}
	l.Writable = writable(w.host)
	for _, p := range allowlists.PresetLists() {
		if l.Preset == "" && covers(p.Allow, w) {
			l.Preset = p.Name
		}
	}
	return l
}

// writable reports whether anyone can write to a host, by what the presets say.
func writable(host allowlists.Host) bool {
	return slices.ContainsFunc(allowlists.PresetRules(), func(r allowlists.Rule) bool { return r.Writable && r.Host.Matches(host) })
}

func byRule(a, b Line) int { return cmp.Compare(a.Rule, b.Rule) }

// byEvidence orders what was wanted most first.
func byEvidence(a, b LeftOut) int {
	return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Why, b.Why))
}

// plainHost is a rule that YAML reads as text without quotes.
var plainHost = regexp.MustCompile(`^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+(:[0-9]+)?$`)

// yaml is a line as an item of a list. What is in it is a host name in canonical
// form, a pattern over one, ports and addresses: nothing else of a log gets here.
func (l *Line) yaml() string {
	if len(l.ResolvesTo) > 0 {
		host, ports, _ := strings.Cut(l.Rule, ":")
		prefixes := make([]string, len(l.ResolvesTo))
		for i, text := range l.ResolvesTo {
			prefixes[i] = strconv.Quote(text)
		}
		if ports = strings.ReplaceAll(ports, ",", ", "); ports == "" {
			ports = "443"
		}
		return fmt.Sprintf("{host: %q, ports: [%s], resolves_to: [%s]}", host, ports, strings.Join(prefixes, ", "))
	}
	if plainHost.MatchString(l.Rule) {
		return l.Rule
	}
	return strconv.Quote(l.Rule)
}

// note is the comment behind a line.
func (l *Line) note() string {
	text := l.Evidence.String()
	if len(l.Hosts) > 0 {
		text = fmt.Sprintf("%s, %s", counted(len(l.Hosts), "host"), text)
	}
	if l.Why != "" {
		text = l.Why + ": " + text
	}
	if l.Writable {
		text += "; anyone can write there: set upload_limit"
	}
	if l.Preset != "" {
		text += "; preset " + l.Preset + " has it"
	}
	return text
}

// note is the comment behind a preset.
func (p *Preset) note() string {
	text := fmt.Sprintf("%s, %s", counted(len(p.Hosts), "host"), p.Evidence)
	if len(p.Writable) > 0 {
		text += "; anyone can write to " + strings.Join(p.Writable, ", ")
	}
	return text
}

// Amendments are the changes of the configuration that a result stands for.
func (r *Result) Amendments() []allowlists.Amendment {
	var all []allowlists.Amendment
	for i := range r.Pools {
		p := &r.Pools[i]
		a := allowlists.Amendment{Pool: p.Pool}
		for j := range p.Presets {
			a.Presets = append(a.Presets, allowlists.Line{Text: p.Presets[j].Name, Note: p.Presets[j].note()})
		}
		for j := range p.Allow {
			a.Allow = append(a.Allow, allowlists.Line{Text: p.Allow[j].yaml(), Note: p.Allow[j].note()})
		}
		for j := range p.Review {
			a.Allow = append(a.Allow, allowlists.Line{Text: p.Review[j].yaml(), Note: p.Review[j].note(), Review: true})
		}
		if len(a.Presets)+len(a.Allow) > 0 {
			all = append(all, a)
		}
	}
	return all
}
