package suggest_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/alerting/replay"
	"sallyport/alerting/suggest"
	"sallyport/allowlists"
)

// worlds is how many random ones a run looks at.
const worlds = 200

var seed = flag.Uint64("seed", 1, "of random policies and logs")

// universe are the hosts that random jobs ask for.
var universe = func() []string {
	hosts := []string{
		"proxy.golang.org", "sum.golang.org", "storage.googleapis.com", "registry.npmjs.org", "registry.yarnpkg.com", "nodejs.org",
		"deb.debian.org", "security.debian.org", "github.com", "api.github.com", "codeload.github.com", "objects.githubusercontent.com",
		"a.blob.core.windows.net", "b.blob.core.windows.net", "sa1.blob.core.windows.net", "sa2.blob.core.windows.net",
		"mirror1.example.com", "mirror2.example.com", "mirror3.example.com", "mirrorx.example.com", "node1.cluster.example", "node2.cluster.example", "node3.cluster.example",
		"a.co.uk", "b.co.uk", "c.co.uk", "d.co.uk", "e.co.uk", "f.co.uk", "cdn1.com", "cdn2.com",
		"registry.corp.example", "git.corp.example", "registry.corp.example.lan.example", "_http._tcp.deb.debian.org",
		"dns.google", "esm.ubuntu.com", "odd.1e5.example", "1.5.e3", "null.example", "-x.example", "local",
		"localhost", "x.localhost", "metadata.google.internal",
	}
	for _, c := range "abcdefg" {
		hosts = append(hosts, string(c)+".pool.corp.example", string(c)+"."+string(c)+".deep.example")
	}
	return hosts
}()

// A world is a random policy and a log that its daemon would have written.
type world struct {
	*rand.Rand
	text   string // of the configuration
	file   *allowlists.File
	log    bytes.Buffer
	marked map[string]bool // hosts that an alert speaks of
	n      int
}

func pick[T any](w *world, list ...T) T { return list[w.IntN(len(list))] }

// load reads a configuration; the test fails if that has an error.
func load(t *testing.T, text string) *allowlists.File {
	t.Helper()
	file, report := allowlists.Load([]allowlists.Source{{Name: "a.yaml", Text: []byte(text)}}, os.LookupEnv, time.Now())
	if file == nil {
		var b strings.Builder
		_ = report.WriteErrors(&b)
		t.Fatalf("%s\n%s", b.String(), text)
	}
	return file
}

// policy makes a configuration up, in several ways of writing.
func (w *world) policy(t *testing.T) {
	var b strings.Builder
	b.WriteString("# ours\npools:\n  build:\n    sources: [10.20.0.0/24]\n    mode: " + pick(w, "audit", "enforce") + "\n")
	some := func(of []string, most int) []string {
		var list []string
		for range w.IntN(most + 1) {
			if host := pick(w, of...); !slices.Contains(list, host) {
				list = append(list, host)
			}
		}
		return list
	}
	plain := slices.DeleteFunc(slices.Clone(universe), func(h string) bool { return !strings.Contains(h, "corp") && !strings.Contains(h, "mirror") })
	list := func(key string, items []string) {
		switch {
		case len(items) == 0 && w.IntN(2) == 0:
		case w.IntN(2) == 0:
			b.WriteString("    " + key + ": [" + strings.Join(items, ", ") + "] # kept\n")
		case len(items) > 0:
			b.WriteString("    " + key + ":\n")
			for _, item := range items {
				b.WriteString("      - " + item + " # kept\n")
			}
		}
	}
	list("allow", append(some(plain, 4), pick(w, nil, []string{"'*.pool.corp.example:80,443'"}, []string{"{cidr: 93.184.216.0/28}"}, []string{"{host: 'mirror*.example.com', resolves_to: [10.0.0.0/8]}"})...))
	list("presets", some([]string{"npm", "go"}, 1))
	list("deny", some(plain, 1))
	list("quiet", some(plain, 1))
	if w.IntN(2) == 0 {
		b.WriteString("    resolves_to: [10.1.0.0/16]\n")
	}
	if w.IntN(2) == 0 {
		b.WriteString("dns: {search: [lan.example]}\n")
	}
	w.text = b.String()
	w.file = load(t, w.text)
}

// events makes a log up; the policy itself says what was done.
func (w *world) events(t *testing.T) {
	judge := replay.NewJudge(w.file.Policy, w.file.Search)
	for range 20 + w.IntN(200) {
		e := alerting.Event{
			Time: time.Date(2026, 11, 20+w.IntN(4), w.IntN(24), 0, 0, 0, time.UTC), ID: fmt.Sprintf("id%d", w.n), Pool: "build",
			Client: netip.AddrFrom4([4]byte{10, 20, 0, byte(2 + w.IntN(3))}), Host: pick(w, universe...),
		}
		w.n++
		if w.IntN(4) == 0 {
			e.Iface = pick(w, "br-a", "br-b")
		}
		if w.IntN(4) == 0 {
			e.Job = &allowlists.Job{Repo: "a/b", RunID: pick(w, "1", "2", "3"), Job: "test"}
		}
		addr := netip.MustParseAddr(pick(w, "93.184.216.34", "93.184.216.34", "93.184.216.34", "93.184.216.34", "93.184.216.34", "93.184.216.34", "93.184.216.34", "93.184.216.3", "10.1.2.3", "10.9.2.3", "169.254.169.254"))
		if w.IntN(2) == 0 {
			e.Kind, e.By, e.Name, e.Type, e.RCode = alerting.KindDNS, alerting.ByClient, e.Host, pick(w, "A", "A", "AAAA", "TXT", "SRV"), pick(w, "NOERROR", "NOERROR", "NXDOMAIN")
			if e.RCode == "NOERROR" && w.IntN(3) > 0 {
				e.Answers = []netip.Addr{addr}
			}
			if w.IntN(8) == 0 {
				e.CNAMEs = []string{pick(w, universe...)}
			}
		} else {
			e.Kind, e.Port, e.IP, e.Phase = alerting.KindConn, pick(w, uint16(443), 443, 443, 443, 443, 443, 443, 80, 22, 853), addr, alerting.PhaseOpen
			e.Via = pick(w, "connect", "connect", "http", "tls", "tcp", "udp")
			switch w.IntN(8) {
			case 0:
				e.Host = addr.String()
			case 1:
				e.Host = ""
			}
			if e.Via == "tls" {
				e.SNI = e.Host
			}
			if e.Via == "tls" || e.Via == "tcp" {
				e.Names = []string{pick(w, universe...)}
			}
		}
		e.Verdict, e.Reason = allowlists.Allow, allowlists.Allowed
		if w.IntN(20) == 0 && e.Kind == alerting.KindConn {
			e.Reason = pick(w, allowlists.SNIMismatch, allowlists.HostMismatch, allowlists.NotTLS)
		}
		d, ok := judge.Decide(&e)
		if !ok {
			continue
		}
		if e.Verdict, e.Reason, e.Rule = d.Verdict, d.Reason, d.Rule.Where(); d.Reason == allowlists.AllowedByAudit {
			e.Would = d.Would
		}
		if !d.Allowed() {
			e.Answers = nil
			if e.Kind == alerting.KindConn {
				e.Phase = alerting.PhaseRefused
			}
		}
		w.write(t, e)
	}
	for range w.IntN(3) {
		host := pick(w, universe...)
		kind := pick(w, alerting.AlertDirectIP, alerting.AlertDeniedThenDirect, alerting.AlertDNSTunnel, alerting.AlertLookalike, alerting.AlertForeignResolver,
			alerting.AlertRebinding, alerting.AlertSNIMismatch, alerting.AlertUploadVolume, alerting.AlertMetadataAccess)
		w.marked[host] = true
		w.write(t, alerting.Event{
			Time: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Kind: alerting.KindAlert, ID: "alert", Pool: "build", Client: netip.MustParseAddr("10.20.0.2"),
			Alert: kind, Severity: "high", Summary: "s", Key: kind + "/build/" + host, Count: 1, Host: host,
			IP: netip.MustParseAddr(pick(w, "93.184.216.34", "10.1.2.3", "10.9.2.3", "127.0.0.1", "0.0.0.0")),
		})
	}
}

func (w *world) write(t *testing.T, e alerting.Event) {
	line, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	w.log.Write(append(line, '\n'))
}

// sources is the log, from its beginning.
func (w *world) sources(t *testing.T) []*foreignlog.Source {
	t.Helper()
	source, err := foreignlog.Probe("-", foreignlog.FormatNamed("sallyport"), foreignlog.Options{}, bytes.NewReader(w.log.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return []*foreignlog.Source{source}
}

// enforced is a configuration's policy with every pool enforcing.
func enforced(t *testing.T, file *allowlists.File) *allowlists.Policy {
	t.Helper()
	policy, err := replay.Enforced(file.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// flagged are the targets that a result tells of without suggesting them.
func flagged(p *suggest.Pool) map[string]bool {
	told := make(map[string]bool)
	for _, l := range p.Left {
		host, _, _ := strings.Cut(l.Target, " ")
		if to, err := allowlists.ParseTarget(host, 443); err == nil {
			if host = to.Host.String(); to.Addr.IsValid() {
				host = to.Addr.String()
			}
		} else if at := strings.LastIndexByte(host, ':'); at >= 0 {
			host = host[:at]
		}
		told[host] = true
	}
	for _, l := range p.Review {
		host, _, _ := strings.Cut(l.Rule, ":")
		told[host] = true
	}
	return told
}

// TestRoundTrip: for random policies and logs, the suggestion applied and the log
// replayed, nothing is refused but what was flagged, nothing is allowed but what
// was in the log or a named preset covers, and never what an alert spoke of.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	seed := *seed
	suggested, presets, patterns := 0, 0, 0
	for i := range uint64(worlds) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, i)), marked: make(map[string]bool)}
		w.policy(t)
		w.events(t)
		least := 1 + w.IntN(3)
		result, err := suggest.Run(context.Background(), suggest.Config{Sources: w.sources(t), Spec: w.file.Spec, Search: w.file.Search, MinJobs: least})
		if err != nil {
			if w.log.Len() == 0 {
				continue
			}
			t.Fatal(err)
		}
		amended, err := allowlists.Amend([]allowlists.Source{{Name: "a.yaml", Text: []byte(w.text)}}, result.Amendments())
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, w.text)
		}
		text := w.text
		if len(amended) > 0 {
			text = string(amended[0].New)
		}
		if strings.Count(text, "# kept") != strings.Count(w.text, "# kept") || !strings.HasPrefix(text, "# ours\n") {
			t.Errorf("a comment is lost:\n%s\n%s", w.text, text)
		}
		next := load(t, text)
		pool := &suggest.Pool{}
		if len(result.Pools) > 0 {
			pool = &result.Pools[0]
		}
		w.check(t, pool, next)
		w.again(t, pool, next, least)
		suggested, presets = suggested+len(pool.Allow), presets+len(pool.Presets)
		for _, l := range pool.Allow {
			patterns += min(1, len(l.Hosts))
		}
		if t.Failed() {
			t.Fatalf("seed %d, world %d:\n%s\n%s\n%+v", seed, i, text, w.log.String(), result)
		}
	}
	if suggested < worlds || presets < worlds/20 || patterns < worlds/20 {
		t.Errorf("only %d lines, %d presets and %d patterns were suggested", suggested, presets, patterns)
	}
}

// again holds that a log asks for nothing more once it got what it asked for, but
// for what was told the first time: where a name gets a line for one port, its
// answers are judged by that.
func (w *world) again(t *testing.T, pool *suggest.Pool, file *allowlists.File, least int) {
	t.Helper()
	told := flagged(pool)
	result, err := suggest.Run(context.Background(), suggest.Config{Sources: w.sources(t), Spec: file.Spec, Search: file.Search, MinJobs: least})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range result.Pools {
		for _, l := range p.Allow {
			if host, _, _ := strings.Cut(l.Rule, ":"); !told[host] {
				t.Errorf("suggested the second time only: %s %s %s", l.Rule, l.Hosts, l.Evidence)
			}
		}
		for _, preset := range p.Presets {
			t.Errorf("a preset is suggested the second time only: %s %s", preset.Name, preset.Hosts)
		}
	}
}

// check holds what a suggestion does against what it may.
func (w *world) check(t *testing.T, pool *suggest.Pool, next *allowlists.File) {
	t.Helper()
	told := flagged(pool)
	now, old := enforced(t, next), enforced(t, w.file)
	report, err := replay.Run(context.Background(), replay.Config{Sources: w.sources(t), New: replay.NewJudge(now, next.Search)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Refused.Destinations {
		host := c.Host
		if c.IP.IsValid() {
			host = c.IP.String()
		}
		if !told[host] {
			t.Errorf("%s %s:%d is refused (%s), and nobody was told", c.Kind, host, c.Port, c.Reason)
		}
	}
	wanted := make(map[string]bool)
	var patterns []allowlists.Pattern
	for _, l := range pool.Allow {
		text, _, _ := strings.Cut(l.Rule, ":")
		wanted[text] = true
		for range min(1, len(l.Hosts)) {
			p, err := allowlists.ParsePattern(text)
			if icann, private := p.PublicSuffix(); err != nil || icann || private || len(l.Hosts) < 2 {
				t.Errorf("%s is no safe pattern for %v", text, l.Hosts)
			}
			patterns = append(patterns, p)
		}
	}
	var listed []allowlists.Rule
	for _, list := range allowlists.PresetLists() {
		if slices.ContainsFunc(pool.Presets, func(p suggest.Preset) bool { return p.Name == list.Name }) {
			listed = append(listed, list.Allow...)
		}
	}
	for _, name := range append(slices.Clone(universe), "evil.example", "z.pool.corp.example", "gist.github.com", "z.blob.core.windows.net", "z.co.uk") {
		host, err := allowlists.ParseHost(name)
		if err != nil {
			continue
		}
		for _, port := range []uint16{443, 80, 22, 853} {
			if !now.Pool("build").DecideConn(host, port, time.Now()).Allowed() || old.Pool("build").DecideConn(host, port, time.Now()).Allowed() {
				continue
			}
			covers := func(r allowlists.Rule) bool { return r.Host.Matches(host) && r.Ports.Contains(port) }
			matches := func(p allowlists.Pattern) bool { return p.Matches(host) }
			if !wanted[name] && !slices.ContainsFunc(listed, covers) && !slices.ContainsFunc(patterns, matches) {
				t.Errorf("%s:%d is allowed, and neither suggested nor in a preset", name, port)
			}
			if own := strings.HasSuffix(name, "localhost") || strings.HasPrefix(name, "metadata."); own {
				t.Errorf("%s:%d is allowed", name, port)
			}
			if w.marked[name] {
				t.Errorf("%s:%d is allowed, though an alert spoke of it", name, port)
			}
		}
	}
}
