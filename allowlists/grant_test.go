package allowlists_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/allowlists"
)

func grantPolicy(t *testing.T) *allowlists.Policy {
	t.Helper()
	return mustLoad(t, `pools:
  build: {sources: [10.0.0.0/24], allow: ["*.corp.example"], deny: [gist.corp.example, "bad.example:22"]}
  other: {sources: [10.0.1.0/24], allow: [a.example], resolves_to: [10.0.0.0/8]}
default_pool: other
`).Policy
}

func TestWhatMayBeGranted(t *testing.T) {
	t.Parallel()
	policy, now := grantPolicy(t), time.Now()
	const words = "the usual mirror is down"
	for rule, c := range map[string]struct {
		pool, target, reason, by string
		lasts                    time.Duration
		want                     string // of the grant's Host, or of the error
	}{
		"a host is one on 443":               {"build", "Mirror.Example.", words, "uid 0", time.Hour, "mirror.example:443"},
		"a port may be given":                {"build", "mirror.example:8080", words, "uid 0", 24 * time.Hour, "mirror.example:8080"},
		"one that is allowed already":        {"build", "a.corp.example", words, "uid 0", time.Hour, "a.corp.example:443"},
		"a denied port leaves the others":    {"build", "bad.example", words, "uid 0", time.Hour, "bad.example:443"},
		"a denied host":                      {"build", "gist.corp.example", words, "uid 0", time.Hour, "a deny list beats every grant"},
		"a denied port":                      {"build", "bad.example:22", words, "uid 0", time.Hour, "a deny list beats every grant"},
		"a wildcard":                         {"build", "*.example", words, "uid 0", time.Hour, "no HOST or HOST:PORT"},
		"an address":                         {"build", "10.0.0.9", words, "uid 0", time.Hour, "is an address"},
		"an address of IPv6":                 {"build", "[2001:db8::1]:443", words, "uid 0", time.Hour, "is an address"},
		"a name that a parser takes for one": {"build", "0x7f.1", words, "uid 0", time.Hour, "no HOST or HOST:PORT"},
		"a port that is none":                {"build", "mirror.example:0", words, "uid 0", time.Hour, "no HOST or HOST:PORT"},
		"no host":                            {"build", "", words, "uid 0", time.Hour, "no HOST or HOST:PORT"},
		"no pool":                            {"biuld", "mirror.example", words, "uid 0", time.Hour, `did you mean "build"?`},
		"no time":                            {"build", "mirror.example", words, "uid 0", 0, "up to 24 hours"},
		"too much time":                      {"build", "mirror.example", words, "uid 0", 24*time.Hour + 1, "up to 24 hours"},
		"no reason":                          {"build", "mirror.example", " ", "uid 0", time.Hour, "the reason is missing"},
		"a long reason":                      {"build", "mirror.example", strings.Repeat("ä", 201), "uid 0", time.Hour, "longer than 200"},
		"a reason of 200 characters":         {"build", "mirror.example", strings.Repeat("ä", 200), "uid 0", time.Hour, "mirror.example:443"},
		"a reason with a line break":         {"build", "mirror.example", "a\nb", "uid 0", time.Hour, "do not print"},
		"a reason that turns text around":    {"build", "mirror.example", "a\u202eb", "uid 0", time.Hour, "do not print"},
		"a reason that is no text":           {"build", "mirror.example", "a\xff", "uid 0", time.Hour, "do not print"},
		"a name that does not print":         {"build", "mirror.example", words, "\x1b[31m", time.Hour, "the name of who asks has"},
	} {
		g, err := allowlists.NewGrant(policy, c.pool, c.target, c.reason, c.by, now, c.lasts)
		got := g.Host
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || got == "" {
			t.Errorf("%s: got %q, want %q", rule, got, c.want)
		}
	}
}

func TestAGrantIsARuleOfItsPoolAlone(t *testing.T) {
	t.Parallel()
	policy, now := grantPolicy(t), time.Now()
	g := grant(t, policy, "other", "mirror.example", now, time.Hour)
	granted, err := policy.WithGrants([]allowlists.Grant{g, grant(t, policy, "build", "git.example:22", now, time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	mirror := host(t, "mirror.example")
	decide := func(p *allowlists.Policy, pool string, port uint16, at time.Time) string {
		d := p.Pool(pool).DecideConn(mirror, port, at)
		return d.Reason.String() + " " + d.Rule.Where()
	}
	for rule, got := range map[string][2]string{
		"its pool reaches it":            {decide(granted, "other", 443, now), "allowed grant:" + g.ID},
		"no other port":                  {decide(granted, "other", 80, now), "port-not-allowed grant:" + g.ID},
		"no other pool":                  {decide(granted, "build", 443, now), "not-in-allowlist "},
		"not when it has ended":          {decide(granted, "other", 443, now.Add(time.Hour)), "expired-rule grant:" + g.ID},
		"not in the policy it came from": {decide(policy, "other", 443, now), "not-in-allowlist "},
		"grants do not add up":           {decide(again(t, granted), "other", 443, now), "not-in-allowlist "},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: got %q, want %q", rule, got[0], got[1])
		}
	}
	rule := granted.Pool("other").DecideConn(mirror, 443, now).Rule
	if id, ok := rule.GrantID(); !ok || id != g.ID || len(rule.ResolvesTo) != 1 || !rule.RequiresTLS(443) {
		t.Errorf("the rule is %+v", rule)
	}
	if id, ok := granted.Pool("build").Spec().Allow[0].GrantID(); ok || len(granted.Pool("build").Granted()) != 1 {
		t.Errorf("a rule of the configuration is the grant %q", id)
	}
	if same, err := policy.WithGrants(nil); err != nil || same != policy {
		t.Error("where nothing is granted another policy is made")
	}
	if !granted.ExpiresBetween(now, now.Add(time.Hour)) || granted.Generation() == policy.Generation() {
		t.Error("nothing that the grant allowed would be closed at its end")
	}
	if _, pool := granted.Subject(netip.MustParseAddr("192.0.2.1"), "", ""); pool.Name() != "other" {
		t.Error("the default pool is lost")
	}
}

func TestAClockThatIsSetBackMakesNoGrantLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := grantPolicy(t)
		g := grant(t, policy, "build", "mirror.example", time.Now(), time.Hour)
		time.Sleep(30 * time.Minute)
		if g.Ended(time.Now()) || !g.Ended(g.Granted.Round(0).Add(-time.Second)) {
			t.Error("half an hour before its end a grant is over, or one second before it was made it is not")
		}
		time.Sleep(30 * time.Minute)
		if !g.Ended(time.Now()) {
			t.Error("it does not end")
		}
	})
}

func TestKeptGrants(t *testing.T) {
	t.Parallel()
	policy, now := grantPolicy(t), time.Now().UTC().Truncate(time.Microsecond)
	one := grant(t, policy, "build", "mirror.example", now, time.Hour)
	text, err := allowlists.EncodeGrants([]allowlists.Grant{one, grant(t, policy, "other", "b.example", now, time.Minute)}, now)
	if err != nil {
		t.Fatal(err)
	}
	live, over, err := allowlists.ReadGrants(text, policy, now.Add(30*time.Minute))
	if err != nil || len(live) != 1 || !live[0].Ends.Equal(one.Ends) || live[0].ID != one.ID || live[0].By != one.By || len(over) != 1 || over[0].Host != "b.example:443" {
		t.Errorf("live %v, over %v, %v", live, over, err)
	}
	without := mustLoad(t, "pools: {other: {allow: [a.example], deny: [b.example]}}\n").Policy
	if live, over, err = allowlists.ReadGrants(text, without, now); err != nil || len(live) != 0 || len(over) != 2 {
		t.Errorf("of a pool that is gone and of a host that is denied: live %v, over %v, %v", live, over, err)
	}
	for rule, change := range map[string][2]string{
		"a cut file":        {"]", ""},
		"another id":        {one.ID, "../../etc"},
		"a longer time":     {one.Ends.Format(time.RFC3339Nano), now.Add(30 * time.Hour).Format(time.RFC3339Nano)},
		"another host":      {"mirror.example:443", "*.example:443"},
		"another character": {"because", "because\\u001b"},
		"an id twice":       {`"grants": [`, `"grants": [` + strings.Repeat(`{"id": "`+allowlists.NewID()[:11]+`a", "pool": "build"},`, 2)},
	} {
		if !strings.Contains(string(text), change[0]) {
			t.Fatalf("%s: the file has no %s", rule, change[0])
		}
		if live, _, err := allowlists.ReadGrants([]byte(strings.ReplaceAll(string(text), change[0], change[1])), policy, now); err == nil || live != nil {
			t.Errorf("%s: %v", rule, live)
		}
	}
	many := make([]allowlists.Grant, allowlists.MaxGrants+1)
	for i := range many {
		many[i] = grant(t, policy, "build", fmt.Sprintf("h%d.example", i), now, time.Hour)
	}
	if text, err = allowlists.EncodeGrants(many, now); err != nil {
		t.Fatal(err)
	}
	if live, _, err := allowlists.ReadGrants(text, policy, now); err == nil {
		t.Errorf("%d grants", len(live))
	}
}

// TestGrantsAreAsRulesOfTheConfiguration compares random policies with grants
// with those whose configuration has the same lines.
func TestGrantsAreAsRulesOfTheConfiguration(t *testing.T) {
	t.Parallel()
	random, now := rand.New(rand.NewPCG(1, 2)), time.Now()
	hosts := []string{"a.example", "b.example", "x.a.example", "dns.google", "deb.corp.example", "cloudflare-dns.com"}
	pick := func() string {
		h := hosts[random.IntN(len(hosts))]
		switch random.IntN(4) {
		case 0:
			_, below, _ := strings.Cut(h, ".")
			return "*." + below
		case 1:
			return h + ":8080"
		default:
			return h
		}
	}
	for range 500 {
		var allow, deny []string
		for range random.IntN(4) {
			allow = append(allow, fmt.Sprintf(`{host: %q, ports: [%d], tls: %s}`, strings.TrimSuffix(pick(), ":8080"), []int{443, 8080}[random.IntN(2)], []string{"require", "off"}[random.IntN(2)]))
		}
		for range random.IntN(2) {
			deny = append(deny, fmt.Sprintf("%q", pick()))
		}
		text := func(more ...string) string {
			return fmt.Sprintf("pools:\n  build: {sources: [10.0.0.0/8], resolves_to: [192.168.0.0/16], allow: [%s], deny: [%s]}\n  other: {sources: [10.1.0.0/16], allow: [%s]}\n",
				strings.Join(append(slices.Clone(allow), more...), ", "), strings.Join(deny, ", "), strings.Join(allow, ", "))
		}
		file, report := allowlists.Load([]allowlists.Source{{Name: "a.yaml", Text: []byte(text())}}, os.LookupEnv, now)
		if len(report.Errors()) > 0 {
			continue // a pattern over a public suffix, say
		}
		var grants []allowlists.Grant
		var lines []string
		for range 1 + random.IntN(3) {
			target := strings.TrimPrefix(pick(), "*.")
			g, err := allowlists.NewGrant(file.Policy, "build", target, "because", "me", now, time.Hour)
			if err != nil {
				continue // denied, say
			}
			grants = append(grants, g)
			lines = append(lines, fmt.Sprintf("%q", g.Host))
		}
		with, err := file.Policy.WithGrants(grants)
		if err != nil {
			t.Fatal(err)
		}
		same := mustLoad(t, text(lines...)).Policy
		for _, name := range append(hosts, "other.example", "y.a.example") {
			h := host(t, name)
			for _, port := range []uint16{0, 443, 8080, 22} {
				for _, pool := range []string{"build", "other"} {
					a, b := with.Pool(pool).DecideConn(h, port, now), same.Pool(pool).DecideConn(h, port, now)
					if a.Verdict != b.Verdict || a.Reason != b.Reason || (a.Rule == nil) != (b.Rule == nil) || a.Rule != nil && a.Rule.RequiresTLS(port) != b.Rule.RequiresTLS(port) {
						t.Fatalf("%s:%d of %s: granted %v, written %v\n%s", name, port, pool, a, b, text(lines...))
					}
				}
			}
		}
		if sub, pool := with.Subject(netip.MustParseAddr("10.1.2.3"), "", ""); sub.Pool != "other" || pool != with.Pool("other") {
			t.Fatal("a client has another pool")
		}
		if sub, pool := with.Subject(netip.MustParseAddr("10.2.2.3"), "", ""); sub.Pool != "build" || pool != with.Pool("build") {
			t.Fatal("a client has a pool of before")
		}
	}
}

// BenchmarkGrantAmongMany grants a host to a pool of 100,000 rules.
func BenchmarkGrantAmongMany(b *testing.B) {
	rules := make([]allowlists.Rule, 100_000)
	for i := range rules {
		pattern, err := allowlists.ParsePattern(fmt.Sprintf("n%d.s%d.allowed.example", i, i%997))
		if err != nil {
			b.Fatal(err)
		}
		rules[i] = allowlists.Rule{Host: pattern, Ports: allowlists.NewPortSet(443)}
	}
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{{Name: "build", Allow: rules}}})
	if err != nil {
		b.Fatal(err)
	}
	g, err := allowlists.NewGrant(policy, "build", "mirror.example", "because", "me", time.Now(), time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.WithGrants([]allowlists.Grant{g}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestARestartMakesNoGrantLonger, whatever the clock says before and after it.
func TestARestartMakesNoGrantLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := grantPolicy(t)
		g := grant(t, policy, "build", "mirror.example", time.Now(), time.Hour)
		time.Sleep(20 * time.Minute)
		text, err := allowlists.EncodeGrants([]allowlists.Grant{g}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		for says, c := range map[string]struct {
			now  time.Time
			left time.Duration // 0: it is over
		}{
			"the clock goes right":                          {time.Now(), 30 * time.Minute},
			"it went back to before the file was written":   {time.Now().Add(-25 * time.Minute), 40 * time.Minute},
			"it went back to before the grant was made":     {time.Now().Add(-time.Hour), 0},
			"it went ahead":                                 {time.Now().Add(20 * time.Minute), 10 * time.Minute},
			"it went ahead to the end":                      {time.Now().Add(30 * time.Minute), 0},
			"the file was written by a clock that was back": {time.Now().Add(-10*time.Minute - time.Second), 40 * time.Minute},
		} {
			live, over, err := allowlists.ReadGrants(text, policy, c.now)
			switch {
			case err != nil:
				t.Errorf("%s: %v", says, err)
			case c.left == 0:
				if len(over) != 1 || len(live) != 0 {
					t.Errorf("%s: live %v, over %v", says, live, over)
				}
			case len(live) != 1 || live[0].Ends.Sub(c.now) != c.left:
				t.Errorf("%s: live %v", says, live)
			}
		}
		// A clock that was set back while the daemon ran: by it the end is far away.
		end := g.Ends.Format(time.RFC3339Nano)
		later := strings.Replace(string(text), end, g.Ends.Add(3*time.Hour).Format(time.RFC3339Nano), 1)
		live, _, err := allowlists.ReadGrants([]byte(later), policy, time.Now())
		if err != nil || later == string(text) || len(live) != 1 || time.Until(live[0].Ends) != 30*time.Minute {
			t.Errorf("set back under the daemon: live %v, %v", live, err)
		}
	})
}

func grant(t *testing.T, policy *allowlists.Policy, pool, target string, now time.Time, lasts time.Duration) allowlists.Grant {
	t.Helper()
	g, err := allowlists.NewGrant(policy, pool, target, "because", "uid 0", now, lasts)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// again is the policy without grants.
func again(t *testing.T, p *allowlists.Policy) *allowlists.Policy {
	t.Helper()
	bare, err := p.WithGrants(nil)
	if err != nil {
		t.Fatal(err)
	}
	return bare
}
