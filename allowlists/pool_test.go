package allowlists_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/allowlists/diag"
)

var day = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

func host(t testing.TB, text string) allowlists.Host {
	t.Helper()
	h, err := allowlists.ParseHost(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return h
}

func hostRule(t testing.TB, pattern string, ports ...uint16) allowlists.Rule {
	t.Helper()
	p, err := allowlists.ParsePattern(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return allowlists.Rule{Text: pattern, Host: p, Ports: allowlists.NewPortSet(ports...), Pos: diag.Pos{File: pattern, Line: 1}}
}

func cidrRule(prefix string, ports ...uint16) allowlists.Rule {
	return allowlists.Rule{Text: prefix, Prefix: netip.MustParsePrefix(prefix), Ports: allowlists.NewPortSet(ports...), Pos: diag.Pos{File: prefix, Line: 1}}
}

func onePool(t testing.TB, spec allowlists.PoolSpec) *allowlists.Pool {
	t.Helper()
	spec.Name = "build"
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{spec}})
	if err != nil {
		t.Fatal(err)
	}
	return policy.Pool("build")
}

// buildPool is the pool of most cases below.
func buildPool(t testing.TB, mode allowlists.Mode) *allowlists.Pool {
	expired := hostRule(t, "old.example", 443)
	expired.Expires = day
	preset := hostRule(t, "*.corp.example", 443)
	preset.Preset = "corp"
	service := hostRule(t, "deb.example", 80)
	service.DNSTypes = []uint16{33}
	return onePool(t, allowlists.PoolSpec{
		Mode: mode,
		Allow: []allowlists.Rule{
			hostRule(t, "github.com", 443), hostRule(t, "mirror.example", 80, 443), hostRule(t, "glb-*.github.com", 443),
			preset, hostRule(t, "*.corp.example", 443, 8443), hostRule(t, "git.corp.example", 22), hostRule(t, "*.google", 443),
			hostRule(t, "dns.google", 443), expired, service,
			cidrRule("10.9.0.0/24", 5432), cidrRule("140.82.0.0/16", 443), cidrRule("0.0.0.0/0", 9999), cidrRule("169.254.169.254/32", 80),
		},
		Deny:  []allowlists.Rule{hostRule(t, "gist.github.com"), hostRule(t, "*.evil.corp.example"), hostRule(t, "mirror.example", 8080), cidrRule("140.82.9.0/24")},
		Quiet: []allowlists.Rule{hostRule(t, "esm.ubuntu.com"), hostRule(t, "gist.github.com")},
	})
}

func TestDecideConn(t *testing.T) {
	enforce, audit := buildPool(t, allowlists.Enforce), buildPool(t, allowlists.Audit)
	for _, c := range []struct{ target, want, rule, audit string }{
		{"github.com:443", "allowed", "github.com:1", "allowed"},
		{"github.com:80", "port-not-allowed", "github.com:1", "allowed-by-audit"},
		{"www.github.com:443", "not-in-allowlist", "", "allowed-by-audit"},
		{"xgithub.com:443", "not-in-allowlist", "", "allowed-by-audit"},
		{"github.com.evil.example:443", "not-in-allowlist", "", "allowed-by-audit"},
		{"glb-1.github.com:443", "allowed", "glb-*.github.com:1", "allowed"},
		{"glb-.github.com:443", "not-in-allowlist", "", "allowed-by-audit"},
		{"glb-a.b.github.com:443", "not-in-allowlist", "", "allowed-by-audit"},
		{"corp.example:443", "not-in-allowlist", "", "allowed-by-audit"},
		{"a.b.corp.example:8443", "allowed", "*.corp.example:1", "allowed"},
		{"git.corp.example:22", "allowed", "git.corp.example:1", "allowed"},
		{"git.corp.example:443", "allowed", "*.corp.example:1", "allowed"},
		{"git.corp.example:80", "port-not-allowed", "git.corp.example:1", "allowed-by-audit"},
		{"old.example:443", "expired-rule", "old.example:1", "allowed-by-audit"},
		{"gist.github.com:443", "denied-by-rule", "gist.github.com:1", "denied-by-rule"},
		{"x.evil.corp.example:443", "denied-by-rule", "*.evil.corp.example:1", "denied-by-rule"},
		{"mirror.example:443", "allowed", "mirror.example:1", "allowed"},
		{"mirror.example:8080", "denied-by-rule", "mirror.example:1", "denied-by-rule"},
		{"dns.google:443", "allowed", "dns.google:1", "allowed"},
		{"x.dns.google:443", "resolver-bypass", "*.google:1", "allowed-by-audit"},
		{"cloudflare-dns.com:443", "resolver-bypass", "", "allowed-by-audit"},
		{"10.9.0.7:5432", "allowed", "10.9.0.0/24:1", "allowed"},
		{"10.9.0.7:22", "port-not-allowed", "10.9.0.0/24:1", "allowed-by-audit"},
		{"10.8.0.7:9999", "special-address", "", "allowed-by-audit"},
		{"127.0.0.1:9999", "special-address", "", "special-address"},
		{"140.82.1.1:443", "allowed", "140.82.0.0/16:1", "allowed"},
		{"140.82.9.1:443", "denied-by-rule", "140.82.9.0/24:1", "denied-by-rule"},
		{"8.8.8.8:9999", "allowed", "0.0.0.0/0:1", "allowed"},
		{"8.8.8.8:443", "port-not-allowed", "0.0.0.0/0:1", "allowed-by-audit"},
		{"[2606:50c0::1]:443", "address-literal", "", "allowed-by-audit"},
		{"[::ffff:10.9.0.7]:5432", "special-address", "", "special-address"},
		{"169.254.169.254:80", "allowed", "169.254.169.254/32:1", "allowed"},
		{"169.254.170.2:80", "special-address", "", "special-address"},
	} {
		target, err := allowlists.ParseTarget(c.target, 0)
		if err != nil {
			t.Fatal(err)
		}
		decide := func(pool *allowlists.Pool) allowlists.Decision {
			if target.Addr.IsValid() {
				return pool.DecideLiteral(target.Addr, target.Port, day)
			}
			return pool.DecideConn(target.Host, target.Port, day)
		}
		d, a := decide(enforce), decide(audit)
		if d.Reason.String() != c.want || d.Rule.Where() != c.rule || d.Allowed() != (c.want == "allowed") {
			t.Errorf("%s: %s %s by %q, want %s by %q", c.target, d.Verdict, d.Reason, d.Rule.Where(), c.want, c.rule)
		}
		if a.Reason.String() != c.audit || a.Allowed() != strings.HasPrefix(c.audit, "allowed") || a.Cause().String() != c.want {
			t.Errorf("%s in audit: %s %s would %s, want %s would %s", c.target, a.Verdict, a.Reason, a.Would, c.audit, c.want)
		}
	}
}

func TestOwnRuleBeforePreset(t *testing.T) {
	pool := buildPool(t, allowlists.Enforce)
	if d := pool.DecideConn(host(t, "a.corp.example"), 443, day); d.Rule.Preset != "" {
		t.Error("the preset's rule won over the pool's own")
	}
}

func TestDNSStageKnowsNoPort(t *testing.T) {
	pool := buildPool(t, allowlists.Enforce)
	for name, want := range map[string]string{
		"git.corp.example": "allowed", "mirror.example": "allowed", "gist.github.com": "denied-by-rule",
		"old.example": "expired-rule", "example.net": "not-in-allowlist", "x.dns.google": "resolver-bypass",
	} {
		if got := pool.DecideName(host(t, name), day).Reason.String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestServiceNames(t *testing.T) {
	pool := buildPool(t, allowlists.Enforce)
	if d, below, ok := pool.DecideServiceName(host(t, "_http._tcp.deb.example"), 33, day); !ok || !d.Allowed() || below.String() != "deb.example" {
		t.Error("SRV below deb.example is refused")
	}
	for name, qtype := range map[string]uint16{"_http._tcp.deb.example": 16, "_http._tcp.github.com": 33, "deb.example": 33, "_x": 33} {
		if _, _, ok := pool.DecideServiceName(host(t, name), qtype, day); ok {
			t.Errorf("%s type %d is allowed as a service name", name, qtype)
		}
	}
}

func TestQuietCoversRefusalsOnly(t *testing.T) {
	pool := buildPool(t, allowlists.Enforce)
	if !pool.DecideName(host(t, "esm.ubuntu.com"), day).Quiet || !pool.DecideName(host(t, "gist.github.com"), day).Quiet {
		t.Error("a quiet name is loud")
	}
	if pool.DecideName(host(t, "example.net"), day).Quiet {
		t.Error("a loud name is quiet")
	}
}

// TestTheBuiltInQuietListYieldsToThePool has the name that Ubuntu's message of
// the day comes from, in pools that say something of it, or nothing.
func TestTheBuiltInQuietListYieldsToThePool(t *testing.T) {
	motd := host(t, "motd.ubuntu.com")
	rule := func(text string, ports allowlists.PortSet) []allowlists.Rule {
		pattern, err := allowlists.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		return []allowlists.Rule{{Host: pattern, Ports: ports}}
	}
	for _, c := range []struct {
		what  string
		spec  allowlists.PoolSpec
		quiet bool
	}{
		{"names it nowhere", allowlists.PoolSpec{}, true},
		{"denies it", allowlists.PoolSpec{Deny: rule("*.ubuntu.com", allowlists.AllPorts())}, false},
		{"allows another port of it", allowlists.PoolSpec{Allow: rule("motd.ubuntu.com", allowlists.NewPortSet(8443))}, false},
		{"keeps it quiet, and denies it", allowlists.PoolSpec{Deny: rule("*.ubuntu.com", allowlists.AllPorts()), Quiet: rule("motd.ubuntu.com", allowlists.AllPorts())}, true},
	} {
		if d := onePool(t, c.spec).DecideConn(motd, 443, day); d.Allowed() || d.Quiet != c.quiet || (d.QuietBy != nil) != c.quiet {
			t.Errorf("a pool that %s: %+v", c.what, d)
		}
	}
	d := onePool(t, allowlists.PoolSpec{}).DecideName(motd, day)
	if where, ok := d.QuietBy.BuiltinQuiet(); !ok || where != "ubuntu:9" {
		t.Errorf("its line is %q", where)
	}
	for _, loud := range []string{"ubuntu.com", "x.motd.ubuntu.com", "motd.ubuntu.com.evil.example", "motd-ubuntu.com"} {
		if onePool(t, allowlists.PoolSpec{}).DecideName(host(t, loud), day).Quiet {
			t.Errorf("%s is quiet", loud)
		}
	}
	if _, ok := (*allowlists.Rule)(nil).BuiltinQuiet(); ok {
		t.Error("no rule is a built-in one")
	}
}

func TestNilPoolAndZeroValuesRefuse(t *testing.T) {
	var none *allowlists.Pool
	decisions := []allowlists.Decision{
		{}, none.DecideName(host(t, "github.com"), day), none.DecideConn(host(t, "github.com"), 443, day),
		none.DecideLiteral(netip.MustParseAddr("8.8.8.8"), 443, day), none.Refuse(allowlists.NotInAllowlist, nil),
		none.DecideAddr(allowlists.Decision{Verdict: allowlists.Allow}, netip.MustParseAddr("8.8.8.8"), day),
		onePool(t, allowlists.PoolSpec{}).DecideName(host(t, "github.com"), day),
		buildPool(t, allowlists.Enforce).DecideConn(allowlists.Host{}, 443, day),
		buildPool(t, allowlists.Audit).DecideConn(allowlists.Host{}, 443, day),
		buildPool(t, allowlists.Enforce).DecideLiteral(netip.Addr{}, 443, day),
		buildPool(t, allowlists.Enforce).DecideConn(host(t, "github.com"), 0, day),
	}
	for i, d := range decisions {
		if d.Allowed() {
			t.Errorf("decision %d allows: %+v", i, d)
		}
	}
}

func TestPoolOfAClient(t *testing.T) {
	prefixes := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{
		{Name: "wide", Sources: prefixes("10.0.0.0/8", "fd00::/16")},
		{Name: "narrow", Sources: prefixes("10.20.0.0/24")},
		{Name: "one", Sources: prefixes("10.20.0.7/32")},
		{Name: "bridge", Sources: prefixes("10.30.0.0/24"), Interfaces: []string{"br0"}},
		{Name: "own", Listen: allowlists.PoolListen{Proxy: []string{"127.0.0.1:3129"}}},
		{Name: "any"},
	}, DefaultPool: "any"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ client, iface, listener, want string }{
		{"10.1.1.1", "", "", "wide"}, {"::ffff:10.1.1.1", "", "", "wide"}, {"10.20.0.9", "", "", "narrow"}, {"10.20.0.7", "", "", "one"},
		{"fd00::9", "", "", "wide"}, {"192.168.0.1", "", "", "any"}, {"10.30.0.1", "br0", "", "bridge"},
		{"10.30.0.1", "br1", "", ""}, // both given, both must hold; the wider pool does not take it
		{"192.168.0.1", "", "own", "own"},
		{"10.1.1.1", "", "own", ""}, // another pool's client gains nothing at this pool's listener
		{"192.168.0.1", "", "nosuch", ""},
	} {
		sub, pool := policy.Subject(netip.MustParseAddr(c.client), c.iface, c.listener)
		if pool.Name() != c.want || sub.Pool != c.want {
			t.Errorf("%+v: pool %q", c, pool.Name())
		}
	}
	if _, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{
		{Name: "a", Sources: prefixes("10.0.0.0/8")}, {Name: "b", Sources: prefixes("10.1.0.0/8")},
	}}); err == nil {
		t.Error("two pools with the same source are accepted")
	}
}

// FuzzMatcher holds the index against a walk over every rule.
func FuzzMatcher(f *testing.F) {
	f.Add("github.com", uint16(443), uint64(1))
	f.Add("a.b.corp.example", uint16(80), uint64(7))
	f.Fuzz(func(t *testing.T, name string, port uint16, seed uint64) {
		h, err := allowlists.ParseHost(name)
		if err != nil || port == 0 {
			return
		}
		rules := randomRules(t, h.String(), rand.New(rand.NewPCG(seed, 1)))
		pool := onePool(t, allowlists.PoolSpec{Allow: rules})
		covered := false
		for i := range rules {
			covered = covered || slowMatch(rules[i].Host.String(), h.String()) && rules[i].Ports.Contains(port)
		}
		d := pool.DecideConn(h, port, day)
		if d.Allowed() != covered && d.Reason != allowlists.ResolverBypass {
			t.Fatalf("%s:%d: %s, the slow walk says %v", h, port, d.Reason, covered)
		}
		if d.Allowed() && len(rules) > 0 && pool.DecideConn(h, port, day) != d {
			t.Fatal("two verdicts")
		}
	})
}

// randomRules makes patterns around name, near misses among them.
func randomRules(t testing.TB, name string, r *rand.Rand) []allowlists.Rule {
	labels := strings.Split(name, ".")
	var rules []allowlists.Rule
	for range r.IntN(6) {
		rest := strings.Join(labels[r.IntN(len(labels)):], ".")
		text := []string{rest, "*." + rest, rest[:r.IntN(len(rest))] + "*" + rest, "x" + rest, "*" + rest, rest[:1] + "*." + rest}[r.IntN(6)]
		p, err := allowlists.ParsePattern(text)
		if err != nil {
			continue
		}
		rules = append(rules, allowlists.Rule{Host: p, Ports: allowlists.NewPortSet(443, 80)})
	}
	return rules
}

// slowMatch is the documented meaning of a pattern, label by label.
func slowMatch(pattern, name string) bool {
	pl, nl := strings.Split(pattern, "."), strings.Split(name, ".")
	if pl[0] == "*" {
		return len(nl) >= len(pl) && strings.Join(nl[len(nl)-len(pl)+1:], ".") == strings.Join(pl[1:], ".")
	}
	if len(pl) != len(nl) || strings.Join(pl[1:], ".") != strings.Join(nl[1:], ".") {
		return false
	}
	before, after, star := strings.Cut(pl[0], "*")
	if !star {
		return pl[0] == nl[0]
	}
	return len(nl[0]) > len(before)+len(after) && strings.HasPrefix(nl[0], before) && strings.HasSuffix(nl[0], after)
}

// BenchmarkDecide judges names against 100,000 rules. Last result (2 cores,
// shared): 105 ns and 0 allocations a decision; see make bench.
func BenchmarkDecide(b *testing.B) {
	rules := make([]allowlists.Rule, 0, 100_000)
	for i := range cap(rules) / 2 {
		rules = append(rules, hostRule(b, fmt.Sprintf("host%d.corp%d.example", i, i%1000), 443), hostRule(b, fmt.Sprintf("*.dom%d.example", i), 443))
	}
	pool := onePool(b, allowlists.PoolSpec{Allow: rules})
	for what, name := range map[string]string{"exact": "host777.corp777.example", "below": "a.b.dom4711.example", "refused": "a.b.nosuch.example"} {
		h := host(b, name)
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pool.DecideConn(h, 443, day)
			}
		})
	}
}
